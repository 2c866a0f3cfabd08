"""Records far from all others: mean distance to the k nearest of a net, in which copies do not count.

The net is a random sample of which near copies are left out, so that twenty copies of one odd text have no company in
each other. Directions are on a grid of whole numbers (``curation.dedup.grid``): distances have one value whatever the
blocks, the threads and the order of the records.
"""

import numpy as np

from curation.coverage.config import MapConfig
from curation.dedup.grid import norms

_BLOCK = 1_024
_SPARE = 8
"""Copies that a record may have in the net, beside the neighbours asked for."""
DIGITS = 4
"""Of a distance."""
_NORMAL = 1.4826
"""Median absolute deviation to standard deviation, of a normal distribution."""


def cosines(rows: np.ndarray, others: np.ndarray, count: int) -> np.ndarray:
    """The largest cosines of each row with other rows, largest first.

    Parameters
    ----------
    rows, others : (n, d) and (m, d) int16 of the grid, none zero.

    Returns
    -------
    (n, min(count, m)) float64.
    """
    import faiss

    count = min(count, len(others))
    if not count or not len(rows):
        return np.empty((len(rows), count))
    dots, found = faiss.knn(
        rows.astype(np.float32), others.astype(np.float32), count, metric=faiss.METRIC_INNER_PRODUCT
    )
    similarity = dots.astype(np.float64) / (norms(rows)[:, None] * norms(others)[found])
    return -np.sort(-similarity, axis=1)


def net_rows(grid: np.ndarray, same: float) -> np.ndarray:
    """Rows of which none is a copy of an earlier one.

    Parameters
    ----------
    grid : (n, d) int16, none zero, in random order.
    same : cosine distance below which two are copies.

    Returns
    -------
    (m,) int64, rising.
    """
    kept: list[int] = []
    lengths = norms(grid)
    rows = grid.astype(np.float32)
    for start in range(0, len(grid), _BLOCK):
        block = rows[start : start + _BLOCK]
        chosen = np.asarray(kept, dtype=np.int64)
        alone = np.ones(len(block), dtype=bool)
        for left in range(0, len(chosen), 8 * _BLOCK):
            part = chosen[left : left + 8 * _BLOCK]
            cosine = block @ rows[part].T / (lengths[start : start + _BLOCK, None] * lengths[part])
            alone &= (cosine <= 1 - same).all(axis=1)
        own = block @ block.T / (lengths[start : start + _BLOCK, None] * lengths[start : start + _BLOCK])
        for row in range(len(block)):
            # Those that left for an earlier one do not push others out.
            if alone[row]:
                kept.append(start + row)
                alone[row + 1 :] &= own[row, row + 1 :] <= 1 - same
    return np.asarray(kept, dtype=np.int64)


def neighbour_distances(grid: np.ndarray, net: np.ndarray, config: MapConfig) -> np.ndarray:
    """Mean cosine distance of each row to its k nearest in the net that are no copies of it.

    Parameters
    ----------
    grid, net : (n, d) and (m, d) int16, none zero.

    Returns
    -------
    (n,) float64 in [0, 2]; ``same`` for a row whose only company is copies.

    References
    ----------
    Angiulli and Pizzuti (2002), Fast Outlier Detection in High Dimensional Spaces (the sum of the k distances);
    Sugiyama and Borgwardt (2013), Rapid Distance-Based Outlier Detection via Sampling, for the sample.
    """
    out = np.empty(len(grid))
    for start in range(0, len(grid), 16 * _BLOCK):
        near = cosines(grid[start : start + 16 * _BLOCK], net, config.neighbours + _SPARE)
        other = near <= 1 - config.same
        place = np.cumsum(other, axis=1)
        counted = other & (place <= config.neighbours)
        number = counted.sum(axis=1)
        sums = np.where(counted, 1 - near, 0.0).sum(axis=1)
        out[start : start + len(near)] = np.where(number > 0, sums / np.maximum(number, 1), config.same)
    return np.round(out, DIGITS)


def outlier_limit(distances: np.ndarray, deviations: float) -> float:
    """The distance above which a record is an outlier: median and deviations of it, both robust against outliers.

    >>> outlier_limit(np.array([0.2, 0.3, 0.4, 9.0]), 3.5)
    0.8689

    Parameters
    ----------
    distances : (n,) float64; infinite for none.
    """
    if not len(distances):
        return float("inf")
    middle = np.median(distances)
    return round(float(middle + deviations * _NORMAL * np.median(np.abs(distances - middle))), DIGITS)
