"""The curriculum stream: which records make up the global batch of a step.

The order is a pure function of (manifest, pacing, seed, global step). Nothing is carried from step to step, so the
state of a stream is one integer, and a kill, a resume, another worker count or another world size cannot change it.
A manifest may be revised during a run: from a recorded step on another one is in force, and the list of (start step,
manifest hash) is all that has to be known besides.

How: position p of the run gets the point u_p = (permutation_e(p mod N) + s_e) / N, where e = p div N counts passes and
the permutation is a keyed bijection evaluated at single points (nothing of size N is shuffled). The point picks the
record whose share of the pool's cumulated weight covers it, the pool being the first records of the ranking. So with
the whole manifest available and equal weights a pass visits every record exactly once; with a smaller pool or unequal
weights every record comes up in proportion to its weight, as evenly spread as whole numbers allow. The shift s_e is 1/2
where all weights are equal, else the fractional part of 1/2 + e times the golden ratio: without it a record whose share
is narrower than 1/N could lie between the points of every pass alike. Where a pacing sets shares of sources, the line
from 0 to 1 is cut into them first, and each part is spread over its source alike.

By length: the draws of ``length_window`` steps are sorted by length and cut into as many batches, which come in a
seeded order. So a window draws the same records as without, some of them a few steps earlier or later.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from catalog.errors import ConfigError, DataError, nearest
from training.pacing import PACING, Online, Pool

Rows: TypeAlias = npt.NDArray[np.int64]

COLUMNS = {"id": pl.String, "hash": pl.String, "difficulty": pl.Float64, "weight": pl.Float64}
TAGS = {"source": pl.String, "slices": pl.List(pl.String), "label_version": pl.String}
"""Columns that a manifest may have besides: a record's origin, the slices that it counts in, its label's version."""
_ROUNDS = 6
_GOLDEN_RATIO = (math.sqrt(5.0) - 1.0) / 2.0
_SHUFFLE_SALT, _WINDOW_SALT = 2**32, 2**33
"""Keep the ranking of ``first="any"`` and the order in a window apart from the permutations of the passes, which are
numbered from 0."""


@dataclass(frozen=True)
class StreamManifest:
    """The records of one training, sorted by id; ``build`` is the way to make one.

    Parameters
    ----------
    frame : id (str, unique), hash (str, of the content), difficulty (float64 in [0, 1]), weight (float64, 0 or more);
        any of ``TAGS``.
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
        columns: dict[str, Any] = COLUMNS | {name: kind for name, kind in TAGS.items() if name in frame.columns}
        frame = frame.select(pl.col(name).cast(kind) for name, kind in columns.items()).sort("id")
        for name, legal in (
            ("id", pl.col("id").is_not_null() & pl.col("id").is_unique()),
            ("hash", pl.col("hash").is_not_null()),
            ("difficulty", pl.col("difficulty").is_between(0, 1)),
            ("weight", pl.col("weight").is_finite() & (pl.col("weight") >= 0)),
            *((name, pl.col(name).is_not_null()) for name in columns if name in TAGS),
        ):
            bad = frame.filter(~legal.fill_null(value=False))
            if not bad.is_empty():
                limits = {"id": "be unique", "difficulty": "lie in [0, 1]", "weight": "be a finite number, 0 or more"}
                raise DataError(
                    f"{name}={bad[name][0]!r} of record {bad['id'][0]!r} (and {bad.height - 1} more) must "
                    f"{limits.get(name, 'be given')}; score the version again or drop the records"
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
        for name in TAGS:
            # Without tags a manifest has the digest that it had before there were any.
            if name in self.frame.columns:
                content.update(json.dumps([name, self.frame[name].to_list()]).encode())
        return content.hexdigest()

    def reweighted(self, weight: npt.NDArray[np.float64]) -> Self:
        """The same records with other weights, (n,) float64 in row order.

        Raises
        ------
        DataError : a weight is negative or not finite, or all are 0.
        """
        return self.build(self.frame.with_columns(pl.Series("weight", weight, dtype=pl.Float64)))

    @cached_property
    def eligible(self) -> Rows:
        """Rows with a weight above 0, in id order."""
        return np.flatnonzero(self.frame["weight"].to_numpy() > 0).astype(np.int64)

    @cached_property
    def easiest_first(self) -> Rows:
        """Eligible rows by rising difficulty; equal ones by id."""
        return self.eligible[np.argsort(self.frame["difficulty"].to_numpy()[self.eligible], kind="stable")]


class Revision(NamedTuple):
    """A manifest that is in force from a step on."""

    start_step: int
    manifest: StreamManifest


@dataclass(frozen=True, kw_only=True)
class Stream:
    """The batches of one training run.

    Parameters
    ----------
    manifest : the records, as of the first step.
    pacing : name of a pacing.
    options : the pacing's options.
    seed : picks another order; any integer.
    total_steps : length of the run, in global batches.
    global_batch_size : records of a step over all ranks.
    revisions : manifests of the same records that are in force from later steps on, by rising step.
    lengths : (n,) int64 of the manifest's rows, in tokens or what else a batch is padded by; needed by a window.
    length_window : steps whose records are sorted by length and cut into batches of alike ones; 1 sorts nothing.

    Raises
    ------
    DataError : a manifest has fewer records to draw than a batch, or not the pacing's sources.
    ConfigError : the pacing's options are refused, a count is below 1, or a revision is not of the same records.
    """

    manifest: StreamManifest
    pacing: str
    options: dict[str, Any]
    seed: int
    total_steps: int
    global_batch_size: int
    revisions: tuple[Revision, ...] = ()
    lengths: Rows | None = None
    length_window: int = 1

    def __post_init__(self) -> None:
        for name in ("total_steps", "global_batch_size", "length_window"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1")
        if self.length_window > 1 and (self.lengths is None or len(self.lengths) != len(self.manifest)):
            given = "none" if self.lengths is None else len(self.lengths)
            raise ConfigError(
                f"length_window={self.length_window} needs a length of each of {len(self.manifest)} records, there are "
                f"{given}; give them, or set length_window to 1"
            )
        config = PACING[self.pacing].configured(self.options)
        if isinstance(config, Online) and config.every % self.length_window:
            raise ConfigError(
                f"every={config.every} of pacing {self.pacing!r} must be a multiple of "
                f"length_window={self.length_window}; change either"
            )
        before = 0
        for start, manifest in (Revision(0, self.manifest), *self.revisions):
            if manifest is not self.manifest:
                self._check_revision(before, start, manifest)
            available = len(manifest.eligible)
            if available < self.global_batch_size:
                raise DataError(
                    f"manifest has {available} records with weight above 0, fewer than one batch of "
                    f"{self.global_batch_size}; lower the batch size or keep more records"
                )
            before = start
        for progress in (0.0, 1.0):
            if (shares := self._pool(progress).shares) is not None:
                for manifest in (self.manifest, *(one.manifest for one in self.revisions)):
                    _check_sources(manifest, shares, self.global_batch_size)

    def _check_revision(self, before: int, start: int, manifest: StreamManifest) -> None:
        if not before < start < self.total_steps:
            raise ConfigError(
                f"a revision starts at step {start}; it must start after step {before} and before {self.total_steps}"
            )
        if start % self.length_window:
            raise ConfigError(
                f"a revision starts at step {start}; with length_window={self.length_window} it must be a multiple"
            )
        if not manifest.frame["id"].equals(self.manifest.frame["id"]):
            raise ConfigError(
                f"the revision of step {start} has {len(manifest)} records that are not the {len(self.manifest)} that "
                "the run began with; give what is to leave the weight 0 instead, and train what is new in another run"
            )

    def revised(self, start_step: int, manifest: StreamManifest) -> "Stream":
        """The stream that draws from ``manifest`` from a step on; earlier steps stay as they are.

        Raises
        ------
        ConfigError : the step is not after the last revision's or outside the run, or the records are others.
        DataError : fewer records are left than a batch has.
        """
        return replace(self, revisions=(*self.revisions, Revision(start_step, manifest)))

    def manifest_at(self, step: int) -> StreamManifest:
        """The manifest that is in force at a step."""
        return next(
            (one.manifest for one in reversed(self.revisions) if one.start_step <= step),
            self.manifest,
        )

    def _pool(self, progress: float) -> Pool:
        pacing = PACING[self.pacing]
        return pacing.member(progress, pacing.configured(self.options))

    @cached_property
    def _orders(self) -> "dict[str, _Orders]":
        return {}

    def _order_of(self, manifest: StreamManifest) -> "_Orders":
        if manifest.digest not in self._orders:
            self._orders[manifest.digest] = _Orders(manifest, self.seed)
        return self._orders[manifest.digest]

    def pool_size(self, step: int) -> int:
        """Records that ``step`` draws from: the pacing's fraction, and at least one batch."""
        available = len(self.manifest_at(step).eligible)
        return min(
            available, max(self.global_batch_size, math.ceil(self._pool(step / self.total_steps).fraction * available))
        )

    def batch(self, step: int) -> Rows:
        """Row numbers of the manifest that make up the global batch of ``step``, (global_batch_size,) int64.

        Raises
        ------
        ConfigError : the step is outside the run.
        """
        if not 0 <= step < self.total_steps:
            raise ConfigError(f"step={step} must lie in [0, {self.total_steps - 1}]; raise the run's steps")
        window = self._window(step)
        if len(window) == 1:
            return self._drawn(step)
        assert self.lengths is not None
        rows = np.concatenate([self._drawn(one) for one in window])
        batches = rows[np.argsort(self.lengths[rows], kind="stable")].reshape(len(window), -1)
        key = self._order_of(self.manifest_at(step)).key
        turns = permuted(np.arange(len(window)), len(window), key, _WINDOW_SALT + window.start)
        batch: Rows = batches[turns[step - window.start]]
        return batch

    def _window(self, step: int) -> range:
        """The steps that share their records with ``step``; a revision only ever starts at the start of one."""
        start = step - step % self.length_window
        return range(start, min(start + self.length_window, self.total_steps))

    def _drawn(self, step: int) -> Rows:
        manifest = self.manifest_at(step)
        orders, pool = self._order_of(manifest), self._pool(step / self.total_steps)
        available = len(manifest.eligible)
        position = step * self.global_batch_size + np.arange(self.global_batch_size, dtype=np.int64)
        point = np.empty(len(position))
        is_uneven = pool.shares is not None or orders.is_uneven
        for epoch in np.unique(position // available):
            inside = position // available == epoch
            drawn = permuted(position[inside] % available, available, orders.key, int(epoch))
            shift = (0.5 + int(epoch) * _GOLDEN_RATIO) % 1.0 if is_uneven else 0.5
            point[inside] = (drawn + shift) / available
        if pool.shares is not None:
            return self._mixed_batch(orders, pool, point)
        rows, cumulated = orders.rankings[pool.first]
        return _covering(rows, cumulated, self.pool_size(step), point)

    def _mixed_batch(self, orders: "_Orders", pool: Pool, point: npt.NDArray[np.float64]) -> Rows:
        """The line from 0 to 1 is cut by the sources' shares; within its part each source is drawn from alone."""
        assert pool.shares is not None
        by_source = orders.rankings_by_source(pool.first)
        shares = pool.shares or dict.fromkeys(by_source, 1.0)
        names = [name for name in sorted(shares) if shares[name] > 0]
        ends = np.cumsum([shares[name] for name in names]) / sum(shares[name] for name in names)
        place = np.minimum(np.searchsorted(ends, point, side="right"), len(names) - 1)
        batch = np.empty(len(point), dtype=np.int64)
        for number, name in enumerate(names):
            inside = place == number
            start = ends[number - 1] if number else 0.0
            rows, cumulated = by_source[name]
            size = min(len(rows), max(1, math.ceil(pool.fraction * len(rows))))
            batch[inside] = _covering(rows, cumulated, size, (point[inside] - start) / (ends[number] - start))
        return batch


Ranking: TypeAlias = tuple[Rows, npt.NDArray[np.float64]]
"""Rows in the order in which they become available, and their cumulated weights."""


class _Orders:
    """What a manifest and a seed fix: the key of all permutations, and the orders in which records become available."""

    def __init__(self, manifest: StreamManifest, seed: int) -> None:
        self.manifest = manifest
        self.key = int.from_bytes(hashlib.sha256(f"{manifest.digest}/{seed}".encode()).digest()[:8], "little")
        weight = manifest.frame["weight"].to_numpy()[manifest.eligible]
        self.is_uneven = bool((weight != weight[0]).any())
        self._by_source: dict[str, dict[str, Ranking]] = {}

    @cached_property
    def rankings(self) -> dict[str, Ranking]:
        eligible, easiest = self.manifest.eligible, self.manifest.easiest_first
        places = permuted(np.arange(len(eligible)), len(eligible), self.key, _SHUFFLE_SALT)
        orders = {"easiest": easiest, "hardest": easiest[::-1], "any": eligible[places]}
        weight = self.manifest.frame["weight"].to_numpy()
        return {name: (rows, np.cumsum(weight[rows])) for name, rows in orders.items()}

    def rankings_by_source(self, first: str) -> dict[str, Ranking]:
        """The ranking of each source that has a record to draw."""
        if first not in self._by_source:
            rows, _ = self.rankings[first]
            source, weight = self.manifest.frame["source"].to_numpy(), self.manifest.frame["weight"].to_numpy()
            parts = {str(name): rows[source[rows] == name] for name in np.unique(source[rows])}
            self._by_source[first] = {name: (part, np.cumsum(weight[part])) for name, part in parts.items()}
        return self._by_source[first]


def _covering(rows: Rows, cumulated: npt.NDArray[np.float64], size: int, point: npt.NDArray[np.float64]) -> Rows:
    """The rows among the first ``size`` whose share of the cumulated weight covers each point of [0, 1)."""
    target = point * cumulated[size - 1]
    covering: Rows = rows[np.minimum(np.searchsorted(cumulated[:size], target, side="right"), size - 1)]
    return covering


def _check_sources(manifest: StreamManifest, shares: Mapping[str, float], global_batch_size: int) -> None:
    if "source" not in manifest.frame.columns:
        raise DataError(
            "a mixture of sources needs the column 'source' in the manifest; add it, or take another pacing"
        )
    known = Counter(manifest.frame["source"].gather(manifest.eligible).to_list())
    for name in shares:
        if name not in known:
            raise DataError(f"the mixture names source {name!r}, which has no record to draw; {nearest(name, known)}")
    drawn = sum(number for name, number in known.items() if not shares or shares.get(name, 0) > 0)
    if drawn < global_batch_size:
        raise DataError(
            f"the mixture's sources have {drawn} records, fewer than one batch of {global_batch_size}; lower the batch "
            "size or name more sources"
        )


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
    """The rows of a global batch that one of ``world_size`` ranks works on.

    Shares differ by one record at most. A loss must therefore be normalised by the targets of the whole batch: a mean
    of the ranks' means would let records of smaller shares weigh more.

    Raises
    ------
    ConfigError : the rank does not exist, or there are more ranks than records.
    """
    if not 0 <= rank < world_size:
        raise ConfigError(f"rank={rank} must lie in [0, {world_size - 1}]")
    if len(batch) < world_size:
        raise ConfigError(
            f"a global batch of {len(batch)} leaves nothing for some of world_size={world_size} ranks; raise the batch "
            "size or start fewer"
        )
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
