"""Gopher: number of words."""

import polars as pl

from curation.rules import RULES
from curation.rules.bounds import bounded
from curation.rules.words import words


@RULES.register("word_count", bounded(minimum=50.0, maximum=100_000.0))
def word_count(_text: pl.Expr) -> pl.Expr:
    """Count the words of a text.

    Unspaced scripts: two CJK or four Southeast Asian characters count as one word.

    References
    ----------
    Rae et al. (2021), Scaling Language Models (Gopher), appendix A.1.1: between 50 and 100,000 words, inclusive.
    """
    return words()
