"""k-means cells over directions: only records of one cell are compared."""

import math
from itertools import cycle

import numpy as np
import polars as pl
import xxhash

from curation.dedup.grid import has_direction, nearest, scaled

ONE_CELL_UP_TO = 10_000
"""Records up to which all pairs are measured: that takes a second, and misses nothing."""
SAMPLE_PER_CELL = 32
ITERATIONS = 10


def choose_num_cells(number: int) -> int:
    """One cell for few records, otherwise the square root: finding cells then costs about what measuring in them does.

    >>> choose_num_cells(10_000), choose_num_cells(1_000_000)
    (1, 1000)
    """
    return 1 if number <= ONE_CELL_UP_TO else math.ceil(math.sqrt(number))


def sample_rows(ids: pl.Series, size: int, seed: int) -> np.ndarray:
    """Rows of a random sample that depends on ids and seed alone, in random order.

    They are the rows with the smallest hashes. So the sample of several shards is the sample of their samples.

    Parameters
    ----------
    ids : n distinct record ids.
    size : rows at most.

    Returns
    -------
    (min(n, size),) int64.
    """
    digest = xxhash.xxh3_64_intdigest
    hashes = pl.Series("hash", [digest(one.encode(), seed) for one in ids.to_list()], dtype=pl.UInt64)
    frame = pl.DataFrame({"id": ids, "hash": hashes}).with_row_index("row")
    return frame.sort("hash", "id").head(size)["row"].to_numpy().astype(np.int64)


def fit_cells(ids: pl.Series, grid: np.ndarray, num_cells: int, seed: int, *, device: str = "cpu") -> np.ndarray:
    """Centroids by spherical k-means on a sample of ``SAMPLE_PER_CELL`` records a cell.

    They depend on ids, directions and seed: not on the order of rows, nor on threads or blocks, as all products and
    sums are of whole numbers. Only a mean's length is rounded, where kinds of processors could differ by a last bit.

    Parameters
    ----------
    ids : n distinct record ids; of many shards, those of ``sample_rows`` are enough.
    grid : (n, d) int16 as ``snap`` makes them.
    num_cells : cells wanted.

    Returns
    -------
    (k, d) int16, distinct; k is smaller than ``num_cells`` where there are fewer directions. With none, k is 0.

    References
    ----------
    Dhillon and Modha (2001), Concept Decompositions for Large Sparse Text Data Using Clustering, section 3; a cell that
    loses all its members is given one of a largest cell, as faiss does.
    """
    known = np.flatnonzero(has_direction(grid))
    rows = sample_rows(ids.gather(known), SAMPLE_PER_CELL * num_cells, seed)
    sample = grid[known[rows]]
    centroids = _distinct(sample)[:num_cells]
    if not len(centroids):
        return centroids
    for _ in range(ITERATIONS):
        centroids = mean_directions(sample, nearest(sample, centroids, 1, device)[:, 0], len(centroids))
    return _distinct(centroids)


def _distinct(rows: np.ndarray) -> np.ndarray:
    """Each row once, in the order in which they come."""
    if not len(rows):
        return rows
    return rows[np.sort(np.unique(rows, axis=0, return_index=True)[1])]


def mean_directions(sample: np.ndarray, home: np.ndarray, number: int) -> np.ndarray:
    """Centroids of cells: the directions of the sums of their members.

    A cell without members is given the first of the largest cell, the next such cell that of the next largest. Where
    opposite members leave no direction, the first stands for them.

    Parameters
    ----------
    sample : (n, d) int16.
    home : (n,) each row's cell, below ``number``.

    Returns
    -------
    (number, d) int16.
    """
    order = np.argsort(home, kind="stable")
    counts = np.bincount(home, minlength=number)
    starts = np.cumsum(counts) - counts
    largest = cycle(np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)].tolist())
    sums = np.empty((number, sample.shape[1]), dtype=np.int64)
    for cell in range(number):
        if counts[cell]:
            sums[cell] = sample[order[starts[cell] : starts[cell] + counts[cell]]].sum(axis=0, dtype=np.int64)
        else:
            sums[cell] = sample[order[starts[next(largest)]]]
        if not sums[cell].any():
            sums[cell] = sample[order[starts[cell]]]
    return scaled(sums.astype(np.float64)).astype(np.int16)


def assign_cells(grid: np.ndarray, centroids: np.ndarray, probes: int, *, device: str = "cpu") -> np.ndarray:
    """The cells in which each record is compared, the nearest (its home) first.

    Parameters
    ----------
    grid : (n, d) int16.
    centroids : (k, d) int16.
    probes : cells a record.

    Returns
    -------
    (n, min(probes, k)) int32; -1 for rows without a direction.
    """
    count = min(probes, len(centroids))
    cells = np.full((len(grid), count), -1, dtype=np.int32)
    if count:
        known = np.flatnonzero(has_direction(grid))
        cells[known] = nearest(grid[known], centroids, count, device)
    return cells
