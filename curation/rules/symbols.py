"""Gopher: symbols per word, for the hash sign and the ellipsis."""

from dataclasses import dataclass

import polars as pl

from curation.rules import RULES
from curation.rules.bounds import Bounds
from curation.rules.words import ratio, words


@dataclass(frozen=True, kw_only=True)
class SymbolRatio(Bounds):
    """Bounds of symbols per word."""

    maximum: float | None = 0.1


@RULES.register("symbol_hash_ratio", SymbolRatio)
def symbol_hash_ratio(text: pl.Expr) -> pl.Expr:
    """Number of ``#`` per word; null for a text without words. Unspaced scripts: words as in ``word_count``.

    References
    ----------
    Rae et al. (2021), appendix A.1.1: remove when the symbol-to-word ratio is greater than 0.1, so 0.1 is kept.
    """
    return ratio(text.str.count_matches("[#＃]").cast(pl.Float64), words(text))


@RULES.register("symbol_ellipsis_ratio", SymbolRatio)
def symbol_ellipsis_ratio(text: pl.Expr) -> pl.Expr:
    """Number of ellipses (``...`` or ``…``) per word; null for a text without words.

    References
    ----------
    Rae et al. (2021), appendix A.1.1: remove when the symbol-to-word ratio is greater than 0.1, so 0.1 is kept.
    """
    return ratio(text.str.count_matches(r"\.\.\.|…").cast(pl.Float64), words(text))
