"""C4's line filters as an edit: what they take out of a text, and why.

The rules of ``curation.rules.c4`` judge what is left: put ``c4_sentence_count``, ``curly_bracket_count`` and
``lorem_ipsum_count`` behind it for C4 whole.
"""

from collections.abc import Callable

import numpy as np
import polars as pl

from curation.dedup.rows import utf8
from curation.edits import CHANGES, EDITS
from curation.rules.c4_marks import (
    DROPS,
    FEW,
    FEW_TFDS,
    JAVASCRIPT,
    LONG_WORD,
    NO_END,
    NO_END_TFDS,
    POLICY,
)
from curation.rules.classes import classes
from curation.rules.columns import VARIANTS

REASONS = {
    LONG_WORD: "word of more than 1,000 characters",
    NO_END_TFDS: "no end mark",
    NO_END: "no end mark",
    FEW_TFDS: "fewer than 5 words",
    FEW: "fewer than 3 words",
    JAVASCRIPT: "javascript",
    POLICY: "cookies and terms of use",
}
"""In the order of the references' checks; the first that applies is the reason."""
CITATION = r"\[\d*\]|\[edit\]|\[citation needed\]"


def _lines(variant: str) -> Callable[[pl.Series], tuple[pl.Series, pl.DataFrame]]:
    drops = int(DROPS[VARIANTS.index(variant)])

    def edit(texts: pl.Series) -> tuple[pl.Series, pl.DataFrame]:
        return _take_out(texts, drops)

    edit.__doc__ = f"""Take out the lines that C4 takes out ({variant}), and citations such as ``[1]`` from the rest.

    Blank lines go, the others are trimmed. A text of which no line is left becomes empty and its record leaves.
    """
    return edit


def _take_out(texts: pl.Series, drops: int) -> tuple[pl.Series, pl.DataFrame]:
    from curation.rules.c4_kernels import mark_rows  # compiles: numba takes half a second

    rows = utf8(texts)
    numbers = texts.str.count_matches("\n", literal=True).to_numpy().astype(np.int64) + 1
    first = np.concatenate([[0], np.cumsum(numbers)])
    marks = np.zeros(first[-1], np.int64)
    if len(texts):
        mark_rows(rows.data, rows.offsets, classes(), first[:-1], marks)
    lines = pl.DataFrame({"row": pl.Series(np.repeat(np.arange(len(texts)), numbers), dtype=pl.UInt32), "marks": marks})
    lines = lines.with_columns(line=texts.str.split("\n").explode() if len(texts) else pl.Series([], dtype=pl.String))
    size = pl.col("line").str.len_chars().cast(pl.Int64) + 1
    lines = lines.with_columns(start=size.cum_sum().over("row") - size, left=(pl.col("marks") & drops) == 0)
    trimmed = pl.col("line").str.strip_chars()
    after = pl.when("left").then(trimmed.str.replace_all(CITATION, "")).otherwise(None)
    lines = lines.with_columns(after=after)
    kept = lines.filter("left").group_by("row", maintain_order=True).agg(pl.col("after").str.join("\n"))
    new = pl.DataFrame({"row": pl.int_range(len(texts), dtype=pl.UInt32, eager=True)}).join(
        kept, on="row", how="left", maintain_order="left"
    )["after"]
    return new.fill_null("").str.strip_chars().alias(texts.name), _changes(lines, drops)


def _changes(lines: pl.DataFrame, drops: int) -> pl.DataFrame:
    """Lines that went, with the first reason, and lines that lost a citation; blank ones are not worth a word."""
    why = pl.coalesce(
        pl.when((pl.col("marks") & mark) != 0).then(pl.lit(text)) for mark, text in REASONS.items() if mark & drops
    )
    trimmed = pl.col("line").str.strip_chars()
    told = lines.filter((trimmed != "") & (~pl.col("left") | (pl.col("after") != trimmed)))
    return told.select(
        "row",
        edit=pl.lit(""),
        reason=pl.when("left").then(pl.lit("citation")).otherwise(why),
        start="start",
        end=pl.col("start") + pl.col("line").str.len_chars().cast(pl.Int64),
        before="line",
        after="after",
    ).select(*CHANGES)


EDITS.register("c4_lines")(_lines("tfds"))
EDITS.register("c4_lines_datatrove")(_lines("datatrove"))
EDITS.register("c4_lines_fineweb")(_lines("fineweb"))
