"""Gopher: lines that begin with a bullet or end in an ellipsis. Blank lines are not counted."""

from dataclasses import dataclass

import polars as pl

from curation.rules import RULES
from curation.rules.bounds import Bounds
from curation.rules.words import lines, ratio


@dataclass(frozen=True, kw_only=True)
class BulletLineRatio(Bounds):
    """Bounds of the share of lines that begin with a bullet."""

    maximum: float | None = 0.9


@dataclass(frozen=True, kw_only=True)
class EllipsisLineRatio(Bounds):
    """Bounds of the share of lines that end in an ellipsis."""

    maximum: float | None = 0.3


@RULES.register("bullet_line_ratio", BulletLineRatio)
def bullet_line_ratio(text: pl.Expr) -> pl.Expr:
    """Share of the lines that begin with one of ``• ‣ ◦ ▪ ● ・ * -``.

    References
    ----------
    Rae et al. (2021), appendix A.1.1: remove when more than 90 % of lines start with a bullet point, so 0.9 is kept.
    The paper does not list the bullets; other systems take ``•`` with ``-`` or ``*``.
    """
    return ratio(text.str.count_matches(r"(?m)^[^\S\n]*[•‣◦▪●・*-]").cast(pl.Float64), lines(text))


@RULES.register("ellipsis_line_ratio", EllipsisLineRatio)
def ellipsis_line_ratio(text: pl.Expr) -> pl.Expr:
    """Share of the lines that end in ``...`` or ``…``, white space after it ignored.

    References
    ----------
    Rae et al. (2021), appendix A.1.1: remove when more than 30 % of lines end with an ellipsis, so 0.3 is kept.
    """
    return ratio(text.str.count_matches(r"(?m)(?:\.\.\.|…)[^\S\n]*$").cast(pl.Float64), lines(text))
