"""What a cleaning measured, for people to look at: values against their bounds, who stayed, what each step cost."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import polars as pl
from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog.store import Store
from catalog.tables.datasets import Version
from catalog.tables.engine import Run, Unit
from workers import clusters, manifests
from workers.pipelines.clean import ordered_rules

MAX_VALUES = 200_000
"""Records whose values are drawn, every so-manieth of all; what is counted is counted over all."""
NUM_SAMPLES = 2
"""Of each kind: nearest to the bound, and any."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a cleaning run measured.

    Parameters
    ----------
    num_records : all of them.
    values : a Float64 column a rule of the recipe and ``num_chars``, and ``kept``; at most ``MAX_VALUES`` records.
    failing : rule to the number of records outside its bounds, whether or not another rule failed before.
    languages : ``language`` (null where none was told), ``before``, ``after``; the most frequent first.
    samples : ``rule``, ``id``, ``value``, ``kind`` (``near`` the bound or ``any``).
    """

    num_records: int
    values: pl.DataFrame
    failing: dict[str, int]
    languages: pl.DataFrame
    samples: pl.DataFrame


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one step took.

    Parameters
    ----------
    stage : its name. units : in how many units.
    seconds : of all units one after another. records : that they read, in the stage's own counts.
    peak_bytes : resident memory of the worker process at the most, or None where it was not measured.
    """

    stage: str
    units: int
    seconds: float
    records: int
    peak_bytes: int | None


def bounds_of(run: Run) -> dict[str, tuple[float | None, float | None]]:
    """Lowest and highest value that each rule of a run's recipe keeps, in the recipe's order; None leaves it open."""
    rules: Mapping[str, Any] = run.config["recipe"]["rules"]
    return {name: (rules[name]["minimum"], rules[name]["maximum"]) for name in ordered_rules(run.config["recipe"])}


def find(session: Session, store: Store, run: Run) -> Findings | None:
    """Read what a cleaning run measured; None for a run that measured no values.

    One shard is held at a time, and of the values as many as are drawn.
    """
    bounds = bounds_of(run) if run.kind == "clean" else {}
    files = manifests.run_files(session, run.id, "measured")
    if run.kind != "clean" or not files:
        return None
    total = sum(one.num_rows for one in files)
    every = max(1, -(-total // MAX_VALUES))
    failing = dict.fromkeys(bounds, 0)
    values, languages, samples, num_records = [], [], [], 0
    for frame in _shards(session, store, run):
        values.append(frame.select([*bounds, "num_chars", "kept"]).gather_every(every, (-num_records) % every))
        num_records += frame.height
        languages.append(frame.group_by("language").agg(before=pl.len(), after=pl.col("kept").sum().cast(pl.UInt32)))
        for name, side in bounds.items():
            away = _outside(frame, name, side)
            failing[name] += away.height
            samples.append(_chosen(away.with_columns(rule=pl.lit(name))))
    return Findings(
        num_records=num_records,
        values=pl.concat(values),
        failing=failing,
        languages=pl.concat(languages)
        .group_by("language")
        .sum()
        .sort(["before", "language"], descending=[True, False], nulls_last=True),
        samples=_chosen(pl.concat([_SAMPLES, *samples])),
    )


_SAMPLES = pl.DataFrame(
    schema={"rule": pl.String, "id": pl.String, "value": pl.Float64, "distance": pl.Float64, "kind": pl.String}
)


def _shards(session: Session, store: Store, run: Run) -> Iterator[pl.DataFrame]:
    """The measured values of each text shard of the run's own version, with ``kept``."""
    files = manifests.run_files(session, run.id, "measured")
    own = session.get_one(Version, run.version_id).num_shards
    for measured, selection in zip(files[:own], manifests.run_files(session, run.id, "selection"), strict=True):
        ids = store.read_frame(selection, ["id"])["id"]
        yield store.read_frame(measured).with_columns(kept=pl.col("id").is_in(ids.implode()))


def _outside(frame: pl.DataFrame, name: str, side: tuple[float | None, float | None]) -> pl.DataFrame:
    """``id, value, distance`` of records outside a rule's bounds."""
    low, high = side
    value = pl.col(name)
    below = pl.lit(low, pl.Float64) - value
    above = value - pl.lit(high, pl.Float64)
    return frame.select("id", value=value, distance=pl.max_horizontal(below, above)).filter(pl.col("distance") > 0)


def _chosen(away: pl.DataFrame) -> pl.DataFrame:
    """Of each rule the records nearest to its bound, and others by the order of their ids, which are hashes."""
    near = (
        away.drop("kind", strict=False)
        .sort("rule", "distance", "id")
        .group_by("rule", maintain_order=True)
        .head(NUM_SAMPLES)
    )
    other = (
        away.drop("kind", strict=False)
        .join(near, on=["rule", "id"], how="anti")
        .unique(["rule", "id"])
        .sort("rule", "id")
    )
    other = other.group_by("rule", maintain_order=True).head(NUM_SAMPLES)
    both = pl.concat([near.with_columns(kind=pl.lit("near")), other.with_columns(kind=pl.lit("any"))])
    return both.select(list(_SAMPLES.schema)).sort(
        "rule", "kind", "distance", "id", descending=[False, True, False, False]
    )


def texts(session: Session, store: Store, run: Run, samples: pl.DataFrame) -> dict[str, str]:
    """The texts of sampled records, by id."""
    found = clusters.texts_of(session, store, run, set(samples["id"]))
    return {record: one["text"] for record, one in found.items()}


def costs(session: Session, run: Run) -> list[Cost]:
    """What each step of a run took, in the order of the steps."""
    rows = session.execute(
        select(Unit.stage_name, Unit.started_at, Unit.finished_at, Unit.num_done, Unit.peak_bytes)
        .where(Unit.run_id == run.id, Unit.state == "done")
        .order_by(Unit.stage, Unit.position)
    )
    found = []
    for stage, units in groupby(rows, key=lambda row: row.stage_name):
        one = list(units)
        took = sum((row.finished_at - row.started_at).total_seconds() for row in one)
        peaks = [row.peak_bytes for row in one if row.peak_bytes is not None]
        records = sum(row.num_done for row in one)
        peak = max(peaks, default=None)
        found.append(Cost(stage=stage, units=len(one), seconds=took, records=records, peak_bytes=peak))
    return found
