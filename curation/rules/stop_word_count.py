"""Gopher: English stop words."""

from dataclasses import dataclass

import polars as pl

from curation.rules import RULES
from curation.rules.bounds import Bounds

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")


@dataclass(frozen=True, kw_only=True)
class StopWordCount(Bounds):
    """Bounds of the number of distinct stop words."""

    minimum: float | None = 2.0


@RULES.register("stop_word_count", StopWordCount)
def stop_word_count(text: pl.Expr) -> pl.Expr:
    """Number of distinct English stop words in a text, case ignored.

    Null unless most of its letters are Latin: the rule asks for English. Other Latin-script languages are measured and
    fail, so use it in recipes that keep English only.

    References
    ----------
    Rae et al. (2021), appendix A.1.1: at least two of the, be, to, of, and, that, have, with.
    """
    latin = text.str.count_matches(r"\p{Latin}").cast(pl.Float64)
    letters = text.str.count_matches(r"\p{Alphabetic}").cast(pl.Float64)
    found = [text.str.contains(rf"(?i)\b{word}\b").cast(pl.Float64) for word in STOP_WORDS]
    return pl.when(latin * 2 > letters).then(pl.sum_horizontal(found))
