"""Length in characters."""

import polars as pl

from curation.rules import RULES
from curation.rules.bounds import bounded
from curation.rules.columns import column


@RULES.register("char_count", bounded(minimum=1.0, maximum=1_000_000.0))
def char_count(_text: pl.Expr) -> pl.Expr:
    """Count the Unicode code points of a text. The bounds are ours: they stop the empty and the endless."""
    return column("chars")


@RULES.register("byte_count", bounded(maximum=4_000_000.0))
def byte_count(text: pl.Expr) -> pl.Expr:
    """Count the bytes of a text in UTF-8, three a character in Korean, Chinese, Japanese, Thai. The bound is ours."""
    return text.str.len_bytes()
