"""Deduplicate alone: no rules, no scores; within a dataset, within its files, or against other datasets.

measure (a shard) → the stages of ``dedup`` → those of ``substring`` → embed (a shard) → the stages of ``semantic`` →
publish (all)
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from sqlalchemy import and_, func, select
from sqlalchemy.orm import Session

from catalog.database import Catalog
from catalog.errors import ConfigError
from catalog.store import Store, StoredFile
from catalog.tables.curation import DuplicatePair
from catalog.tables.datasets import Dataset, Version
from catalog.tables.engine import Unit
from curation.dedup.exact import exact_hash
from curation.dedup.index import pack
from curation.recipe import Recipe
from workers import manifests, runs
from workers.engine import UnitResult
from workers.execution import UnitContext
from workers.index import KIND, STATE, Base, few_arrays, find_base, write_state
from workers.pipelines import PIPELINES, Pipeline, Stage, dedup, semantic, single, substring
from workers.pipelines.dedup import all_shards, group_rows
from workers.pipelines.embeddings import check_encoder
from workers.pipelines.outputs import entries, outputs
from workers.pipelines.semantic import all_duplicates_of, semantic_summary
from workers.pipelines.update import selected, update

WITHIN = {"against": [], "per_source": False, "within": True}


def submit_dedup(
    catalog: Catalog,
    *,
    dataset: str,
    recipe: Recipe,
    against: Sequence[str] = (),
    per_source: bool = False,
    within: bool = True,
    rebuild: bool = False,
    requested_by: str | None = None,
) -> tuple[str, str]:
    """Ask for the newest raw version to be deduplicated; the same again is the same run.

    Unless another deduplicated version was published since: then it is a new one, whose version is the newest again.

    Parameters
    ----------
    recipe : of which ``exact``, ``near``, ``substring`` and ``semantic`` with its ``encoder`` are used.
    against : names of other datasets; records that stand there leave, and theirs never do.
    per_source : only records of one file are compared with each other.
    within : whether the dataset's own records remove each other.
    rebuild : look at everything again, even if an index of what came earlier is there. The result is the same.

    Returns
    -------
    the run's id and ``"new"``, ``"running"``, ``"resumed"`` or ``"done"``.

    Raises
    ------
    NotFoundError : no such dataset, or nothing ingested. ConfigError : nothing to compare with, passages per source,
        the encoder is not installed, or semantic duplicates are asked for in another scope than the whole dataset.
    """
    if per_source and recipe.substring is not None:
        raise ConfigError("passages are looked for across files; leave out per_source, or the recipe's 'substring'")
    if recipe.semantic is not None:
        check_encoder(recipe)
        if against or per_source or not within:
            raise ConfigError("semantic compares the records of one dataset with each other; leave out its scope")
    with catalog.write() as session:
        found = manifests.find_dataset(session, dataset)
        version = manifests.require_version(session, found, "raw")
        scope, others = dedup.asked_scope(session, dataset, against=against, per_source=per_source, within=within)
        same = {
            "recipe": recipe.canonical(),
            "recipe_hash": recipe.digest(),
            "manifest": version.manifest_sha256,
            "scope": scope,
        }
        rows = dedup.unit_rows(session, [version, *others], catalog.settings.dedup_rows)
        config: dict[str, Any] = same | {"layout": dedup.layout([version, *others], recipe, rows)}
        if is_indexed(recipe, scope):
            config["indexed"] = True
            base = None if rebuild else base_for(session, catalog, version, recipe, scope)
            if base is not None:
                config |= {
                    "base": {"run": base.run_id, "file": base.file.to_json()},
                    "chain": [*base.chain, base.run_id],
                    "layout": dedup.layout([], recipe, rows),
                }
        run, state = runs.submit(
            session,
            now=catalog.now(session),
            kind="dedup",
            dataset_id=found.id,
            version_id=version.id,
            config=config,
            idempotency_key=runs.key_of_newest(
                session,
                dataset_id=found.id,
                kind="deduplicated",
                asked=same | ({"rebuild": True} if rebuild else {}),
                job="dedup",
            ),
            requested_by=requested_by,
        )
        return run.id, state


def is_indexed(recipe: Recipe, scope: dict[str, Any]) -> bool:
    """Whether an index is kept of what is found: of a dataset's exact and near duplicates within itself."""
    # Not of passages and meaning: the new records alone do not tell which of the old ones they repeat.
    alone = recipe.substring is None and recipe.semantic is None
    return alone and recipe.exact and recipe.near is not None and scope == WITHIN


def base_for(
    session: Session, catalog: Catalog, version: Version, recipe: Recipe, scope: dict[str, Any]
) -> Base | None:
    """The state to build on, if any: where what came since is not more than was there, and fits a unit."""
    if not is_indexed(recipe, scope):
        return None
    store = Store.of(catalog.settings)
    base = find_base(session, store, version, recipe_hash=recipe.digest(), scope=scope)
    if base is None:
        return None
    added = version.num_records - base.num_records
    return base if 0 < added <= min(base.num_records, catalog.settings.dedup_rows) else None


def other_datasets(catalog: Catalog, dataset: str) -> list[str]:
    """Names of all datasets but one that have something ingested."""
    with catalog.read() as session:
        named = session.scalars(select(Dataset).where(Dataset.name != dataset).order_by(Dataset.name)).all()
        return [one.name for one in named if manifests.latest_version(session, one.id, "raw") is not None]


def _measure(unit: UnitContext) -> UnitResult:
    """Exact hash and length of every record of one shard."""
    entry = all_shards(unit)[unit.claim.payload["index"]]
    frame = unit.store.read_frame(StoredFile.from_json(entry["data"]), ["id", "text"])
    unit.progress(0, frame.height)
    measured = frame.select(
        "id", num_chars=pl.col("text").str.len_chars().cast(pl.Int64), exact_hash=exact_hash(frame["text"])
    )
    unit.progress(frame.height, frame.height)
    return UnitResult(
        result={"records": frame.height}, shards=[("measured", unit.store.write_frame(measured, "measured"))]
    )


def _publish(unit: UnitContext) -> UnitResult:
    """The deduplicated version: text shards, as they are or cut, beside each the ids that stay."""
    if "base" in unit.claim.config:
        return update(unit)
    kept, deduplicated = 0, []
    shards = entries(unit)
    measured = outputs(unit, "measure", "measured")
    for index, entry in enumerate(shards):
        unit.progress(index, len(shards))
        ids = unit.store.read_frame(measured[index], ["id"])
        gone = pl.concat([all_duplicates_of(unit, index)["id"], substring.emptied_of(unit, index)])
        rows = selected(ids, gone.implode())
        selection = unit.store.write_frame(rows, "selection")
        kept += rows.height
        data = substring.text_shard(unit, index)
        deduplicated.append(entry | {"data": data.to_json(), "selection": selection.to_json()})
    summary = {"records": sum(one["data"]["num_rows"] for one in shards), "kept": kept}
    with unit.catalog.read() as session:
        found, sizes = cluster_summary(session, unit.claim.run_id)
        summary |= found
        summary["semantic"] = semantic_summary(session, unit.claim.run_id, unit.claim.config)
    near = unit.claim.config["recipe"]["near"]
    summary["near"] = near and {key: near[key] for key in ("threshold", "bands", "rows")}
    summary |= substring.summary(unit)
    manifest = manifests.write(unit.store, unit.catalog, unit.claim.dataset_id, "deduplicated", deduplicated)
    return UnitResult(
        result=summary,
        shards=_first_state(unit, sizes) if unit.claim.config.get("indexed") else [],
        apply=manifests.publisher(
            unit.claim,
            manifest,
            kind="deduplicated",
            parent_id=unit.claim.version_id,
            entries=deduplicated,
            summary=summary,
        ),
    )


def _first_state(unit: UnitContext, sizes: dict[int, int]) -> list[tuple[str, StoredFile]]:
    """The index that the stages left, as a state of one segment; none where it could not tell texts apart."""
    with unit.catalog.read() as session:
        exact = select(Unit.result).where(Unit.run_id == unit.claim.run_id, Unit.stage_name == "exact")
        if any(one["ambiguous"] for one in session.scalars(exact)):
            return []
    hot = [unit.store.read_frame(file)["hash"].to_numpy() for file in outputs(unit, "bucket", "hot")]
    few = few_arrays(better=(np.empty(0, np.uint64), np.empty(0, np.uint32)), hot=np.unique(np.concatenate(hot)))
    few_file = unit.store.write_bytes(pack(few), KIND, "arrow")
    sketches, first = [], 0
    for file, group in zip(outputs(unit, "sign", "index_sketches"), group_rows(unit), strict=True):
        sketches.append([first, file.to_json()])
        first += group
    segment = {
        "first_row": 0,
        "num_rows": first,
        "bands": [file.to_json() for file in outputs(unit, "bucket", "index_bands")],
        "exact": [file.to_json() for file in outputs(unit, "exact", "index_exact")],
        "sketches": sketches,
        "measured": [file.to_json() for file in outputs(unit, "connect", "index_measured")],
        "similar": [file.to_json() for file in outputs(unit, "verify", "index_similar")],
        "few": few_file.to_json(),
    }
    shards = [one["data"] for one in entries(unit)]
    state = write_state(unit.store, shards=shards, segments=[segment], sizes=sizes)
    return [("index_segment", few_file), (STATE, state)]


def cluster_summary(session: Session, run_id: str) -> tuple[dict[str, Any], dict[int, int]]:
    """Counts over a run's clusters: by kind of duplicate, how many clusters, the biggest; and clusters by size."""
    of_run = and_(DuplicatePair.run_id == run_id, DuplicatePair.accepted)
    kinds = session.execute(select(DuplicatePair.kind, func.count()).where(of_run).group_by(DuplicatePair.kind))
    found: dict[str, int] = {row[0]: row[1] for row in kinds}
    size = func.count().label("size")
    behind = select(size).where(of_run).group_by(DuplicatePair.keeper_id).subquery()
    sizes = {row[0]: row[1] for row in session.execute(select(behind.c.size, func.count()).group_by(behind.c.size))}
    summary = {
        "exact_duplicates": found.get("exact", 0),
        "near_duplicates": found.get("near", 0),
        "semantic_duplicates": found.get("semantic", 0),
        "clusters": sum(sizes.values()),
        "biggest_cluster": max(sizes, default=0),
    }
    return summary, sizes


PIPELINES.register("dedup")(
    Pipeline(
        stages=(
            Stage(name="measure", plan=dedup.plan_measure, work=_measure),
            *dedup.STAGES,
            *substring.STAGES,
            semantic.EMBED,
            *semantic.STAGES,
            Stage(name="publish", plan=single, work=_publish),
        )
    )
)
