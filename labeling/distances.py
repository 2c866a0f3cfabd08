"""Euclidean distances by blocks: never a matrix of the pool by the pool."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

BLOCK_CELLS = 8_000_000
"""Cells of a block of distances: 32 MB in float32."""
ROUNDING = 1e-6
"""Squared distances below this share of the squared lengths are rounding of float32, and taken as 0."""


def squared_lengths(points: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(n,) float32, the squared length of every row."""
    return np.asarray(np.einsum("ij,ij->i", points, points), dtype=np.float32)


def squared_distances(
    points: npt.NDArray[np.float32],
    others: npt.NDArray[np.float32],
    lengths: npt.NDArray[np.float32] | None = None,
) -> npt.NDArray[np.float32]:
    """(n, m) float32, never negative. For callers who know that n times m is small.

    Parameters
    ----------
    lengths : ``squared_lengths(points)``, where they are known.
    """
    known = squared_lengths(points) if lengths is None else lengths
    both = known[:, None] + squared_lengths(others)[None, :]
    squared = both - 2 * (points @ others.T)
    squared[squared < ROUNDING * both] = 0
    return np.asarray(squared, dtype=np.float32)


def nearest(
    points: npt.NDArray[np.float32], others: npt.NDArray[np.float32], num_neighbours: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """The nearest few of ``others`` to every point, nearest first.

    Parameters
    ----------
    points : (n, dim) float32.
    others : (m, dim) float32, m at least ``num_neighbours``.

    Returns
    -------
    (n, num_neighbours) int64 rows of ``others`` and (n, num_neighbours) float32 squared distances.
    """
    if num_neighbours == 1:
        row, least = _nearest_one(points, others)
        return row[:, None], least[:, None]
    rows = np.empty((len(points), num_neighbours), dtype=np.int64)
    squared = np.empty((len(points), num_neighbours), dtype=np.float32)
    step = max(1, BLOCK_CELLS // max(1, len(others)))
    for start in range(0, len(points), step):
        block = squared_distances(points[start : start + step], others)
        if num_neighbours < len(others):
            found = np.argpartition(block, num_neighbours - 1, axis=1)[:, :num_neighbours]
        else:
            found = np.broadcast_to(np.arange(len(others)), block.shape)
        values = np.take_along_axis(block, found, axis=1)
        order = np.argsort(values, axis=1, kind="stable")
        rows[start : start + step] = np.take_along_axis(found, order, axis=1)
        squared[start : start + step] = np.take_along_axis(values, order, axis=1)
    return rows, squared


def _nearest_one(
    points: npt.NDArray[np.float32], others: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Two passes over the distances where ``squared_distances`` makes five: a point's own length moves no minimum."""
    rows, least = np.empty(len(points), dtype=np.int64), np.empty(len(points), dtype=np.float32)
    lengths, twice = squared_lengths(others), others.T * np.float32(-2)
    step = max(1, BLOCK_CELLS // max(1, len(others)))
    for start in range(0, len(points), step):
        block = points[start : start + step] @ twice
        block += lengths
        found = block.argmin(axis=1)
        rows[start : start + step] = found
        least[start : start + step] = block[np.arange(len(found)), found]
    own = squared_lengths(points)
    both = own + lengths[rows]
    least += own
    least[least < ROUNDING * both] = 0
    return rows, least


def mean_over(
    measure: Callable[[npt.NDArray[np.float32]], npt.NDArray[Any]],
    points: npt.NDArray[np.float32],
    others: npt.NDArray[np.float32],
) -> npt.NDArray[np.float64]:
    """Mean over ``others`` of a measure of the distance.

    Parameters
    ----------
    measure : distances, (k, m) float32, to as many values.

    Returns
    -------
    (n,) float64.
    """
    means = np.empty(len(points))
    step = max(1, BLOCK_CELLS // max(1, len(others)))
    for start in range(0, len(points), step):
        distance = np.sqrt(squared_distances(points[start : start + step], others))
        means[start : start + step] = measure(distance).mean(axis=1, dtype=np.float64)
    return means
