"""Locality-sensitive hashing: which signatures are alike enough to be worth measuring."""

import numpy as np

from curation.tokens import mix

_MULTIPLIER = np.uint64(0x9FB21C651E98DF25)


def band_hashes(signatures: np.ndarray, *, bands: int, rows: int) -> np.ndarray:
    """One 64-bit hash a band: equal for signatures that agree on all rows of the band.

    Parameters
    ----------
    signatures : (n, bands * rows) uint32.

    Returns
    -------
    (n, bands) uint64.
    """
    hashes = np.zeros((len(signatures), bands), dtype=np.uint64)
    cells = signatures.reshape(len(signatures), bands, rows)
    for row in range(rows):
        hashes = mix(hashes * _MULTIPLIER + cells[:, :, row].astype(np.uint64))
    return hashes


def candidate_pairs(hashes: np.ndarray, *, max_bucket: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of rows that share at least one band hash.

    In a bucket of more than ``max_bucket`` rows, every row is paired with the first one only: all pairs of a hot bucket
    would be quadratic. Rows come in keeper order, so the first is the one that would be kept.

    Parameters
    ----------
    hashes : (n, bands) uint64, rows in keeper order.
    max_bucket : rows of a bucket up to which all pairs are taken.

    Returns
    -------
    first, second : (num_pairs,) int64 with first < second, sorted, distinct.
    bands_shared : (num_pairs,) int64, number of bands in which the pair was formed.

    References
    ----------
    Leskovec, Rajaraman and Ullman (2020), Mining of Massive Datasets, section 3.4.
    """
    number = len(hashes)
    found = [np.empty(0, dtype=np.int64)]
    for band in range(hashes.shape[1]):
        order = np.argsort(hashes[:, band], kind="stable")
        column = hashes[order, band]
        starts = np.flatnonzero(np.r_[True, column[1:] != column[:-1]]) if number else np.empty(0, np.int64)
        sizes = np.diff(np.append(starts, number))
        for size in np.unique(sizes[sizes > 1]):
            # Buckets of one size at a time: (num_buckets, size) rows, ascending because the sort is stable.
            members = order[starts[sizes == size][:, None] + np.arange(size)]
            hot = size > max_bucket
            left, right = (np.zeros(size - 1, int), np.arange(1, size)) if hot else np.triu_indices(size, 1)
            found.append((members[:, left] * number + members[:, right]).ravel())
    pairs, bands_shared = np.unique(np.concatenate(found), return_counts=True)
    return pairs // max(number, 1), pairs % max(number, 1), bands_shared
