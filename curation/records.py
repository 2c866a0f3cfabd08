"""Record identity: a hash of the content and a counter among identical contents."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import polars as pl
import xxhash


def content_hash(records: pl.DataFrame) -> pl.Series:
    """Hash the content of each record.

    Parameters
    ----------
    records : ``text`` str, ``label`` str or null, ``fields`` str (canonical JSON).

    Returns
    -------
    16 bytes each: xxh3-128 over the three values, each with its length before it, so that moving a character from one
    to the next, or a null to an empty label, gives another hash.
    """
    rows = records.select("text", "label", "fields").iter_rows()
    hashes = [xxhash.xxh3_128_digest(b"".join(_encoded(row))) for row in rows]
    return pl.Series("content", hashes, dtype=pl.Binary)


def _encoded(values: tuple[str | None, ...]) -> Iterator[bytes]:
    for value in values:
        data = None if value is None else value.encode()
        yield b"-" if data is None else b"%d:" % len(data)
        yield data or b""


def record_ids(content: pl.Series, counters: np.ndarray) -> pl.Series:
    """The ids of records, ``{32 hex digits}-{counter}``.

    Parameters
    ----------
    content : 16 bytes each, of ``content_hash``.
    counters : (n,) int64, how many records of equal content come before each.
    """
    frame = pl.DataFrame([content.alias("content"), pl.Series("counter", counters, dtype=pl.Int64)])
    return frame.select(id=pl.format("{}-{}", pl.col("content").bin.encode("hex"), "counter"))["id"]


def content_of(ids: pl.Series) -> pl.Series:
    """The 16 bytes of content hash in each id."""
    return ids.str.slice(0, 32).str.decode("hex").alias("content")


def hash_words(content: pl.Series) -> np.ndarray:
    """Hashes as (n, 2) uint64, the first half of each first."""
    return np.frombuffer(b"".join(content.to_list()), dtype=">u8").astype(np.uint64).reshape(-1, 2)


class Seen(NamedTuple):
    """Distinct contents and how often each was met: ``hashes`` (m, 2) uint64, ``counts`` (m,) int64."""

    hashes: np.ndarray
    counts: np.ndarray

    @classmethod
    def nothing(cls) -> "Seen":
        """Before anything was met."""
        return cls(np.empty((0, 2), np.uint64), np.empty(0, np.int64))


def count_before(hashes: np.ndarray, seen: Seen) -> tuple[np.ndarray, Seen]:
    """How many equal contents come before each record: in the block itself, and in those before it.

    Called block after block it numbers equal contents in the order of the rows; only distinct contents are held.

    Parameters
    ----------
    hashes : (n, 2) uint64, in the order in which equal contents are numbered.
    seen : what the blocks before held.

    Returns
    -------
    (n,) int64, and ``seen`` with this block added.
    """
    everything = np.concatenate([seen.hashes, hashes])
    weights = np.concatenate([seen.counts, np.ones(len(hashes), np.int64)])
    # A stable sort: among equals, what was seen comes first, then the rows in their order.
    order = np.lexsort((everything[:, 1], everything[:, 0]))
    everything, weights = everything[order], weights[order]
    begins = np.ones(len(order), bool)
    begins[1:] = (everything[1:] != everything[:-1]).any(axis=1)
    starts = np.flatnonzero(begins)
    before = np.cumsum(weights) - weights
    before -= np.repeat(before[starts], np.diff(starts, append=len(order)))
    counters = np.empty(len(order), np.int64)
    counters[order] = before
    counts = np.add.reduceat(weights, starts) if len(starts) else weights
    return counters[len(seen.counts) :], Seen(everything[starts], counts)
