"""Deduplicate alone: no rules, no scores; within a dataset, within its files, or against other datasets.

measure (a shard) → the stages of ``dedup`` → embed (a shard) → the stages of ``semantic`` → publish (all)
"""

from collections.abc import Sequence
from typing import Any

import polars as pl
from sqlalchemy import and_, func, select
from sqlalchemy.orm import Session

from catalog.database import Catalog
from catalog.errors import ConfigError
from catalog.store import StoredFile
from catalog.tables.curation import DuplicatePair
from catalog.tables.datasets import Dataset
from curation.dedup.exact import exact_hash
from curation.recipe import Recipe
from workers import manifests, runs
from workers.engine import UnitResult
from workers.execution import UnitContext
from workers.pipelines import PIPELINES, Pipeline, Stage, dedup, semantic, single
from workers.pipelines.dedup import all_shards
from workers.pipelines.embeddings import check_encoder
from workers.pipelines.outputs import entries, outputs
from workers.pipelines.semantic import all_duplicates_of, semantic_summary


def submit_dedup(
    catalog: Catalog,
    *,
    dataset: str,
    recipe: Recipe,
    against: Sequence[str] = (),
    per_source: bool = False,
    within: bool = True,
    requested_by: str | None = None,
) -> tuple[str, str]:
    """Ask for the newest raw version to be deduplicated; the same again is the same run.

    Unless another deduplicated version was published since: then it is a new one, whose version is the newest again.

    Parameters
    ----------
    recipe : of which ``exact``, ``near`` and ``semantic`` with its ``encoder`` are used.
    against : names of other datasets; records that stand there leave, and theirs never do.
    per_source : only records of one file are compared with each other.
    within : whether the dataset's own records remove each other.

    Returns
    -------
    the run's id and ``"new"``, ``"running"``, ``"resumed"`` or ``"done"``.

    Raises
    ------
    NotFoundError : no such dataset, or nothing ingested. ConfigError : nothing to compare with, the encoder is not
        installed, or semantic duplicates are asked for in another scope than the whole dataset.
    """
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
        run, state = runs.submit(
            session,
            now=catalog.now(session),
            kind="dedup",
            dataset_id=found.id,
            version_id=version.id,
            config=same | {"layout": dedup.layout([version, *others], recipe, catalog.settings.dedup_rows)},
            idempotency_key=runs.key_of_newest(
                session, dataset_id=found.id, kind="deduplicated", asked=same, job="dedup"
            ),
            requested_by=requested_by,
        )
        return run.id, state


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
    """The deduplicated version: text shards as they are, beside each the ids that stay."""
    kept, deduplicated = 0, []
    shards = entries(unit)
    measured = outputs(unit, "measure", "measured")
    for index, entry in enumerate(shards):
        unit.progress(index, len(shards))
        ids = unit.store.read_frame(measured[index], ["id"])
        gone = all_duplicates_of(unit, index)["id"]
        rows = ids.with_row_index("row").filter(~pl.col("id").is_in(gone.implode()))
        selection = unit.store.write_frame(rows.select("id", pl.col("row").cast(pl.Int64)), "selection")
        kept += rows.height
        deduplicated.append(entry | {"selection": selection.to_json()})
    summary = {"records": sum(one["data"]["num_rows"] for one in shards), "kept": kept}
    with unit.catalog.read() as session:
        summary |= cluster_summary(session, unit.claim.run_id)
        summary["semantic"] = semantic_summary(session, unit.claim.run_id, unit.claim.config)
    near = unit.claim.config["recipe"]["near"]
    summary["near"] = near and {key: near[key] for key in ("threshold", "bands", "rows")}
    manifest = manifests.write(unit.store, unit.catalog, unit.claim.dataset_id, "deduplicated", deduplicated)
    return UnitResult(
        result=summary,
        apply=manifests.publisher(
            unit.claim,
            manifest,
            kind="deduplicated",
            parent_id=unit.claim.version_id,
            entries=deduplicated,
            summary=summary,
        ),
    )


def cluster_summary(session: Session, run_id: str) -> dict[str, Any]:
    """Counts over a run's clusters: by kind of duplicate, how many clusters, the biggest."""
    of_run = and_(DuplicatePair.run_id == run_id, DuplicatePair.accepted)
    kinds = session.execute(select(DuplicatePair.kind, func.count()).where(of_run).group_by(DuplicatePair.kind))
    found: dict[str, int] = {row[0]: row[1] for row in kinds}
    size = func.count().label("size")
    sizes = select(size).where(of_run).group_by(DuplicatePair.keeper_id).subquery()
    clusters, biggest = session.execute(select(func.count(), func.max(sizes.c.size)).select_from(sizes)).one()
    return {
        "exact_duplicates": found.get("exact", 0),
        "near_duplicates": found.get("near", 0),
        "semantic_duplicates": found.get("semantic", 0),
        "clusters": clusters,
        "biggest_cluster": biggest or 0,
    }


PIPELINES.register("dedup")(
    Pipeline(
        stages=(
            Stage(name="measure", plan=dedup.plan_measure, work=_measure),
            *dedup.STAGES,
            semantic.EMBED,
            *semantic.STAGES,
            Stage(name="publish", plan=single, work=_publish),
        )
    )
)
