"""A persistent index of everything that was deduplicated: new records are matched against it and pay for themselves.

A segment is written once: sorted band hashes and exact hashes with the rows they belong to, a sketch a row, and which
rows are connected. Rows are numbered through all segments. ``update.match`` says what is done with them.

Of records with one normalized text the first that came is the row that stands for all, whichever of them is kept: bands
depend on the text. Which of them is best is known without reading any (``Index.best``).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl

from curation.dedup.banding import allowed_differences
from curation.dedup.config import NearConfig

Sorted = tuple[np.ndarray, np.ndarray]
"""Sorted uint64 hashes, and the row (uint32) of each."""

MAX_ROWS = 2**32 - 1
REACH_LIMIT = 4096
"""Members of a hot bucket up to which those connected with new ones are looked for; of a larger one, all are taken."""


@dataclass(frozen=True, kw_only=True)
class Links:
    """Which rows are connected by pairs, as far as a segment knows.

    Parameters
    ----------
    roots, members : (l,) uint32, sorted by root, then member; a root is a member of itself.
    by_member : (l,) uint32, the places of ``members`` in their order.
    """

    roots: np.ndarray
    members: np.ndarray
    by_member: np.ndarray

    @classmethod
    def between(cls, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> "Links":
        """From pairs of rows."""
        none = np.empty(0, dtype=np.int64)
        first, second = (np.concatenate([none, *(np.asarray(pair[side]) for pair in pairs)]) for side in (0, 1))
        rows, places = np.unique(np.concatenate([first, second]), return_inverse=True)
        return cls.of(rows, places[: len(first)], places[len(first) :])

    @classmethod
    def of(cls, rows: np.ndarray, first: np.ndarray, second: np.ndarray) -> "Links":
        """From pairs of places in ``rows``, of which those in no pair are left out."""
        from curation.dedup.kernels import settle_roots, unite  # compiles: numba takes half a second

        parents = np.arange(len(rows), dtype=np.int64)
        unite(parents, first, second)
        settle_roots(parents)
        several = np.flatnonzero(np.bincount(parents, minlength=len(rows))[parents] > 1)
        several = several[np.argsort(rows[several])]
        return cls.labelled(rows[several], rows[parents[several]])

    @classmethod
    def labelled(cls, rows: np.ndarray, roots: np.ndarray) -> "Links":
        """From rows that are connected with others, rising, and the root of each."""
        order = np.argsort(roots, kind="stable")
        by_member = np.empty(len(rows), dtype=np.uint32)
        by_member[order] = np.arange(len(rows), dtype=np.uint32)
        return cls(roots=roots[order].astype(np.uint32), members=rows[order].astype(np.uint32), by_member=by_member)

    def connected(self, rows: np.ndarray) -> np.ndarray:
        """All members that have a root in common with one of ``rows`` (sorted); ``rows`` among them if they are any."""
        places = np.searchsorted(self.members, rows, sorter=self.by_member)
        places = self.by_member[np.minimum(places, len(self.members) - 1)] if len(self.members) else places[:0]
        known = places[self.members[places] == rows[: len(places)]]
        roots = np.unique(self.roots[known])
        places, _ = _expanded(np.searchsorted(self.roots, roots), np.searchsorted(self.roots, roots, side="right"))
        return self.members[places]


@dataclass(frozen=True, kw_only=True)
class Segment:
    """What was added at one time, or several such merged.

    Parameters
    ----------
    first_row, num_rows : which rows.
    bands : band hashes of rows that stand for their text; one part after the other holds higher hashes.
    exact : first 64 bits of the exact hash of every row, likewise; of equal ones the best row first, as the first
        segment that has them knows it.
    better : likewise, rows that are better than all with an equal text in earlier segments; one a text.
    sketches : (number of the first row, (n, 2) uint64) of each part; all rows in their order.
    measured : rows connected by pairs that were measured, in parts; an update's name older rows too.
    similar : rows connected by pairs at or above the threshold, of those.
    hot : sorted hashes of buckets that had become larger than ``max_bucket`` when this was written.
    """

    first_row: int
    num_rows: int
    bands: Sequence[Sorted]
    exact: Sequence[Sorted]
    better: Sorted
    sketches: Sequence[tuple[int, np.ndarray]]
    measured: Sequence[Links]
    similar: Sequence[Links]
    hot: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Touched:
    """What new texts meet in an index.

    Parameters
    ----------
    rows : sorted uint32, old rows with which a new one makes a pair.
    unsettled : sorted uint32, old rows of buckets larger than ``max_bucket`` whose pairs with each other can change.
    hot : sorted uint64, hashes of buckets that the new texts have made larger than ``max_bucket``.
    """

    rows: np.ndarray
    unsettled: np.ndarray
    hot: np.ndarray


class Index:
    """All segments together."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.segments = segments

    @property
    def num_rows(self) -> int:
        """Rows in all segments."""
        return sum(one.num_rows for one in self.segments)

    @property
    def hot(self) -> np.ndarray:
        """Sorted hashes of all buckets larger than ``max_bucket``."""
        return np.unique(np.concatenate([np.empty(0, np.uint64), *(one.hot for one in self.segments)]))

    def known(self, exact: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows whose exact hash begins as one of those asked for.

        Parameters
        ----------
        exact : (n,) uint64, sorted.

        Returns
        -------
        places in ``exact`` (int64, sorted) and rows (uint32), one for each match; of each place first the row that
        stands for all.
        """
        return _gathered(_lookup(one.exact, exact) for one in self.segments)

    def best(self, exact: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The best row of each text.

        Parameters
        ----------
        exact : (n,) uint64, sorted, distinct. rows : (n,) uint32, which stand for all.
        """
        found = rows.copy()
        for one in self.segments:
            places, better = _lookup([one.better], exact)
            found[places] = better
        return found

    def in_hot(self) -> np.ndarray:
        """Rows in buckets larger than ``max_bucket``; uint32, distinct."""
        _, rows = _gathered(_lookup(one.bands, self.hot) for one in self.segments)
        return np.unique(rows)

    def touched(self, hashes: np.ndarray, sketches: np.ndarray, config: NearConfig) -> Touched:
        """Old rows whose pairs the new texts can change.

        In a bucket of at most ``max_bucket`` texts, those that look like a new one. In a larger one, where rows gather
        behind leaders, also those that look like these, and so on: who leads whom can change. In one that becomes
        larger, all.

        Parameters
        ----------
        hashes : (n, bands) uint64 of texts that the index does not have, each once.
        sketches : (n, 2) uint64.
        """
        from curation.dedup.kernels import near_any, reach  # compiles: numba takes half a second

        flat = hashes.ravel()
        order = np.argsort(flat, kind="stable")
        flat, owners = flat[order], order // max(1, hashes.shape[1])
        starts = np.flatnonzero(np.r_[True, flat[1:] != flat[:-1]]) if len(flat) else np.empty(0, np.int64)
        buckets, counts = flat[starts], np.diff(np.append(starts, len(flat)))
        places, rows = _gathered(_lookup(one.bands, buckets) for one in self.segments)
        sizes = np.bincount(places, minlength=len(buckets))
        old_sketches = self._sketches(rows)
        taken = np.zeros(len(rows), dtype=np.bool_)
        allowed = allowed_differences(config.threshold, config.num_perm)
        is_hot, was_hot = sizes + counts > config.max_bucket, sizes > config.max_bucket

        old_starts = np.append(0, np.cumsum(sizes))
        cool_starts = np.append(starts, len(flat))
        # An empty range of new members for buckets that are treated below.
        cool = np.where(is_hot, 0, counts)
        new_places, new_starts = _expanded(cool_starts[:-1], cool_starts[:-1] + cool)
        near_any(old_starts, old_sketches, new_starts, sketches[owners[new_places]], allowed, taken)
        for bucket in np.flatnonzero(is_hot & (sizes > 0)).tolist():
            old = slice(old_starts[bucket], old_starts[bucket + 1])
            new = sketches[owners[starts[bucket] : starts[bucket] + counts[bucket]]]
            if not was_hot[bucket] or sizes[bucket] > REACH_LIMIT:
                taken[old] = True
                continue
            reached = np.zeros(sizes[bucket] + len(new), dtype=np.bool_)
            reached[sizes[bucket] :] = True
            reach(np.concatenate([old_sketches[old], new]), reached, allowed)
            taken[old] = reached[: sizes[bucket]]
        of_hot = is_hot[places]
        return Touched(
            rows=np.unique(rows[taken & ~of_hot]), unsettled=np.unique(rows[taken & of_hot]), hot=buckets[is_hot]
        )

    def _sketches(self, rows: np.ndarray) -> np.ndarray:
        parts = [part for one in self.segments for part in one.sketches]
        found = np.empty((len(rows), 2), dtype=np.uint64)
        part = np.searchsorted([first for first, _ in parts], rows, side="right") - 1
        for number, (first, sketches) in enumerate(parts):
            mine = np.flatnonzero(part == number)
            found[mine] = sketches[rows[mine].astype(np.int64) - first]
        return found

    def connected(self, rows: np.ndarray, *, similar: bool = False) -> np.ndarray:
        """These rows and all that pairs (only ``similar`` ones) connect with them, step by step; sorted uint32."""
        known = frontier = np.unique(rows).astype(np.uint32)
        links = [part for one in self.segments for part in (one.similar if similar else one.measured)]
        while len(frontier):
            found = np.unique(np.concatenate([one.connected(frontier) for one in links]))
            frontier = np.setdiff1d(found, known, assume_unique=True)
            known = np.union1d(known, frontier)
        return known


def _gathered(found: Iterator[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Matches of all segments, by what was asked for."""
    places, rows = (np.concatenate(part) for part in zip(_nothing(), *found, strict=True))
    order = np.argsort(places, kind="stable")
    return places[order], rows[order]


def _nothing() -> tuple[np.ndarray, np.ndarray]:
    return np.empty(0, np.int64), np.empty(0, np.uint32)


def _lookup(parts: Sequence[Sorted], wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places in ``wanted`` (sorted) and rows, one for each match."""
    found = [_nothing()]
    for hashes, rows in parts:
        if not len(hashes):
            continue
        begin, end = np.searchsorted(wanted, hashes[0]), np.searchsorted(wanted, hashes[-1], side="right")
        asked = wanted[begin:end]
        first = np.searchsorted(hashes, asked)
        # Most are not there: only the others are looked at further.
        hit = np.flatnonzero(hashes[np.minimum(first, len(hashes) - 1)] == asked)
        first = first[hit]
        last = np.searchsorted(hashes, asked[hit], side="right")
        places, _ = _expanded(first, last)
        found.append((np.repeat(hit + begin, last - first), rows[places]))
    return tuple(np.concatenate(part) for part in zip(*found, strict=True))  # type: ignore[return-value]


def _expanded(first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All places of the ranges one after another, and where each range starts among them."""
    sizes = last - first
    starts = np.append(0, np.cumsum(sizes))
    return np.arange(starts[-1]) + np.repeat(first - starts[:-1], sizes), starts


def sorted_entries(hashes: np.ndarray, rows: np.ndarray) -> Sorted:
    """Hashes in order with the rows they belong to; rows of one hash stay as they are ordered."""
    order = np.argsort(hashes, kind="stable")
    return hashes[order], rows[order].astype(np.uint32)


def exact_prefix(hashes: pl.Series) -> np.ndarray:
    """First 64 bits of hexadecimal hashes; (n,) uint64."""
    return hashes.str.slice(0, 16).str.decode("hex").bin.reinterpret(dtype=pl.UInt64, endianness="big").to_numpy()


def bounds_of_parts(num_parts: int) -> np.ndarray:
    """(num_parts + 1,) uint64: the lowest hash of each part of ``stages.hash_part``, and the highest hash of all."""
    lowest = [-(-(part << 32) // num_parts) << 32 for part in range(num_parts)]
    return np.array([*lowest, 2**64 - 1], dtype=np.uint64)


def merged_parts(segments: Sequence[Sequence[Sorted]], num_parts: int) -> Iterator[Sorted]:
    """The entries of several segments in order, a part at a time: only one is held."""
    bounds = bounds_of_parts(num_parts)
    for number, (low, high) in enumerate(pairwise(bounds)):
        pieces = [(np.empty(0, np.uint64), np.empty(0, np.uint32))]
        for hashes, rows in (part for parts in segments for part in parts):
            begin = np.searchsorted(hashes, low)
            end = len(hashes) if number == num_parts - 1 else np.searchsorted(hashes, high)
            pieces.append((hashes[begin:end], rows[begin:end]))
        yield sorted_entries(*(np.concatenate(part) for part in zip(*pieces, strict=True)))


def merged_better(segments: Sequence[Sorted]) -> Sorted:
    """The newest of each text; the segments oldest first."""
    hashes, rows = (np.concatenate(part) for part in zip(*segments, strict=True))
    hashes, newest = np.unique(hashes[::-1], return_index=True)
    return hashes, rows[::-1][newest]


def to_merge(num_rows: Sequence[int]) -> int:
    """How many of the last segments to merge: those that are not yet half as large as what follows them; 0 for none.

    So every row is copied about as often as the number of rows can be doubled, and there are as many segments.

    Parameters
    ----------
    num_rows : of each segment, the oldest first.
    """
    first, behind = len(num_rows) - 1, num_rows[-1] if num_rows else 0
    while first > 0 and num_rows[first - 1] < 2 * behind:
        first -= 1
        behind += num_rows[first]
    return len(num_rows) - first if first < len(num_rows) - 1 else 0


def pack(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays of one dimension as an Arrow file that can be read where it lies in memory."""
    import pyarrow as pa

    columns = {
        name: pa.LargeListArray.from_arrays(pa.array([0, len(values)], pa.int64()), pa.array(values))
        for name, values in arrays.items()
    }
    batch = pa.record_batch(list(columns.values()), names=list(columns))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def unpack(raw: object) -> dict[str, np.ndarray]:
    """The arrays of ``pack``, without a copy."""
    import pyarrow as pa

    batch = pa.ipc.open_file(pa.BufferReader(raw)).get_batch(0)
    return {name: batch.column(name).values.to_numpy(zero_copy_only=True) for name in batch.schema.names}
