"""Gopher and FineWeb: how lines begin, end and how long they are. Blank lines are not counted."""

import polars as pl

from curation.rules import RULES
from curation.rules.bounds import bounded
from curation.rules.columns import column
from curation.rules.words import ratio, southeast, words


@RULES.register("bullet_line_ratio", bounded(maximum=0.9))
def bullet_line_ratio(_text: pl.Expr) -> pl.Expr:
    """Share of the lines that begin with one of ``• ‣ ◦ ▪ ● ・ * -``.

    References
    ----------
    Rae et al. (2021), appendix A.1.1: remove when more than 90 % of lines start with a bullet point, so 0.9 is kept.
    The paper does not list the bullets; other systems take ``•`` with ``-`` or ``*``.
    """
    return ratio(column("bullet_lines"), column("lines"))


@RULES.register("ellipsis_line_ratio", bounded(maximum=0.3))
def ellipsis_line_ratio(_text: pl.Expr) -> pl.Expr:
    """Share of the lines that end in ``...`` or ``…``, white space after it ignored.

    References
    ----------
    Rae et al. (2021), appendix A.1.1: remove when more than 30 % of lines end with an ellipsis, so 0.3 is kept.
    """
    return ratio(column("ellipsis_lines"), column("lines"))


@RULES.register("terminal_line_ratio", bounded(minimum=0.12))
def terminal_line_ratio(_text: pl.Expr) -> pl.Expr:
    """Share of the lines that end in a sign which ends sentences in any script (Unicode's Sentence_Terminal).

    Null where at least half of the text is Thai, Lao, Khmer or Burmese: they mostly write no full stop.

    References
    ----------
    Penedo et al. (2024), The FineWeb Datasets, section 3.6: remove when the share is at most 0.12; datatrove keeps
    0.12 itself, and so do we.
    """
    return pl.when(~southeast()).then(ratio(column("terminal_lines"), column("lines")))


@RULES.register("short_line_ratio", bounded(maximum=0.67))
def short_line_ratio(_text: pl.Expr) -> pl.Expr:
    """Share of the lines of at most 30 characters, where a Chinese, Japanese or Korean one counts as two.

    References
    ----------
    Penedo et al. (2024), section 3.6: remove when the share is at least 0.67; datatrove keeps 0.67 itself, and so do
    we. The double width is ours: a syllable says as much as two letters or more.
    """
    return ratio(column("short_lines"), column("lines"))


@RULES.register("newline_word_ratio", bounded(maximum=0.3))
def newline_word_ratio(_text: pl.Expr) -> pl.Expr:
    """Line breaks per word, as lists have many; null for a text without words. Unspaced scripts as in ``word_count``.

    References
    ----------
    datatrove 0.10, ``FineWebQualityFilter``: remove above 0.3. It is in no paper.
    """
    return ratio(column("newlines"), words())


@RULES.register("fineweb_duplicate_char_ratio", bounded(maximum=0.1))
def fineweb_duplicate_char_ratio(_text: pl.Expr) -> pl.Expr:
    """Share of the lines' characters in repeated lines, as ``duplicate_line_char_ratio``, at FineWeb's threshold.

    References
    ----------
    Penedo et al. (2024), section 3.6: remove when the share is at least 0.1. A share of 0.1 itself is kept here.
    """
    return ratio(column("duplicate_line_chars"), column("line_chars"))


@RULES.register("fineweb_duplicate_char_ratio_shipped", bounded(maximum=0.01))
def fineweb_duplicate_char_ratio_shipped(_text: pl.Expr) -> pl.Expr:
    """Share of the lines' characters in repeated lines, at the threshold that datatrove ships.

    References
    ----------
    datatrove 0.10, ``FineWebQualityFilter``: remove above 0.01, a tenth of the paper's.
    """
    return ratio(column("duplicate_line_chars"), column("line_chars"))


@RULES.register("c4_paragraph_count", bounded(minimum=3.0))
def c4_paragraph_count(_text: pl.Expr) -> pl.Expr:
    """Number of lines of at least 200 characters, where a Chinese, Japanese or Korean one counts as two.

    References
    ----------
    mC4 (Xue et al. 2021; TFDS ``c4_utils``, datatrove ``C4ParagraphFilter``): at least three. The double width is ours.
    """
    return column("long_lines")


@RULES.register("line_count", bounded(minimum=1.0))
def line_count(_text: pl.Expr) -> pl.Expr:
    """Number of lines that hold more than white space. The bound is ours."""
    return column("lines")
