"""Traces of broken decoding."""

from dataclasses import dataclass

import polars as pl

from curation.rules import RULES
from curation.rules.bounds import Bounds
from curation.rules.words import characters, ratio


@dataclass(frozen=True, kw_only=True)
class ReplacementCharRatio(Bounds):
    """Bounds of the share of characters that come from broken decoding."""

    maximum: float | None = 0.01


@RULES.register("replacement_char_ratio", ReplacementCharRatio)
def replacement_char_ratio(text: pl.Expr) -> pl.Expr:
    """Share of the characters that are U+FFFD or C1 controls (U+0080 to U+009F), as mixed encodings leave behind.

    The bound is ours: one bad character in a hundred.
    """
    broken = text.str.count_matches(r"[\x{FFFD}\x{80}-\x{9F}]").cast(pl.Float64)
    return ratio(broken, characters(text))
