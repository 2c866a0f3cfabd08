"""Share of a text that is web addresses."""

from dataclasses import dataclass

import polars as pl

from curation.rules import RULES
from curation.rules.bounds import Bounds
from curation.rules.words import characters, ratio


@dataclass(frozen=True, kw_only=True)
class UrlRatio(Bounds):
    """Bounds of the share of characters in web addresses."""

    maximum: float | None = 0.5


@RULES.register("url_ratio", UrlRatio)
def url_ratio(text: pl.Expr) -> pl.Expr:
    """Share of the characters that stand in a web address (from ``http://``, ``https://`` or ``www.`` to white space).

    The bound is ours: more address than text.
    """
    addresses = text.str.extract_all(r"(?i)\b(?:https?://|www\.)\S+")
    number = addresses.list.eval(pl.element().str.len_chars()).list.sum().cast(pl.Float64)
    return ratio(number, characters(text))
