"""Texts as the kernels take them: one buffer of UTF-8 and offsets, worked on in slices by several threads."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl

from catalog.errors import DataError
from curation.dedup.normalize import normalize

SLICES_PER_THREAD = 4
"""More slices than threads, so that one with long texts does not keep the others waiting."""
MIN_SLICE_BYTES = 1 << 16
PORTION_BYTES = 1 << 24
"""Text that is normalized and hashed at a time; meanwhile that takes about ten times as much memory."""
STRICT = True
"""Kernels stop at a text with a hard character, to be given it again once it is normalized."""


@dataclass(frozen=True)
class Utf8:
    """Row ``i`` is ``data[offsets[i]:offsets[i + 1]]``.

    Parameters
    ----------
    data : (total,) uint8, valid UTF-8.
    offsets : (n + 1,) int64.
    """

    data: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1


def utf8(texts: pl.Series) -> Utf8:
    """The Arrow buffers of a string column, without a copy of any text by Python.

    Raises
    ------
    DataError : a text is null.
    """
    _refuse_nulls(texts)
    array = texts.rechunk().to_arrow()
    _, offsets, data = array.buffers()
    bounds = np.frombuffer(offsets, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    if not len(array):
        bounds = np.zeros(1, dtype=np.int64)
    return Utf8(np.frombuffer(data, dtype=np.uint8) if data is not None else np.empty(0, np.uint8), bounds)


def _refuse_nulls(texts: pl.Series) -> None:
    if texts.null_count():
        raise DataError(f"{texts.null_count()} of {len(texts)} texts are null; drop or fill them first")


def portions(texts: pl.Series) -> list[tuple[int, int]]:
    """First and last row of slices of about ``PORTION_BYTES`` each that together are all rows, at least one.

    Raises
    ------
    DataError : a text is null.
    """
    _refuse_nulls(texts)
    ends = np.cumsum(texts.str.len_bytes().to_numpy().astype(np.int64))
    total = int(ends[-1]) if len(texts) else 0
    edges = np.unique(np.searchsorted(ends, np.arange(PORTION_BYTES, total, PORTION_BYTES)) + 1)
    return list(pairwise([0, *edges[edges < len(texts)].tolist(), len(texts)]))


def over_slices(rows: Utf8, work: Callable[[int, int], None], threads: int) -> None:
    """Call ``work(first, last)`` for slices of about equally many bytes that together are all rows."""
    total = int(rows.offsets[-1] - rows.offsets[0]) + len(rows)
    pieces = max(1, min(threads * SLICES_PER_THREAD, total // MIN_SLICE_BYTES))
    weights = rows.offsets - rows.offsets[0] + np.arange(len(rows) + 1)
    edges = np.searchsorted(weights, np.linspace(0, total, pieces + 1))
    edges[0], edges[-1] = 0, len(rows)
    slices = [(first, last) for first, last in pairwise(edges.tolist()) if first < last]
    if threads == 1 or len(slices) == 1:
        for first, last in slices:
            work(first, last)
        return
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, first, last) for first, last in slices]:
            done.result()


def normalized(texts: pl.Series) -> pl.Series:
    """The texts as ``normalize`` makes them: for the few that a kernel could not fold by itself."""
    return texts.alias("text").to_frame().select(normalize(pl.col("text"))).to_series()
