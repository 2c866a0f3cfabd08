"""What another threshold would have done with a run's records, from what the run stored: no text is read but samples'.

The values lie in the run's ``measured`` shards, columns that are read as they are. The same values in the ``verdicts``
table are JSON documents, of which a database parses some hundred thousand a second.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import polars as pl
from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog.errors import ConfigError, ConflictError, NotFoundError
from catalog.store import Store, StoredFile
from catalog.tables.curation import Verdict
from catalog.tables.datasets import Dataset, Version
from catalog.tables.engine import Run, Unit
from curation.dedup.resettle import MEASURED_SCHEMA
from curation.recipe import Recipe, recipe_from_canonical
from curation.recipe_diff import differences
from curation.verdicts import LANGUAGE
from curation.whatif import REASONS, changed_recipe, compare, decide
from workers import engine, manifests

JUDGING = ("clean", "what_if")
"""Job kinds that give every record a verdict."""
SAMPLES = 3
READERS = 4
"""Shards that are read at a time."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What a judging run left to ask.

    Parameters
    ----------
    run : the run.
    root : the run that measured: itself, or the one that a published what-if goes back to.
    recipe : of the run.
    shards : entries of its text shards, as they were published.
    others : names of the datasets that it was compared with, one for each of their shards.
    """

    run: Run
    root: Run
    recipe: Recipe
    shards: list[dict[str, Any]]
    others: list[str]

    @property
    def within(self) -> bool:
        """Whether the records remove each other."""
        return bool(self.root.config["scope"]["within"])


def find_judging(session: Session, name: str) -> Run:
    """A run by id or its first characters, or the newest judging run of a dataset.

    Raises
    ------
    NotFoundError : neither, with the nearest dataset. ConfigError : a run that is not done, or that judges nothing.
    """
    dataset = session.scalars(select(Dataset).where(Dataset.name == name)).one_or_none()
    if dataset is not None:
        version = manifests.require_version(session, dataset, "curated")
        return session.get_one(Run, version.run_id)
    try:
        run = engine.find_run(session, name)
    except NotFoundError:
        # More often a mistyped dataset than a run: that error names the nearest.
        manifests.find_dataset(session, name)
        raise
    if run.kind not in JUDGING:
        raise ConfigError(f"run {run.id[:8]} is of kind {run.kind!r}; what-if asks a run of `winnow clean`")
    if run.state != "done":
        raise ConfigError(f"run {run.id[:8]} is {run.state}; what-if asks one that is done: see `winnow runs`")
    return run


def load(session: Session, store: Store, run: Run) -> Stored:
    """What there is to ask of a run.

    Raises
    ------
    ConfigError : a rule or encoder of its recipe has another version now.
    """
    root = session.get_one(Run, run.config["of"]) if "of" in run.config else run
    version = session.scalars(select(Version).where(Version.run_id == run.id)).one()
    others = [
        one["dataset"]
        for one in root.config["scope"]["against"]
        for _ in manifests.read(store, session.get_one(Version, one["version"]))["shards"]
    ]
    return Stored(
        run=run,
        root=root,
        recipe=recipe_from_canonical(run.config["recipe"]),
        shards=manifests.read(store, version)["shards"],
        others=others,
    )


def read_measured(
    session: Session, store: Store, stored: Stored, check: Callable[[], None] = lambda: None
) -> pl.DataFrame:
    """Every measured value, with ``shard`` (its place among the run's) and ``of``, in the order of the shards."""
    files = manifests.run_files(session, stored.root.id, "measured")
    names: list[str | None] = [*(None for _ in stored.shards), *stored.others]

    def read(index: int) -> pl.DataFrame:
        check()
        name = names[index]
        frame = store.read_frame(files[index]).with_columns(shard=pl.lit(index, pl.UInt32), of=pl.lit(name, pl.String))
        return frame if name is None else frame.with_columns(id=pl.format("{}:{}", "of", "id"))

    with ThreadPoolExecutor(READERS) as pool:
        return pl.concat(list(pool.map(read, range(len(files)))))


def read_pairs(session: Session, store: Store, stored: Stored) -> pl.DataFrame:
    """The near pairs that were measured; a copy that only followed its keeper was not."""
    frames = [pl.DataFrame(schema=MEASURED_SCHEMA)]
    for file in manifests.run_files(session, stored.root.id, "pairs"):
        pairs = store.read_frame(file)
        measured = pairs.filter(pl.col("kind") == "near", pl.col("bands_shared") > 0)
        frames.append(measured.select(list(MEASURED_SCHEMA)))
    return pl.concat(frames)


def doubts(session: Session, stored: Stored, changed: Recipe) -> list[str]:
    """Why the answer may differ from what a new run would give; empty where it is exact."""
    found = []
    before, near = stored.root.config["recipe"]["near"], changed.near
    if near is not None and near.threshold < before["threshold"]:
        found.append(
            f"near.threshold={near.threshold:g} is below the {before['threshold']:g} of run {stored.root.id[:8]}, "
            "which had no reason to measure all such pairs: more would leave"
        )
    query = select(Unit.result).where(Unit.run_id == stored.root.id, Unit.stage_name == "bucket")
    hot = sum(int((result or {}).get("hot", 0)) for result in session.scalars(query))
    if hot and near is not None and _verdicts_differ(stored.recipe, changed):
        found.append(
            f"{hot:,} buckets held more than max_bucket={near.max_bucket} records, each of which was compared with the "
            "best of its bucket alone: among near duplicates a new run may choose others"
        )
    found += [
        f"{count:,} records left by {reason}, which is decided among those that stay and was not decided anew here"
        for reason, count in _other_reasons(stored).items()
    ]
    return found


def _other_reasons(stored: Stored) -> dict[str, int]:
    """For what records left that is told by neither values nor pairs, and how many."""
    told = {*stored.recipe.rules, LANGUAGE, REASONS["exact"], REASONS["near"]}
    dropped: dict[str, int] = (stored.run.result or {})["dropped"]
    return {reason: count for reason, count in dropped.items() if reason not in told}


def _left_otherwise(session: Session, stored: Stored, records: pl.DataFrame) -> pl.Series:
    """The reason of each record that left for such a one, else null."""
    reasons = list(_other_reasons(stored))
    if not reasons:
        return pl.repeat(None, records.height, dtype=pl.String, eager=True)
    query = select(Verdict.record_id, Verdict.reason).where(
        Verdict.run_id == stored.run.id, Verdict.reason.in_(reasons)
    )
    rows = [tuple(row) for row in session.execute(query)]
    left = pl.DataFrame(rows, schema={"id": pl.String, "reason": pl.String}, orient="row")
    return records.select("id").join(left, on="id", how="left", maintain_order="left")["reason"]


def _sources(store: Store, stored: Stored) -> pl.Series:
    """Where each record came from: what its source field says, else its file."""
    found = []
    for entry in stored.shards:
        named = pl.repeat(entry["source"], entry["data"]["num_rows"], dtype=pl.String, eager=True)
        if "origin" in entry:
            origin = store.read_frame(StoredFile.from_json(entry["origin"]))["origin"]
            named = pl.select(pl.coalesce(origin, named)).to_series()
        found.append(named)
    return pl.concat(found).alias("source")


def _samples(store: Store, stored: Stored, verdicts: pl.DataFrame, number: int) -> Iterator[dict[str, Any]]:
    """The first records of each rule and direction, with their texts: few shards are read for them."""
    before, after = pl.col("before"), pl.col("after")
    changed = verdicts.filter(before.is_null() != after.is_null()).select(
        "id",
        "shard",
        change=pl.when(after.is_null()).then(pl.lit("returns")).otherwise(pl.lit("leaves")),
        rule=pl.coalesce(before, after),
    )
    chosen = changed.group_by("change", "rule", maintain_order=True).head(number)
    for (change, rule), part in chosen.group_by("change", "rule", maintain_order=True):
        for (shard,), few in part.group_by("shard", maintain_order=True):
            file = StoredFile.from_json(stored.shards[int(str(shard))]["data"])
            texts = store.read_frame(file, ["id", "text", "source", "line"])
            for row in texts.filter(pl.col("id").is_in(few["id"].implode())).to_dicts():
                yield {"change": change, "rule": rule, "record": row.pop("id"), **row}


def _verdicts_differ(one: Recipe, other: Recipe) -> bool:
    names = ("rules", "languages", "min_language_confidence")
    return any(one.canonical()[name] != other.canonical()[name] for name in names)


def unpublishable(stored: Stored, changed: Recipe) -> str | None:
    """Why a version cannot be made of what was stored; None where it can."""
    before = stored.root.config["recipe"]["near"]
    if changed.near is not None and changed.near.threshold < before["threshold"]:
        return (
            f"near.threshold={changed.near.threshold:g} is below the {before['threshold']:g} for which pairs were "
            "measured; clean with a recipe of that threshold instead"
        )
    return None


def what_if(
    session: Session,
    store: Store,
    run: Run,
    settings: Sequence[str],
    *,
    samples: int = SAMPLES,
) -> dict[str, Any]:
    """Who would change sides in a run with other thresholds.

    Parameters
    ----------
    settings : as of ``curation.whatif.changed_recipe``.
    samples : records shown for each rule and direction.

    Returns
    -------
    ``run``, ``dataset``, ``settings`` (of dicts ``key``, ``before``, ``after``), what ``compare`` returns, by
    ``source`` and ``language``; ``samples`` (of dicts ``change``, ``rule``, ``record``, ``source``, ``line``,
    ``text``), ``doubts`` (why a new run might differ) and ``unpublishable`` (why no version can be made, or None).

    Raises
    ------
    ConfigError : a setting cannot be tried. NotFoundError : a shard is gone. ConflictError : the stored values do not
        explain the run's own verdicts.
    """
    stored = load(session, store, run)
    changed = changed_recipe(stored.recipe, settings)
    measured, pairs = read_measured(session, store, stored), read_pairs(session, store, stored)
    before, _ = decide(measured, pairs, stored.recipe, within=stored.within)
    after, _ = decide(measured, pairs, changed, within=stored.within)
    own = measured.filter(pl.col("of").is_null()).select("id", "shard", "language")
    others = _left_otherwise(session, stored, own)
    verdicts = own.with_columns(
        before=pl.coalesce(before, others),
        after=pl.coalesce(after, others),
        source=_sources(store, stored),
    )
    found = compare(verdicts, ("source", "language"))
    kept = (run.result or {})["kept"]
    if found["kept_before"] != kept:
        raise ConflictError(
            f"run {run.id[:8]} kept {kept:,} records and its stored values say {found['kept_before']:,}; clean again"
        )
    dataset = session.get_one(Dataset, run.dataset_id)
    return {
        "run": run.id,
        "dataset": dataset.name,
        "settings": differences(stored.recipe, changed),
        **found,
        "samples": list(_samples(store, stored, verdicts, samples)),
        "doubts": doubts(session, stored, changed),
        "unpublishable": unpublishable(stored, changed),
    }
