"""Number of characters."""

from dataclasses import dataclass

import polars as pl

from curation.rules import RULES
from curation.rules.bounds import Bounds
from curation.rules.words import characters


@dataclass(frozen=True, kw_only=True)
class CharCount(Bounds):
    """Bounds of the number of characters."""

    minimum: float | None = 1.0
    maximum: float | None = 1_000_000.0


@RULES.register("char_count", CharCount)
def char_count(text: pl.Expr) -> pl.Expr:
    """Count the Unicode code points of a text. The bounds are ours: they stop the empty and the endless."""
    return characters(text)
