"""Exact Jaccard similarity of candidate pairs."""

import numpy as np

from curation.tokens import Ragged

CHUNK_PAIRS = 100_000
"""Pairs compared at a time: bounds the intermediate matrices."""


def jaccard(shingles: Ragged, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Jaccard similarity of pairs of sets: shared elements by all elements.

    Parameters
    ----------
    shingles : n sets, values sorted and unique within each, none empty.
    first, second : (num_pairs,) int64 row numbers.

    Returns
    -------
    (num_pairs,) float64 in [0, 1].
    """
    from scipy.sparse import csr_array

    _, columns = np.unique(shingles.values, return_inverse=True)
    width = int(columns.max()) + 1 if len(columns) else 1
    ones = np.ones(len(columns), dtype=np.int32)
    sets = csr_array((ones, columns.ravel(), shingles.offsets), shape=(len(shingles), width))
    lengths = shingles.lengths
    similarity = np.empty(len(first), dtype=np.float64)
    for start in range(0, len(first), CHUNK_PAIRS):
        one, other = first[start : start + CHUNK_PAIRS], second[start : start + CHUNK_PAIRS]
        shared = np.asarray((sets[one] * sets[other]).sum(axis=1)).ravel()
        similarity[start : start + CHUNK_PAIRS] = shared / (lengths[one] + lengths[other] - shared)
    return similarity
