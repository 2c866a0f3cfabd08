"""Share of a text that is web addresses."""

import polars as pl

from curation.rules import RULES
from curation.rules.bounds import bounded
from curation.rules.columns import column
from curation.rules.words import ratio


@RULES.register("url_ratio", bounded(maximum=0.5))
def url_ratio(text: pl.Expr) -> pl.Expr:
    """Share of the characters that stand in a web address (from ``http://``, ``https://`` or ``www.`` to white space).

    The bound is ours: more address than text.
    """
    addresses = text.str.extract_all(r"(?i)\b(?:https?://|www\.)\S+")
    number = addresses.list.eval(pl.element().str.len_chars()).list.sum().cast(pl.Float64)
    return ratio(number, column("chars"))
