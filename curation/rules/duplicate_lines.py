"""Gopher repetition: repeated lines within one text. Blank lines are not counted; lines are compared trimmed."""

from dataclasses import dataclass

import polars as pl

from curation.rules import RULES
from curation.rules.bounds import Bounds
from curation.rules.words import line_list, ratio


@dataclass(frozen=True, kw_only=True)
class DuplicateLineRatio(Bounds):
    """Bounds of the share of lines that repeat an earlier one."""

    maximum: float | None = 0.3


@dataclass(frozen=True, kw_only=True)
class DuplicateLineCharRatio(Bounds):
    """Bounds of the share of characters in lines that repeat an earlier one."""

    maximum: float | None = 0.2


def _num_characters(lines: pl.Expr) -> pl.Expr:
    return lines.list.eval(pl.element().str.len_chars()).list.sum().cast(pl.Float64)


@RULES.register("duplicate_line_ratio", DuplicateLineRatio)
def duplicate_line_ratio(text: pl.Expr) -> pl.Expr:
    """Share of the lines that repeat an earlier line of the same text.

    References
    ----------
    Rae et al. (2021), appendix A.1.1, table A1: duplicate line fraction at most 0.30. The first occurrence is not a
    duplicate here; some systems count it.
    """
    lines = line_list(text)
    number = lines.list.len().cast(pl.Float64)
    return ratio(number - lines.list.n_unique().cast(pl.Float64), number)


@RULES.register("duplicate_line_char_ratio", DuplicateLineCharRatio)
def duplicate_line_char_ratio(text: pl.Expr) -> pl.Expr:
    """Share of the lines' characters that stand in a line that repeats an earlier one.

    References
    ----------
    Rae et al. (2021), appendix A.1.1, table A1: duplicate line character fraction at most 0.20.
    """
    lines = line_list(text)
    number = _num_characters(lines)
    return ratio(number - _num_characters(lines.list.unique()), number)
