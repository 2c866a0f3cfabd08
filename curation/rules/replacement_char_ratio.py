"""Traces of broken decoding."""

import polars as pl

from curation.rules import RULES
from curation.rules.bounds import bounded
from curation.rules.columns import column
from curation.rules.words import ratio


@RULES.register("replacement_char_ratio", bounded(maximum=0.01))
def replacement_char_ratio(_text: pl.Expr) -> pl.Expr:
    """Share of the characters that are U+FFFD or C1 controls (U+0080 to U+009F), as mixed encodings leave behind.

    The bound is ours: one bad character in a hundred.
    """
    return ratio(column("broken"), column("chars"))
