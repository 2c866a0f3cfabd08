"""Semantic duplicates: texts that say the same in other words, found by the cosine of their vectors.

By stages, for data that no machine holds at once:

    snap, sample_rows (a shard) → fit_cells (all samples) → assign_cells (a shard) → cell_pairs (a cell) → settle_pairs

``find_semantic_duplicates`` is all of them in memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl
from threadpoolctl import threadpool_limits

from catalog.errors import ConfigError, DataError
from curation.dedup.cells import assign_cells, choose_num_cells, fit_cells, sample_rows
from curation.dedup.grid import DIGITS, has_direction, norms, products_above, snap
from curation.dedup.keeper import keeper_order
from curation.dedup.sweep import MEASURED_SCHEMA, accept_pairs, sweep_pairs, threshold

METHOD = "cosine/1"
"""Method and version stored beside every pair; raise the number when the same input gives other pairs."""

BLOCK_ROWS, BLOCK_COLUMNS = 256, 4096
"""Records that are multiplied at once: 4 MB of products."""
BACKGROUND_RECORDS = 1000

BACKGROUND_SCHEMA = {"epsilon": pl.Float64, "random_ratio": pl.Float64}
CELL_SCHEMA = {"cell": pl.Int64, "num_records": pl.Int64, "num_compared": pl.Int64}


@dataclass(frozen=True, kw_only=True)
class SemanticConfig:
    """How semantic duplicates are found.

    Parameters
    ----------
    epsilon : a record leaves when its cosine to a better one is at least ``1 - epsilon``, in [0, 1).
    num_cells : k-means cells; None: one up to 10,000 records, then the square root of their number.
    probes : each record is compared in so many of its nearest cells. With 1 (SemDeDup as published) pairs on two sides
        of a border are missed; time grows with the square.
    seed : of the sample from which cells are fitted.
    sweep : further values of epsilon for which the records that would leave are counted; pairs are measured and kept
        up to the largest of all.
    max_better : of the better records near one, at most so many in a cell are kept for each step of the sweep, the best
        ones. It bounds memory where thousands say the same; a record then stays wrongly only if all of those leave.
    """

    epsilon: float = 0.05
    num_cells: int | None = None
    probes: int = 2
    seed: int = 1
    sweep: tuple[float, ...] = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15)
    max_better: int = 64

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        if not isinstance(self.sweep, tuple):
            raise ConfigError(f"sweep={self.sweep!r} must be a tuple of values of epsilon, such as (0.01, 0.05, 0.1)")
        for name, value in [("epsilon", self.epsilon), *(("sweep", one) for one in self.sweep)]:
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
                raise ConfigError(f"{name}={value!r} must lie in [0, 1); 0.05 is usual, 0 takes equal directions only")
        limits = {"num_cells": 2**20, "probes": 64, "max_better": 10**6}
        for name, highest in limits.items():
            value = getattr(self, name)
            if value is None and name == "num_cells":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= highest:
                free = ", or None to choose by the number of records" if name == "num_cells" else ""
                raise ConfigError(f"{name}={value!r} must be a whole number from 1 to {highest}{free}")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed={self.seed!r} must be a whole number from 0 to {2**32 - 1}")

    @property
    def epsilons(self) -> tuple[float, ...]:
        """Every epsilon that is counted, rising."""
        return tuple(sorted({self.epsilon, *self.sweep}))

    def cells_for(self, number: int) -> int:
        """Cells wanted for so many records."""
        return choose_num_cells(number) if self.num_cells is None else self.num_cells


@dataclass(frozen=True)
class SemanticDuplicates:
    """What was measured.

    Parameters
    ----------
    pairs : every measured pair with ``similarity >= 1 - max(epsilons)``, sorted by (record_id, keeper_id):
        ``record_id`` str, ``keeper_id`` str (the better of the two), ``similarity`` f64, ``accepted`` bool. Accepted
        means that the record leaves because of this keeper, which stays: at most one row a record.
    sweep : for each epsilon ``num_pairs``, ``num_leaving`` (what this stage would remove) and ``num_with_better`` (what
        SemDeDup as published would: every record near a better one, even one that leaves itself). The first and last
        never fall as epsilon rises; ``num_leaving`` can, by a few: where a better record comes to leave, those that
        only it was near enough to stay.
    background : for each epsilon ``random_ratio``, see ``measure_background``.
    cells : ``cell``, ``num_records`` (whose nearest it is), ``num_compared`` (with those that probe it).
    num_measured : pairs of records whose cosine was computed, those in several cells counted in each.
    num_unknown : records without a direction (``grid.snap``): they stay, compared with nothing.
    epsilons : as of the config.
    """

    pairs: pl.DataFrame
    sweep: pl.DataFrame
    background: pl.DataFrame
    cells: pl.DataFrame
    num_measured: int
    num_unknown: int
    epsilons: tuple[float, ...]

    def pairs_at(self, epsilon: float) -> pl.DataFrame:
        """The pairs as they would be accepted with another epsilon; nothing is measured again.

        Raises
        ------
        ConfigError : pairs were not kept that far.
        """
        if not 0 <= epsilon <= self.epsilons[-1]:
            raise ConfigError(
                f"epsilon={epsilon!r} must lie in [0, {self.epsilons[-1]}], up to which pairs are kept; "
                "for more, run again with it in sweep"
            )
        return accept_pairs(self.pairs, epsilon)


def find_semantic_duplicates(
    ids: pl.Series,
    vectors: np.ndarray,
    quality: pl.Series | None,
    length: pl.Series,
    config: SemanticConfig,
    *,
    threads: int = 1,
    device: str = "cpu",
) -> SemanticDuplicates:
    """Find records that leave because a better record says the same, up to epsilon.

    Of given vectors the result depends on neither the order of rows nor the number of threads nor blocks, bit for bit
    (``curation.dedup.grid``). Vectors themselves do: an encoder rounds differently in other batches, by about 1e-5.
    Within one cell, deduplicating what remains finds nothing more.

    Parameters
    ----------
    ids : n distinct record ids.
    vectors : (n, d) of any float type and any length, as an encoder gives them.
    quality : n numbers, higher is kept first, or None; ties go to the greater length, then the smaller id.
    length : n text lengths, in characters.
    config : epsilon, cells, sweep.
    threads : at most so many cores are used.
    device : ``cpu`` (faiss and numpy), or what torch calls a device: ``cuda``, ``cuda:1``.

    Raises
    ------
    DataError : an id stands twice, the arguments have different lengths, or a vector holds NaN or infinity.

    References
    ----------
    Abbas et al. (2023), SemDeDup, section 3. Unlike there, each record is compared in several cells, and leaves only by
    a record that stays; of duplicates the best is kept, not the one farthest from the centroid.
    """
    grid = snap(_checked(ids, vectors))
    order = keeper_order(ids, length, quality)
    with threadpool_limits(threads):
        background = measure_background(ids, grid, config)
        centroids = fit_cells(ids, grid, config.cells_for(len(ids)), config.seed, device=device)
        grid = grid[order["row"].to_numpy()]
        cells = assign_cells(grid, centroids, config.probes, device=device)
        found = list(_pairs_of_cells(grid, cells, len(centroids), config, device))
    worse, better, similarity = (np.concatenate(column) for column in zip(*found, strict=True))
    places = np.unique(worse * len(ids) + better, return_index=True)[1]
    ranked = order["id"]
    measured = pl.DataFrame(
        {
            "record_id": ranked.gather(worse[places]),
            "keeper_id": ranked.gather(better[places]),
            "similarity": similarity[places],
        },
        schema=MEASURED_SCHEMA,
    )
    pairs, sweep = settle_pairs(measured, config)
    records, compared = (
        np.bincount(column[column >= 0], minlength=len(centroids)).astype(np.int64)
        for column in (cells[:, :1].ravel(), cells.ravel())
    )
    sizes = {"cell": np.arange(len(centroids)), "num_records": records, "num_compared": compared}
    return SemanticDuplicates(
        pairs,
        sweep,
        background,
        pl.DataFrame(sizes, schema=CELL_SCHEMA),
        int((compared * (compared - 1) // 2).sum()),
        int((~has_direction(grid)).sum()),
        config.epsilons,
    )


def _checked(ids: pl.Series, vectors: np.ndarray) -> np.ndarray:
    if vectors.ndim != 2 or len(vectors) != len(ids) or not np.issubdtype(vectors.dtype, np.floating):
        raise DataError(
            f"{len(ids)} ids need as many rows of vectors, of a float type, not {vectors.dtype}{list(vectors.shape)}"
        )
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise DataError(
            f"{(~finite).sum()} of {len(ids)} vectors hold NaN or infinity, the first that of record "
            f"{ids[int(np.argmin(finite))]!r}; encode those again, or leave them out"
        )
    return vectors


def measure_background(ids: pl.Series, grid: np.ndarray, config: SemanticConfig) -> pl.DataFrame:
    """Share of pairs of random records that are as near as duplicates: what an encoder cannot tell apart.

    Below 1e-4 at 0.05 where an encoder knows the language. Static vectors of English give 60 % of Korean pairs a cosine
    of 0.95: deduplicating by them would remove nearly all. Look at this number before removing anything.

    Parameters
    ----------
    ids : n distinct record ids; of many shards, those of ``sample_rows`` are enough.
    grid : (n, d) int16 as ``snap`` makes them.

    Returns
    -------
    ``epsilon, random_ratio``, from at most 1000 records; the ratio is null where there are no two.
    """
    known = np.flatnonzero(has_direction(grid))
    sample = grid[known[sample_rows(ids.gather(known), BACKGROUND_RECORDS, config.seed)]]
    row, column = np.triu_indices(len(sample), 1)
    lengths = norms(sample)
    rows = sample.astype(np.float32)
    similarity = np.round((rows @ rows.T)[row, column] / (lengths[row] * lengths[column]), DIGITS)
    ratios = [float((similarity >= threshold(one)).mean()) if len(row) else None for one in config.epsilons]
    return pl.DataFrame({"epsilon": config.epsilons, "random_ratio": ratios}, schema=BACKGROUND_SCHEMA)


Found = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Worse row, better row (int64), similarity (float64)."""


def _pairs_of_cells(
    grid: np.ndarray, cells: np.ndarray, number: int, config: SemanticConfig, device: str
) -> Iterator[Found]:
    """Near pairs of every cell, as rows of ``grid``, which is in keeper order."""
    probed = cells.ravel()
    arranged = np.argsort(probed, kind="stable")
    edges = np.searchsorted(probed[arranged], np.arange(number + 1))
    yield from _near_pairs(grid[:0], config, device)
    for start, end in pairwise(edges.tolist()):
        members = arranged[start:end] // max(cells.shape[1], 1)
        for worse, better, similarity in _near_pairs(grid[members], config, device):
            yield members[worse], members[better], similarity


def _near_pairs(grid: np.ndarray, config: SemanticConfig, device: str) -> Iterator[Found]:
    """All pairs of rows that are near enough, but for those beyond ``max_better``.

    Parameters
    ----------
    grid : (n, d) int16 in keeper order, none zero.
    """
    yield np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    lengths = norms(grid)
    steps = np.array([threshold(epsilon) for epsilon in reversed(config.epsilons)])
    for start in range(0, len(grid), BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, len(grid))
        taken = np.zeros((stop - start) * len(steps), dtype=np.int64)
        for left in range(0, stop, BLOCK_COLUMNS):
            right = min(left + BLOCK_COLUMNS, stop)
            # The rounding of a similarity may lift it by half of its last digit.
            floor = (steps[0] - 10.0**-DIGITS) * lengths[start:stop].min() * lengths[left:right].min()
            row, column, dots = products_above(grid[start:stop], grid[left:right], floor, device)
            similarity = np.round(dots / (lengths[start + row] * lengths[left + column]), DIGITS)
            near = (similarity >= steps[0]) & (left + column < start + row)
            row, column, similarity = row[near], column[near], similarity[near]
            step = np.searchsorted(steps, similarity, side="right") - 1
            first = _first_of_each(row * len(steps) + step, taken, config.max_better)
            yield start + row[first], left + column[first], similarity[first]


def _first_of_each(keys: np.ndarray, taken: np.ndarray, most: int) -> np.ndarray:
    """Places of the first of each key, as many as are left of ``most``; ``taken`` is brought up to date."""
    order = np.argsort(keys, kind="stable")
    counts = np.bincount(keys, minlength=len(taken))
    place = np.arange(len(keys)) - np.repeat(np.cumsum(counts) - counts, counts)
    first = order[place < (most - taken)[keys[order]]]
    taken += np.minimum(counts, most - taken)
    return np.sort(first)


def cell_pairs(
    ids: pl.Series,
    grid: np.ndarray,
    quality: pl.Series | None,
    length: pl.Series,
    config: SemanticConfig,
    *,
    threads: int = 1,
    device: str = "cpu",
) -> pl.DataFrame:
    """Near pairs of one cell: all records, of whatever shard, to which ``assign_cells`` gave it.

    Parameters
    ----------
    ids, quality, length : n ids, numbers or None, text lengths.
    grid : (n, d) int16 as ``snap`` makes them, none zero.

    Returns
    -------
    ``record_id, keeper_id, similarity`` from the lowest threshold on.
    """
    order = keeper_order(ids, length, quality)
    with threadpool_limits(threads):
        found = list(_near_pairs(grid[order["row"].to_numpy()], config, device))
    worse, better, similarity = (np.concatenate(column) for column in zip(*found, strict=True))
    ranked = order["id"]
    columns = {"record_id": ranked.gather(worse), "keeper_id": ranked.gather(better), "similarity": similarity}
    return pl.DataFrame(columns, schema=MEASURED_SCHEMA)


def settle_pairs(measured: pl.DataFrame, config: SemanticConfig) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Pairs of all cells, accepted or not, and the sweep.

    A pair of records decides only about what it is connected with: of parts of the pairs that no pair connects each may
    be settled by itself, and the sweeps added.

    Parameters
    ----------
    measured : ``record_id, keeper_id, similarity``, once for each cell in which a pair was measured.

    Returns
    -------
    ``pairs`` and ``sweep`` as in ``SemanticDuplicates``.
    """
    pairs = measured.unique(["record_id", "keeper_id"]).sort("record_id", "keeper_id")
    return accept_pairs(pairs, config.epsilon), sweep_pairs(pairs, config.epsilons)
