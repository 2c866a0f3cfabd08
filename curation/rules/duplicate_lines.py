"""Gopher repetition: repeated lines and paragraphs within one text.

Blank lines are not counted; lines are compared trimmed. A paragraph is a run of lines between blank ones. The first
occurrence is not a duplicate; some systems count it. Thresholds: Rae et al. (2021), appendix A.1.1, table A1. NeMo
Curator keeps up to 0.7, 0.7, 0.8 and 0.8.
"""

import polars as pl

from curation.rules import RULES
from curation.rules.bounds import bounded
from curation.rules.columns import column
from curation.rules.words import ratio


@RULES.register("duplicate_line_ratio", bounded(maximum=0.3))
def duplicate_line_ratio(_text: pl.Expr) -> pl.Expr:
    """Share of the lines that repeat an earlier one of the same text.

    References
    ----------
    Rae et al. (2021), appendix A.1.1, table A1: duplicate line fraction at most 0.30. The first occurrence is not a
    duplicate here; some systems count it.
    """
    return ratio(column("duplicate_lines"), column("lines"))


@RULES.register("duplicate_line_char_ratio", bounded(maximum=0.2))
def duplicate_line_char_ratio(_text: pl.Expr) -> pl.Expr:
    """Share of the lines' characters that stand in a line that repeats an earlier one.

    References
    ----------
    Rae et al. (2021), appendix A.1.1, table A1: duplicate line character fraction at most 0.20.
    """
    return ratio(column("duplicate_line_chars"), column("line_chars"))


@RULES.register("duplicate_paragraph_ratio", bounded(maximum=0.3))
def duplicate_paragraph_ratio(_text: pl.Expr) -> pl.Expr:
    """Share of the paragraphs that repeat an earlier one of the same text.

    References
    ----------
    Rae et al. (2021), appendix A.1.1, table A1: duplicate paragraph fraction at most 0.30.
    """
    return ratio(column("duplicate_paragraphs"), column("paragraphs"))


@RULES.register("duplicate_paragraph_char_ratio", bounded(maximum=0.2))
def duplicate_paragraph_char_ratio(_text: pl.Expr) -> pl.Expr:
    """Share of the paragraphs' characters that stand in a paragraph that repeats an earlier one.

    References
    ----------
    Rae et al. (2021), appendix A.1.1, table A1: duplicate paragraph character fraction at most 0.20.
    """
    return ratio(column("duplicate_paragraph_chars"), column("paragraph_chars"))
