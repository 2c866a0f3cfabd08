"""Label errors: which labels of a curated version are likely wrong.

label (all) → fit (a fold) → judge (all)
"""

from typing import Any

import polars as pl
from sqlalchemy import select

from catalog.database import Catalog
from catalog.store import Store
from catalog.tables.engine import Unit
from catalog.tables.label_errors import LabelError
from curation.label_errors.judging import METHOD
from workers import manifests, runs
from workers.engine import UnitResult
from workers.execution import UnitContext
from workers.pipelines import PIPELINES, Pipeline, Stage, single
from workers.pipelines.labelled import (
    STAGES,
    check_choices,
    classes_of,
    judged,
    label_config,
    labelled_records,
    out_of_fold,
)


def submit_label_errors(
    catalog: Catalog,
    *,
    dataset: str,
    labels: str = "merged",
    features: str = "embeddings",
    requested_by: str | None = None,
) -> tuple[str, str]:
    """Ask for the newest curated version's label errors; the same version and labels again is the same run.

    Parameters
    ----------
    labels : ``given`` with the source, ``annotated`` here, or ``merged`` (annotated where there is one, else given).
    features : ``embeddings`` of the version, or ``tfidf`` where its encoder does not know the language.

    Returns
    -------
    the run's id and ``"new"``, ``"running"``, ``"resumed"`` or ``"done"``.

    Raises
    ------
    NotFoundError : no such dataset, or nothing cleaned yet. DataError : no labels. ConfigError : an unknown choice.
    """
    check_choices(labels, features)
    with catalog.read() as session:
        found = manifests.find_dataset(session, dataset)
        version = manifests.require_version(session, found, "curated")
        asked = label_config(session, Store.of(catalog.settings), found, labels, features)
    config = asked | {"manifest": version.manifest_sha256, "method": METHOD}
    with catalog.write() as session:
        run, state = runs.submit(
            session,
            now=catalog.now(session),
            kind="label_errors",
            dataset_id=found.id,
            version_id=version.id,
            config=config,
            idempotency_key=runs.digest({"label_errors": found.id} | config),
            requested_by=requested_by,
        )
        return run.id, state


def label_result(unit: UnitContext) -> dict[str, Any]:
    """What the stage ``label`` said."""
    with unit.catalog.read() as session:
        query = select(Unit.result).where(Unit.run_id == unit.claim.run_id, Unit.stage_name == "label")
        return dict(session.scalars(query).one() or {})


def _judge(unit: UnitContext) -> UnitResult:
    """Rank all labels; the suspected ones into SQL."""
    records = labelled_records(unit)
    told = label_result(unit)
    classes = pl.Series(classes_of(told))
    proba, penalty = out_of_fold(unit, records)
    found = judged(unit, records, proba)
    frame = records.frame.select("id", "label", "source").with_columns(
        quality=pl.Series(found.quality),
        suggested=classes.gather(found.suggested),
        confidence=pl.Series(found.confidence),
        suspected=pl.Series(found.suspected),
    )
    worst = frame.filter("suspected").sort("quality", "id").with_row_index("rank", offset=1)
    rows = worst.select(
        pl.lit(unit.claim.run_id).alias("run_id"),
        pl.col("id").alias("record_id"),
        pl.col("rank").cast(pl.Int64),
        pl.col("label").alias("given"),
        "source",
        "suggested",
        "confidence",
        "quality",
    )
    by_label = frame.group_by("label").agg(records=pl.len(), suspected=pl.col("suspected").sum()).sort("label")
    unit.progress(frame.height, frame.height)
    return UnitResult(
        result={
            "records": frame.height,
            "suspected": worst.height,
            "estimated_errors": found.estimated,
            "classes": len(classes),
            "rare": told["rare"],
            "copies": frame.height - told["groups"],
            "penalty": penalty,
            "method": METHOD,
            "by_label": by_label.to_dicts(),
        },
        shards=[("label_quality", unit.store.write_frame(frame, "label_quality"))],
        rows=[(LabelError.metadata.tables["label_errors"], rows)],
    )


PIPELINES.register("label_errors")(Pipeline(stages=(*STAGES, Stage(name="judge", plan=single, work=_judge))))
