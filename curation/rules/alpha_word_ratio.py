"""Gopher: words with a letter."""

from dataclasses import dataclass

import polars as pl

from curation.rules import RULES
from curation.rules.bounds import Bounds
from curation.rules.words import ratio, words, words_with_letter


@dataclass(frozen=True, kw_only=True)
class AlphaWordRatio(Bounds):
    """Bounds of the share of words with a letter."""

    minimum: float | None = 0.8


@RULES.register("alpha_word_ratio", AlphaWordRatio)
def alpha_word_ratio(text: pl.Expr) -> pl.Expr:
    """Share of the words that contain at least one letter of any script; null for a text without words.

    References
    ----------
    Rae et al. (2021), appendix A.1.1: remove when less than 80 % of words contain an alphabetic character, so 0.8 is
    kept.
    """
    return ratio(words_with_letter(text), words(text))
