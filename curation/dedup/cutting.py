"""Texts with spans cut out of them, and what is left put together so that nothing new arises at the seam."""

import numpy as np
import polars as pl

from catalog.errors import DataError
from curation.dedup.breaks import extends, mark_breaks
from curation.dedup.places import place_tokens
from curation.dedup.rows import utf8
from curation.dedup.substring_kernels import GRAPHEME

_CONTEXT = 32
"""Characters on either side of a seam that are looked at."""


def remove_spans(ids: pl.Series, texts: pl.Series, spans: pl.DataFrame) -> pl.Series:
    """Cut spans out of texts.

    What stood on both sides of a span is put together with the white space that stood there: of the two sides the one
    with more lines, then the longer. Where none stood, none comes, unless two words or two characters would become one.
    At the start and the end of a text the white space beside the span goes with it.

    Parameters
    ----------
    ids : n distinct record ids.
    texts : n texts, those that the spans were found in.
    spans : ``record_id``, ``start``, ``end`` (characters); spans of other records are passed over.

    Returns
    -------
    n texts, in the same order; those without spans as they were.

    Raises
    ------
    DataError : a span ends before it starts or behind its text, or two overlap.
    """
    records = pl.DataFrame({"record_id": ids, "text": texts}).with_row_index("at")
    grouped = (
        records.join(spans.select("record_id", "start", "end"), on="record_id")
        .sort("at", "start")
        .group_by("at", maintain_order=True)
        .agg("start", "end", pl.col("record_id", "text").first())
    )
    pieces: list[list[str]] = []
    seams: list[tuple[str, str, str]] = []
    for row in grouped.iter_rows(named=True):
        _check(row["record_id"], row["text"], row["start"], row["end"])
        kept, glues = _pieces(row["text"], row["start"], row["end"])
        pieces.append(kept)
        seams += zip(kept[:-1], glues, kept[1:], strict=True)
    between = iter(_mended(seams))
    cut = ["".join([*kept[:1], *(next(between) + piece for piece in kept[1:])]) for kept in pieces]
    changed = pl.DataFrame({"at": grouped["at"], "cut": pl.Series(cut, dtype=pl.String)})
    mended = records.join(changed, on="at", how="left", maintain_order="left")
    return mended.select(pl.coalesce("cut", "text").alias(texts.name)).to_series()


def _check(record_id: str, text: str, starts: list[int], ends: list[int]) -> None:
    """Refuse spans that this text cannot have."""
    before = 0
    for start, end in zip(starts, ends, strict=True):
        if not before <= start < end <= len(text):
            raise DataError(
                f"record {record_id}: span {start} to {end} must begin at {before} or behind it and end within the "
                f"{len(text)} characters of the text; give the spans that were found in these texts"
            )
        before = end


def _pieces(text: str, starts: list[int], ends: list[int]) -> tuple[list[str], list[str]]:
    """What stays, none of it blank, and the white space between, of which none may be found."""
    kept: list[str] = []
    spaces: list[str] = []
    space = ""
    for start, end in zip([0, *ends], [*starts, len(text)], strict=True):
        piece = text[start:end]
        body = piece.lstrip() if start else piece
        if body and start and extends(body[0]):
            body = piece[max(len(piece) - len(body) - 1, 0) :]
        lead = piece[: len(piece) - len(body)]
        body = body.rstrip() if end < len(text) else body
        space = max(space, lead, key=_weight)
        if body.strip():
            spaces.append(space)
            kept.append(body)
            space = piece[len(lead) + len(body) :]
    return kept, spaces[1:]


def _weight(space: str) -> tuple[int, int]:
    return space.count("\n"), len(space)


def _mended(seams: list[tuple[str, str, str]]) -> list[str]:
    """For what stands left, between and right of each seam: the white space that keeps words and characters apart."""
    left = pl.Series([seam[0][-_CONTEXT:] for seam in seams], dtype=pl.String)
    right = pl.Series([seam[2][:_CONTEXT] for seam in seams], dtype=pl.String)
    apart = _num_tokens(left) + _num_tokens(right)
    begin = left.str.len_chars().to_numpy().astype(np.int64)
    glue = [seam[1] for seam in seams]
    for _ in range(2):
        middle = pl.Series(glue, dtype=pl.String)
        joined = left + middle + right
        breaks = mark_breaks(utf8(joined))
        at = breaks.offsets[:-1] + begin
        sound = breaks.values[at] & breaks.values[at + middle.str.len_chars().to_numpy()] & GRAPHEME
        for seam in np.flatnonzero((sound == 0) | (_num_tokens(joined) != apart)).tolist():
            glue[seam] = "\n" if glue[seam] else " "
    return glue


def _num_tokens(texts: pl.Series) -> np.ndarray:
    return np.diff(place_tokens(utf8(texts)).offsets)
