"""Locality-sensitive hashing: which records share a band, look alike, and so are worth measuring."""

import math

import numpy as np

SKETCH_BITS = 128
CELL_BITS = 3
"""So many more bits than it takes to count the hashes: one in sixteen then meets another by chance."""
SIGMAS = 4.0
"""A pair at the threshold fails the check by bad luck once in 30,000."""


def allowed_differences(threshold: float, num_perm: int) -> int:
    """In how many bits two sketches may differ for their sets to be worth measuring.

    A bit agrees with probability (1 + J) / 2; the bound lies ``SIGMAS`` standard deviations below what a pair at the
    threshold shows.

    References
    ----------
    Li and König (2010), b-Bit Minwise Hashing, with b = 1.
    """
    places = min(num_perm, SKETCH_BITS)
    agree = (1 + threshold) / 2
    return math.ceil(places * (1 - agree) + SIGMAS * math.sqrt(places * agree * (1 - agree)))


def candidate_pairs(
    hashes: np.ndarray, sketches: np.ndarray, *, max_bucket: int, allowed: int, hot: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of rows that share at least one band hash and whose sketches are alike.

    All such pairs of a bucket of at most ``max_bucket`` rows are taken. In a larger one that would be quadratic: there
    rows gather behind leaders by their sketches, and each is paired with the best row behind its leader.

    Which pairs come out depends on the set of records alone, and never crosses the parts that pairs connect: any union
    of connected parts gives the same pairs by itself, if it is told which buckets were ``hot`` in the whole.

    Parameters
    ----------
    hashes : (n, bands) uint64, rows in keeper order.
    sketches : (n, 2) uint64.
    max_bucket : rows of a bucket up to which all pairs are taken.
    allowed : bits in which sketches may differ.
    hot : (m,) uint64, sorted: band hashes whose buckets are larger in the whole of which these rows are a part.

    Returns
    -------
    first, second : (num_pairs,) int64 with first < second, sorted, distinct.
    bands_shared : (num_pairs,) int64, number of bands in which the pair was formed.

    References
    ----------
    Leskovec, Rajaraman and Ullman (2020), Mining of Massive Datasets, section 3.4.
    """
    number = len(hashes)
    ranks = np.arange(number, dtype=np.int64)
    found = [np.empty(0, dtype=np.int64)]
    for band in range(hashes.shape[1]):
        buckets = Buckets.of(hashes[:, band], ranks, sketches)
        left, right = buckets.pairs(buckets.hot(max_bucket, hot), allowed)
        found.append(left * number + right)
    pairs, bands_shared = np.unique(np.concatenate(found), return_counts=True)
    return pairs // max(number, 1), pairs % max(number, 1), bands_shared


class Buckets:
    """Groups of two or more members with one hash.

    Parameters
    ----------
    starts : (num_buckets + 1,) int64.
    hashes : (num_buckets,) uint64.
    members : (total,) int64, by bucket, then sketch, then member.
    sketches : (total, 2) uint64.
    """

    def __init__(self, starts: np.ndarray, hashes: np.ndarray, members: np.ndarray, sketches: np.ndarray) -> None:
        self.starts, self.hashes, self.members, self.sketches = starts, hashes, members, sketches

    @classmethod
    def of(cls, hashes: np.ndarray, members: np.ndarray, sketches: np.ndarray) -> "Buckets":
        """Group entries by hash. Most hashes occur once: only the others are looked at further, and put in order."""
        from curation.dedup.kernels import perhaps_repeated  # compiles: numba takes half a second

        bits = max(3, len(hashes).bit_length() + CELL_BITS)
        order = np.empty(len(hashes), dtype=np.int64)
        seen = np.zeros(1 << bits, dtype=np.uint8)
        order = order[: perhaps_repeated(np.ascontiguousarray(hashes), np.uint64(64 - bits), seen, order)]
        order = order[np.argsort(hashes[order])]
        column = hashes[order]
        twice = column[1:] == column[:-1]
        repeated = np.zeros(len(column), dtype=bool)
        repeated[1:] |= twice
        repeated[:-1] |= twice
        order, column = order[repeated], column[repeated]
        inner = np.lexsort((members[order], sketches[order, 1], sketches[order, 0], column))
        order, column = order[inner], column[inner]
        starts = np.flatnonzero(np.r_[True, column[1:] != column[:-1]]) if len(column) else np.empty(0, np.int64)
        return cls(np.append(starts, len(column)), column[starts], members[order], sketches[order])

    def hot(self, max_bucket: int, known: np.ndarray | None = None) -> np.ndarray:
        """(num_buckets,) bool: buckets too large for all pairs, here or by what is ``known`` of the whole."""
        large: np.ndarray = np.diff(self.starts) > max_bucket
        if known is not None and len(known):
            large = large | np.isin(self.hashes, known)
        return large

    def pairs(self, hot: np.ndarray, allowed: int) -> tuple[np.ndarray, np.ndarray]:
        """The pairs of members that are worth measuring; a pair comes once a bucket."""
        from curation.dedup.kernels import bucket_pairs  # compiles: numba takes half a second

        none = np.empty(0, dtype=np.int64)
        count = bucket_pairs(self.starts, hot, self.members, self.sketches, allowed, none, none)
        first, second = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
        if count:
            bucket_pairs(self.starts, hot, self.members, self.sketches, allowed, first, second)
        return first, second
