"""Directions on a grid of whole numbers, so that a cosine has one value whatever the hardware and the order of adding.

Every vector is scaled to a length of just under 4096 and rounded to whole numbers. Any partial sum of a dot product of
two such rows is a whole number of at most 4096**2 = 2**24 (Cauchy-Schwarz), and float32 holds all of those: nothing is
ever rounded, so blocks, threads, fused operations, processors and graphics cards give the same bits. Rounding moves a
cosine of 0.95 by 3e-5 (one standard deviation, in any number of dimensions), and one near 1 by less.
"""

from typing import Any

import numpy as np

from catalog.errors import ConfigError

LONGEST = 4096
_SNAP_ROWS = 1 << 14
_NEAREST_ROWS = 1 << 15
DIGITS = 6
"""Of a similarity; the grid resolves no more."""


def snap(vectors: np.ndarray) -> np.ndarray:
    """Put directions on the grid.

    A row without a direction becomes zero: a zero row, and the first axis itself, which encoders give a text that they
    know nothing of (``encoders/vectors.py``); two such texts have nothing in common.

    Parameters
    ----------
    vectors : (n, d) of any float type, finite.

    Returns
    -------
    (n, d) int16: half the bytes of float32, to be stored as it is.
    """
    grid = np.empty(vectors.shape, dtype=np.int16)
    for start in range(0, len(vectors), _SNAP_ROWS):
        rows = np.ascontiguousarray(vectors[start : start + _SNAP_ROWS], dtype=np.float64)
        unknown = (rows[:, :1] == 1).all(axis=1) & (rows[:, 1:] == 0).all(axis=1)
        grid[start : start + _SNAP_ROWS] = scaled(rows) * ~unknown[:, None]
    return grid


def scaled(rows: np.ndarray) -> np.ndarray:
    """(n, d) float64 whole numbers: rows at a length of at most 4096, zero rows as they are."""
    largest = np.abs(rows).max(axis=1, initial=0.0, keepdims=True)
    # By the largest first, so that no square is too large or too small for a float.
    units = rows / np.where(largest > 0, largest, 1.0)
    lengths = np.sqrt(np.square(units).sum(axis=1, keepdims=True))
    # Rounding moves the end by at most half of sqrt(d).
    length = LONGEST - np.sqrt(rows.shape[1]) / 2
    whole: np.ndarray = np.rint(units / np.where(lengths > 0, lengths, 1.0) * length)
    return whole


def has_direction(grid: np.ndarray) -> np.ndarray:
    """(n,) bool: rows that can be compared."""
    known: np.ndarray = np.any(grid, axis=1)
    return known


def norms(grid: np.ndarray) -> np.ndarray:
    """(n,) float64 lengths of rows of the grid."""
    lengths: np.ndarray = np.sqrt(np.einsum("ij,ij->i", grid, grid, dtype=np.int32))
    return lengths


def nearest(grid: np.ndarray, centroids: np.ndarray, count: int, device: str) -> np.ndarray:
    """(n, count) int32: the centroids with the largest dot products, largest first.

    Parameters
    ----------
    grid : (n, d) int16.
    centroids : (k, d) int16, k >= count.
    device : ``cpu`` (faiss), or what torch calls a device.
    """
    found = np.empty((len(grid), count), dtype=np.int32)
    for start in range(0, len(grid), _NEAREST_ROWS):
        rows = grid[start : start + _NEAREST_ROWS]
        found[start : start + _NEAREST_ROWS] = (
            _nearest_by_faiss(rows, centroids, count)
            if device == "cpu"
            else _nearest_by_torch(rows, centroids, count, device)
        )
    return found


def _nearest_by_faiss(grid: np.ndarray, centroids: np.ndarray, count: int) -> Any:
    import faiss

    rows, others = grid.astype(np.float32), centroids.astype(np.float32)
    return faiss.knn(rows, others, count, metric=faiss.METRIC_INNER_PRODUCT)[1]


def _nearest_by_torch(grid: np.ndarray, centroids: np.ndarray, count: int, device: str) -> Any:
    import torch

    others = on_device(centroids, device)
    number = len(centroids)
    parts = []
    for start in range(0, len(grid), 1 << 12):
        dots = on_device(grid[start : start + (1 << 12)], device) @ others.T
        # Of equally near ones the first, which topk alone does not promise.
        keys = dots.to(torch.int64) * number - torch.arange(number, device=device)
        parts.append(keys.topk(count, dim=1).indices.cpu().numpy())
    return np.concatenate(parts)


def products_above(
    rows: np.ndarray, columns: np.ndarray, floor: float, device: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, column and dot product wherever it is at least ``floor``, by row, then column.

    Parameters
    ----------
    rows, columns : (n, d) and (m, d) int16; n times m float32 must fit into memory.
    """
    if device == "cpu":
        dots = rows.astype(np.float32) @ columns.astype(np.float32).T
        row, column = np.nonzero(dots >= floor)
        return row, column, dots[row, column].astype(np.float64)
    dots = on_device(rows, device) @ on_device(columns, device).T
    places = (dots >= floor).nonzero()
    values = dots[places[:, 0], places[:, 1]]
    return places[:, 0].cpu().numpy(), places[:, 1].cpu().numpy(), values.cpu().numpy().astype(np.float64)


def on_device(grid: np.ndarray, device: str) -> Any:
    """float32 tensor of rows of the grid.

    Raises
    ------
    ConfigError : this process lets torch round float32 products.
    """
    import torch

    if torch.get_float32_matmul_precision() != "highest":
        raise ConfigError(
            f"device={device!r} multiplies with precision {torch.get_float32_matmul_precision()!r}, which rounds; "
            "call torch.set_float32_matmul_precision('highest') first"
        )
    return torch.from_numpy(np.ascontiguousarray(grid)).to(device).to(torch.float32)
