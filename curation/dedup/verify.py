"""Exact Jaccard similarity of candidate pairs."""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import polars as pl

from curation.dedup.shingles import ShingleConfig, shingle
from curation.tokens import Ragged


def jaccard(shingles: Ragged, first: np.ndarray, second: np.ndarray, *, threads: int = 1) -> np.ndarray:
    """Jaccard similarity of pairs of sets: shared elements by all elements.

    Parameters
    ----------
    shingles : n sets, values sorted and unique within each, none empty.
    first, second : (num_pairs,) int64 row numbers.

    Returns
    -------
    (num_pairs,) float64 in [0, 1].
    """
    from curation.dedup.kernels import shared_counts  # compiles: numba takes half a second

    shared = np.empty(len(first), dtype=np.int64)
    edges = np.linspace(0, len(first), threads + 1).astype(np.int64).tolist()

    def count(bounds: tuple[int, int]) -> None:
        shared_counts(shingles.values, shingles.offsets, first, second, *bounds, shared)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(count, pairwise(edges)))
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
    return jaccard(sets, places[first], places[second], threads=threads)
