"""Gopher: mean word length."""

from dataclasses import dataclass

import polars as pl

from curation.rules import RULES
from curation.rules.bounds import Bounds
from curation.rules.words import ratio, spaced_characters, spaced_words
from curation.scripts import UNSPACED


@dataclass(frozen=True, kw_only=True)
class MeanWordLength(Bounds):
    """Bounds of the mean word length, in characters."""

    minimum: float | None = 3.0
    maximum: float | None = 10.0


@RULES.register("mean_word_length", MeanWordLength)
def mean_word_length(text: pl.Expr) -> pl.Expr:
    """Mean length of the words between white space, in characters.

    Null when at least half of the non-blank characters are Chinese, Japanese, Korean, Thai, Lao, Khmer or Burmese:
    the bounds are in letters of an alphabet, and these write a syllable, or a whole text, where others write a letter.

    References
    ----------
    Rae et al. (2021), appendix A.1.1: mean word length of 3 to 10 characters, inclusive. Some later systems take the
    median instead.
    """
    filled = text.str.count_matches(r"\S").cast(pl.Float64)
    syllabic = text.str.count_matches(rf"[{UNSPACED}\p{{Hangul}}]").cast(pl.Float64)
    return pl.when(syllabic * 2 < filled).then(ratio(spaced_characters(text), spaced_words(text)))
