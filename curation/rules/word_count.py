"""Gopher: number of words."""

from dataclasses import dataclass

import polars as pl

from curation.rules import RULES
from curation.rules.bounds import Bounds
from curation.rules.words import words


@dataclass(frozen=True, kw_only=True)
class WordCount(Bounds):
    """Bounds of the number of words."""

    minimum: float | None = 50.0
    maximum: float | None = 100_000.0


@RULES.register("word_count", WordCount)
def word_count(text: pl.Expr) -> pl.Expr:
    """Count the words of a text.

    Unspaced scripts: two CJK or four Southeast Asian characters count as one word.

    References
    ----------
    Rae et al. (2021), Scaling Language Models (Gopher), appendix A.1.1: between 50 and 100,000 words, inclusive.
    """
    return words(text)
