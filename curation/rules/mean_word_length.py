"""Gopher and C4: length of words."""

import polars as pl

from curation.rules import RULES
from curation.rules.bounds import bounded
from curation.rules.columns import column
from curation.rules.words import ratio, syllabic


@RULES.register("mean_word_length", bounded(minimum=3.0, maximum=10.0))
def mean_word_length(_text: pl.Expr) -> pl.Expr:
    """Mean length of the words between white space, in characters.

    Null when at least half of the non-blank characters are Chinese, Japanese, Korean, Thai, Lao, Khmer or Burmese:
    the bounds are in letters of an alphabet, and these write a syllable, or a whole text, where others write a letter.
    ``korean_word_length`` is for Korean.

    References
    ----------
    Rae et al. (2021), appendix A.1.1: mean word length of 3 to 10 characters, inclusive. Some later systems take the
    median instead.
    """
    return pl.when(~syllabic()).then(ratio(column("spaced_chars"), column("spaced_words")))


@RULES.register("longest_word", bounded(maximum=1000.0))
def longest_word(_text: pl.Expr) -> pl.Expr:
    """Characters of the longest word; characters of scripts without spaces end one, so a Chinese page has no long word.

    References
    ----------
    Raffel et al. (2020), as in TFDS ``c4_utils``: a line with a word of more than 1,000 characters leaves; here the
    record does, where the recipe does not take such lines out first (``edit: c4_lines``).
    """
    return column("longest_word")
