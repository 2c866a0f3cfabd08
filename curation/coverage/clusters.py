"""Topics: spherical k-means over centred directions."""

import math

import numpy as np

from curation.coverage.config import MAX_CLUSTERS
from curation.dedup.cells import mean_directions
from curation.dedup.grid import has_direction, nearest, norms, snap

ITERATIONS = 25
RESTARTS = 4
RECORDS_A_CLUSTER = 8
DEFAULT_MOST = 16
"""Topics that a picture and a table can tell apart."""


def choose_num_clusters(number: int) -> int:
    """Topics for so many records, by the root of their number.

    >>> choose_num_clusters(20), choose_num_clusters(1_000), choose_num_clusters(16_384)
    (1, 11, 16)
    """
    return min(DEFAULT_MOST, max(1, math.isqrt(number // RECORDS_A_CLUSTER)))


def centre(grid: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Directions seen from the mean of all: without what every text shares, topics lie apart.

    Parameters
    ----------
    grid : (n, d) int16.
    mean : (d,) float64, of ``mean_of``.

    Returns
    -------
    (n, d) int16; zero where nothing is left, or nothing was.

    References
    ----------
    Mu and Viswanath (2018), All-but-the-Top: Simple and Effective Postprocessing for Word Representations, step 1.
    """
    rows = grid.astype(np.float64) - mean
    rows[~has_direction(grid)] = 0
    return snap(rows)


def mean_of(grid: np.ndarray) -> np.ndarray:
    """(d,) float64: mean of rows, from an exact sum."""
    total: np.ndarray = grid.sum(axis=0, dtype=np.int64) / max(len(grid), 1)
    return total


def fit_clusters(grid: np.ndarray, number: int, seed: int) -> np.ndarray:
    """Centroids, the best of a few starts by the sum of cosines.

    Parameters
    ----------
    grid : (n, d) int16, centred, in an order that does not depend on how the records came.
    number : clusters wanted, 1 to 64.

    Returns
    -------
    (k, d) int16; k is smaller where there are fewer directions, the biggest cluster first.

    References
    ----------
    Dhillon and Modha (2001), Concept Decompositions for Large Sparse Text Data Using Clustering, section 3; Arthur and
    Vassilvitskii (2007), k-means++: The Advantages of Careful Seeding, section 2.2.
    """
    assert number <= MAX_CLUSTERS
    sample: np.ndarray = grid[has_direction(grid)]
    if not len(sample):
        return sample
    rng = np.random.default_rng(seed)
    best, best_sum = sample[:0], -np.inf
    for _ in range(RESTARTS):
        centroids = _seeds(sample, number, rng)
        for _ in range(ITERATIONS):
            moved = mean_directions(sample, nearest(sample, centroids, 1, "cpu")[:, 0], len(centroids))
            if np.array_equal(moved, centroids):
                break
            centroids = moved
        home = nearest(sample, centroids, 1, "cpu")[:, 0]
        total = float(np.einsum("ij,ij->i", sample, centroids[home], dtype=np.float64).sum())
        if total > best_sum:
            sizes = np.bincount(home, minlength=len(centroids))
            best, best_sum = centroids[np.argsort(-sizes, kind="stable")], total
    return best


def _seeds(sample: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """Far from each other: each is drawn by its squared distance to the nearest seed so far."""
    lengths = norms(sample)
    rows = sample.astype(np.float32)
    chosen = [int(rng.integers(len(sample)))]
    closest = np.full(len(sample), -1.0)
    while len(chosen) < number:
        last = chosen[-1]
        closest = np.maximum(closest, (rows @ rows[last]) / (lengths * lengths[last]))
        weight = np.round(np.maximum(1 - closest, 0), 6)
        if not weight.any():
            break
        chosen.append(int(rng.choice(len(sample), p=weight / weight.sum())))
    seeds: np.ndarray = sample[chosen]
    return seeds
