"""Exact Jaccard similarity of candidate pairs."""

import numpy as np
import polars as pl

from curation.dedup.kernels import shared_counts
from curation.dedup.shingles import ShingleConfig, shingle
from curation.tokens import Ragged


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
    shared = np.empty(len(first), dtype=np.int64)
    shared_counts(shingles.values, shingles.offsets, first, second, 0, len(first), shared)
    lengths = shingles.lengths
    similarity: np.ndarray = shared / (lengths[first] + lengths[second] - shared)
    return similarity


def verified(
    texts: pl.Series, first: np.ndarray, second: np.ndarray, shape: ShingleConfig, *, threads: int = 1
) -> np.ndarray:
    """Exact Jaccard similarity of pairs of texts. Only texts that are in a pair are shingled.

    Parameters
    ----------
    texts : n texts as they are.
    first, second : (num_pairs,) int64 row numbers.

    Returns
    -------
    (num_pairs,) float64 in [0, 1].
    """
    involved = np.unique(np.concatenate([first, second]))
    places = np.zeros(len(texts), dtype=np.int64)
    places[involved] = np.arange(len(involved))
    sets = shingle(texts.gather(pl.Series(involved)), shape, threads=threads)
    return jaccard(sets, places[first], places[second])
