"""Gopher: words with a letter."""

import polars as pl

from curation.rules import RULES
from curation.rules.bounds import bounded
from curation.rules.columns import column
from curation.rules.words import ratio, unspaced_words, words


@RULES.register("alpha_word_ratio", bounded(minimum=0.8))
def alpha_word_ratio(_text: pl.Expr) -> pl.Expr:
    """Share of the words that contain at least one letter of any script; null for a text without words.

    References
    ----------
    Rae et al. (2021), appendix A.1.1: remove when less than 80 % of words contain an alphabetic character, so 0.8 is
    kept.
    """
    return ratio(column("lettered_words") + unspaced_words(), words())
