"""Exact duplicates: texts that are equal once normalized."""

import numpy as np
import polars as pl
import xxhash

from catalog.errors import DataError
from curation.dedup.characters import table
from curation.dedup.keeper import keeper_order
from curation.dedup.rows import STRICT, normalized, over_slices, utf8

METHOD = "xxh3-128/1"
"""Method and version stored beside every pair; raise the number when the same input gives other pairs."""


def exact_hash(texts: pl.Series, *, threads: int = 1) -> pl.Series:
    """32 hex digits of the xxh3-128 of each normalized text: equal for texts that are exact duplicates.

    Parameters
    ----------
    texts : n texts as they are.

    Raises
    ------
    DataError : a text is null.
    """
    from curation.dedup.kernels import fold_rows  # compiles: numba takes half a second

    entries = table()
    rows = utf8(texts)
    begin = int(rows.offsets[0])
    data, offsets = rows.data[begin:], rows.offsets - begin
    folded = np.empty(2 * (int(rows.offsets[-1]) - begin), dtype=np.uint8)
    lengths = np.zeros(len(rows), dtype=np.int64)
    hard = np.zeros(len(rows), dtype=np.bool_)

    def work(first: int, last: int) -> None:
        fold_rows(data, offsets, first, last, entries, STRICT, folded, lengths, hard)

    over_slices(rows, work, threads)
    view, digest = memoryview(folded.data), xxhash.xxh3_128_hexdigest
    starts = (2 * offsets[:-1]).tolist()
    hashes = [digest(view[start : start + size]) for start, size in zip(starts, lengths.tolist(), strict=True)]
    if hard.any():
        rest = normalized(texts.filter(pl.Series(hard))).to_list()
        for row, text in zip(np.flatnonzero(hard).tolist(), rest, strict=True):
            hashes[row] = digest(text.encode())
    return pl.Series("hash", hashes, dtype=pl.String)


def find_exact_duplicates(
    ids: pl.Series,
    hashes: pl.Series,
    *,
    length: pl.Series,
    quality: pl.Series | None = None,
    within: bool = True,
) -> pl.DataFrame:
    """Find the records whose hash another, better record has.

    Parameters
    ----------
    ids : n distinct record ids.
    hashes : n hashes of normalized texts, as ``exact_hash`` returns them.
    length : n text lengths, in characters.
    quality : n numbers, higher is better, or None. A record of infinite quality is a reference: it never leaves.
    within : whether records that are no references remove each other.

    Returns
    -------
    A row for each record that leaves, sorted by ``record_id``: ``record_id`` and ``keeper_id``. The keeper has the
    highest quality, then length, then the smallest id; the result does not depend on the order of the arguments' rows.

    Raises
    ------
    DataError : an id stands twice.
    """
    if ids.n_unique() != len(ids):
        raise DataError(f"record id {ids.filter(ids.is_duplicated())[0]!r} stands twice; give each record once")
    # Most hashes occur once: only the others are put in order.
    repeated = hashes.is_duplicated()
    ids, hashes, length = ids.filter(repeated), hashes.filter(repeated), length.filter(repeated)
    quality = None if quality is None else quality.filter(repeated)
    order = keeper_order(ids, length, quality)
    num_fixed = 0 if quality is None else int((quality == np.inf).sum())
    ranked = order.with_columns(hash=hashes.gather(order["row"])).drop("row").with_row_index("rank")
    keeper = ranked.with_columns(
        keeper=pl.col("rank").first().over("hash"), keeper_id=pl.col("id").first().over("hash")
    )
    return (
        keeper.filter(
            pl.col("rank") != pl.col("keeper"),
            pl.col("rank") >= num_fixed,
            pl.lit(within) | (pl.col("keeper") < num_fixed),
        )
        .select(record_id="id", keeper_id="keeper_id")
        .sort("record_id")
    )
