"""The curriculum stream: which records make up the global batch of a step.

The order is a pure function of (manifest, pacing, seed, global step). Nothing is carried from step to step, so the
state of a stream is one integer, and a kill, a resume, another worker count or another world size cannot change it.

How: position p of the run gets the point u_p = (permutation_e(p mod N) + 1/2) / N, where e = p div N counts passes and
the permutation is a keyed bijection evaluated at single points (nothing of size N is shuffled). The point picks the
record whose share of the pool's cumulated weight covers it, the pool being the first records of the ranking. So with
the whole manifest available and equal weights a pass visits every record exactly once; with a smaller pool or unequal
weights every record comes up in proportion to its weight, as evenly spread as whole numbers allow.
"""

import hashlib
import json
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from catalog.errors import ConfigError, DataError
from training.pacing import PACING

Rows: TypeAlias = npt.NDArray[np.int64]

COLUMNS = {"id": pl.String, "hash": pl.String, "difficulty": pl.Float64, "weight": pl.Float64}
_ROUNDS = 6
_SHUFFLE_SALT = 2**32
"""Keeps the ranking of ``first="any"`` apart from the permutations of the passes, which are numbered from 0."""


@dataclass(frozen=True)
class StreamManifest:
    """The records of one training, sorted by id; ``build`` is the way to make one.

    Parameters
    ----------
    frame : id (str, unique), hash (str, of the content), difficulty (float64 in [0, 1]), weight (float64, 0 or more).
    """

    frame: pl.DataFrame

    @classmethod
    def build(cls, frame: pl.DataFrame) -> Self:
        """Check and sort a frame; other columns are ignored.

        Raises
        ------
        DataError : a column is missing, null or out of range, an id is repeated, or no record is left to draw.
        """
        missing = [name for name in COLUMNS if name not in frame.columns]
        if missing:
            raise DataError(f"manifest has columns {frame.columns}; it needs {', '.join(missing)} as well")
        if frame.is_empty():
            raise DataError("manifest has 0 records and needs at least 1; loosen the recipe's rules or ingest more")
        frame = frame.select(pl.col(name).cast(kind) for name, kind in COLUMNS.items()).sort("id")
        for name, legal in (
            ("id", pl.col("id").is_not_null() & pl.col("id").is_unique()),
            ("hash", pl.col("hash").is_not_null()),
            ("difficulty", pl.col("difficulty").is_between(0, 1)),
            ("weight", pl.col("weight").is_finite() & (pl.col("weight") >= 0)),
        ):
            bad = frame.filter(~legal.fill_null(value=False))
            if not bad.is_empty():
                limits = {"id": "be unique", "hash": "be given", "difficulty": "lie in [0, 1]"}
                raise DataError(
                    f"{name}={bad[name][0]!r} of record {bad['id'][0]!r} (and {bad.height - 1} more) must "
                    f"{limits.get(name, 'be a finite number, 0 or more')}; score the version again or drop the records"
                )
        if not frame["weight"].sum() > 0:
            raise DataError("every weight is 0: no record can be drawn; give at least one record a weight above 0")
        return cls(frame)

    def __len__(self) -> int:
        return self.frame.height

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical bytes (hex): the same records give the same digest in whatever order they came."""
        content = hashlib.sha256()
        content.update(json.dumps([self.frame["id"].to_list(), self.frame["hash"].to_list()]).encode())
        for name in ("difficulty", "weight"):
            # Adding 0 turns -0.0, which compares equal but has other bytes, into 0.0.
            content.update((self.frame[name].to_numpy() + 0.0).astype("<f8").tobytes())
        return content.hexdigest()

    @cached_property
    def eligible(self) -> Rows:
        """Rows with a weight above 0, in id order."""
        return np.flatnonzero(self.frame["weight"].to_numpy() > 0).astype(np.int64)

    @cached_property
    def easiest_first(self) -> Rows:
        """Eligible rows by rising difficulty; equal ones by id."""
        return self.eligible[np.argsort(self.frame["difficulty"].to_numpy()[self.eligible], kind="stable")]


@dataclass(frozen=True, kw_only=True)
class Stream:
    """The batches of one training run.

    Parameters
    ----------
    manifest : the records.
    pacing : name of a pacing.
    options : the pacing's options.
    seed : picks another order; any integer.
    total_steps : length of the run, in global batches.
    global_batch_size : records of a step over all ranks.

    Raises
    ------
    DataError : the manifest has fewer records to draw than a batch.
    ConfigError : the pacing's options are refused, or a count is below 1.
    """

    manifest: StreamManifest
    pacing: str
    options: dict[str, Any]
    seed: int
    total_steps: int
    global_batch_size: int

    def __post_init__(self) -> None:
        for name in ("total_steps", "global_batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1")
        available = len(self.manifest.eligible)
        if available < self.global_batch_size:
            raise DataError(
                f"manifest has {available} records with weight above 0, fewer than one batch of "
                f"{self.global_batch_size}; lower the batch size or keep more records"
            )
        PACING[self.pacing].configured(self.options)

    @cached_property
    def _key(self) -> int:
        return int.from_bytes(hashlib.sha256(f"{self.manifest.digest}/{self.seed}".encode()).digest()[:8], "little")

    @cached_property
    def _rankings(self) -> dict[str, tuple[Rows, npt.NDArray[np.float64]]]:
        eligible, easiest = self.manifest.eligible, self.manifest.easiest_first
        places = permuted(np.arange(len(eligible)), len(eligible), self._key, _SHUFFLE_SALT)
        orders = {"easiest": easiest, "hardest": easiest[::-1], "any": eligible[places]}
        weight = self.manifest.frame["weight"].to_numpy()
        return {name: (rows, np.cumsum(weight[rows])) for name, rows in orders.items()}

    def pool_size(self, step: int) -> int:
        """Records that ``step`` draws from: the pacing's fraction, and at least one batch."""
        pacing = PACING[self.pacing]
        pool = pacing.member(step / self.total_steps, pacing.configured(self.options))
        available = len(self.manifest.eligible)
        return min(available, max(self.global_batch_size, math.ceil(pool.fraction * available)))

    def batch(self, step: int) -> Rows:
        """Row numbers of the manifest that make up the global batch of ``step``, (global_batch_size,) int64.

        Raises
        ------
        ConfigError : the step is outside the run.
        """
        if not 0 <= step < self.total_steps:
            raise ConfigError(f"step={step} must lie in [0, {self.total_steps - 1}]; raise the run's steps")
        pacing = PACING[self.pacing]
        first = pacing.member(step / self.total_steps, pacing.configured(self.options)).first
        rows, cumulated = self._rankings[first]
        size, available = self.pool_size(step), len(rows)
        position = step * self.global_batch_size + np.arange(self.global_batch_size, dtype=np.int64)
        drawn = np.empty_like(position)
        for epoch in np.unique(position // available):
            inside = position // available == epoch
            drawn[inside] = permuted(position[inside] % available, available, self._key, int(epoch))
        point = (drawn + 0.5) / available * cumulated[size - 1]
        batch: Rows = rows[np.minimum(np.searchsorted(cumulated[:size], point, side="right"), size - 1)]
        return batch


def order(
    manifest: StreamManifest,
    *,
    pacing: str,
    options: dict[str, Any],
    seed: int,
    step: int,
    total_steps: int,
    global_batch_size: int,
) -> Rows:
    """The global batch of one step, as row numbers of the manifest: ``Stream.batch`` for a single question."""
    stream = Stream(
        manifest=manifest,
        pacing=pacing,
        options=options,
        seed=seed,
        total_steps=total_steps,
        global_batch_size=global_batch_size,
    )
    return stream.batch(step)


def rank_share(batch: Rows, rank: int, world_size: int) -> Rows:
    """The rows of a global batch that one of ``world_size`` equal ranks works on.

    Raises
    ------
    ConfigError : the rank does not exist, or the batch does not divide evenly (some ranks would weigh more).
    """
    if not 0 <= rank < world_size:
        raise ConfigError(f"rank={rank} must lie in [0, {world_size - 1}]")
    if len(batch) % world_size:
        raise ConfigError(f"a global batch of {len(batch)} does not divide by world_size={world_size}; change either")
    return batch[rank::world_size]


def permuted(index: Rows, size: int, key: int, number: int) -> Rows:
    """Where permutation ``number`` of ``range(size)`` under ``key`` sends each index, without building it.

    A Feistel network over the next even power of two, walked until the image falls inside (Black and Rogaway 2002,
    section 4): a bijection for every key. Its arithmetic is fixed here, so that no library can change a stored order.

    Parameters
    ----------
    index : int64, each in [0, size).
    size : length of the permuted range, at least 1.
    key, number : together they pick the permutation.

    Returns
    -------
    int64, same shape, in [0, size).
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = np.uint64((1 << half) - 1)
    keys = [_mixed(np.array([key & _WORD], dtype=np.uint64), (number << 8) + turn)[0] for turn in range(_ROUNDS)]

    def once(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        left, right = value >> np.uint64(half), value & mask
        for turn, round_key in enumerate(keys):
            left, right = right, left ^ (_mixed(right ^ round_key, turn) & mask)
        return (left << np.uint64(half)) | right

    image = once(index.astype(np.uint64))
    while (outside := image >= size).any():
        image[outside] = once(image[outside])
    return image.astype(np.int64)


_WORD = 2**64 - 1


def _mixed(value: npt.NDArray[np.uint64], salt: int) -> npt.NDArray[np.uint64]:
    """The finalizer of SplitMix64 (Steele et al. 2014, section 5), which spreads every input bit over the word."""
    value = value + np.uint64((salt + 1) * 0x9E3779B97F4A7C15 & _WORD)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
