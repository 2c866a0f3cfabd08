"""Reading back what a search for label errors found, and what people have said of it since."""

from typing import Any

import polars as pl
from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog.errors import NotFoundError
from catalog.store import Store, StoredFile
from catalog.tables.datasets import Dataset, Version
from catalog.tables.engine import Run
from catalog.tables.label_errors import LabelError
from workers import manifests

OPEN, RIGHT, CORRECTED = "open", "label was right", "corrected"
EXPORT_SCHEMA = {
    "rank": pl.Int64,
    "record_id": pl.String,
    "given": pl.String,
    "source": pl.String,
    "suggested": pl.String,
    "confidence": pl.Float64,
    "quality": pl.Float64,
    "outcome": pl.String,
    "answer": pl.String,
    "text": pl.String,
}


def newest_run(session: Session, dataset_id: str) -> Run | None:
    """The newest finished search over a dataset, or None."""
    return session.scalars(
        select(Run)
        .where(Run.dataset_id == dataset_id, Run.kind == "label_errors", Run.state == "done")
        .order_by(Run.finished_at.desc(), Run.id)
        .limit(1)
    ).one_or_none()


def require_run(session: Session, dataset: Dataset) -> Run:
    """The same.

    Raises
    ------
    NotFoundError : there is none, with the command that makes one.
    """
    run = newest_run(session, dataset.id)
    if run is None:
        raise NotFoundError(
            f"nobody has looked for label errors in {dataset.name!r} yet; run `winnow label-errors {dataset.name}`"
        )
    return run


def labels_judged(run: Run) -> list[str]:
    """Names of the labels that a search told apart, sorted."""
    return sorted(one["label"] for one in (run.result or {})["by_label"])


def suspicions(session: Session, dataset_id: str) -> pl.DataFrame | None:
    """``id`` and ``suspicion`` (probability that the label is wrong) of what the newest search suspects, or None."""
    run = newest_run(session, dataset_id)
    if run is None:
        return None
    rows = session.execute(select(LabelError.record_id, LabelError.quality).where(LabelError.run_id == run.id)).all()
    found = [(row[0], 1.0 - row[1]) for row in rows]
    return pl.DataFrame(found, schema={"id": pl.String, "suspicion": pl.Float64}, orient="row")


def listed(session: Session, store: Store, run: Run, *, limit: int | None = None) -> pl.DataFrame:
    """Suspected labels as ``EXPORT_SCHEMA``, the likeliest errors first, each with its text and what became of it.

    Parameters
    ----------
    limit : rows at most; None is all.
    """
    from workers.pipelines.labelled import settled_labels

    query = select(LabelError).where(LabelError.run_id == run.id).order_by(LabelError.rank)
    rows = session.scalars(query if limit is None else query.limit(limit)).all()
    settled = settled_labels(session, run.dataset_id)
    texts = _texts(store, session.get_one(Version, run.version_id), [row.record_id for row in rows])
    return pl.DataFrame(
        [
            {
                "rank": row.rank,
                "record_id": row.record_id,
                "given": row.given,
                "source": row.source,
                "suggested": row.suggested,
                "confidence": row.confidence,
                "quality": row.quality,
                "outcome": outcome(row.given, settled.get(row.record_id)),
                "answer": settled.get(row.record_id),
                "text": texts[row.record_id],
            }
            for row in rows
        ],
        schema=EXPORT_SCHEMA,
    )


def outcome(given: str, answer: str | None) -> str:
    """What a second opinion has made of a suspected label."""
    return OPEN if answer is None else RIGHT if answer == given else CORRECTED


def _texts(store: Store, version: Version, ids: list[str]) -> dict[str, str]:
    wanted = pl.Series(ids, dtype=pl.String).implode()
    found: dict[str, str] = {}
    for entry in manifests.read(store, version)["shards"]:
        frame = store.read_frame(StoredFile.from_json(entry["data"]), ["id", "text"])
        found.update(frame.filter(pl.col("id").is_in(wanted)).iter_rows())
    return found


def of_record(session: Session, store: Store, dataset_id: str, record_id: str) -> dict[str, Any] | None:
    """What the newest search thinks of a record's label; None where it had none, or nobody has looked."""
    from workers.pipelines.labelled import settled_labels

    run = newest_run(session, dataset_id)
    if run is None:
        return None
    for file in manifests.run_files(session, run.id, "label_quality"):
        row = store.read_frame(file).filter(pl.col("id") == record_id)
        if row.height:
            answer = settled_labels(session, dataset_id).get(record_id)
            found = row.drop("id").row(0, named=True)
            return {"run": run.id} | found | {"outcome": outcome(found["label"], answer), "answer": answer}
    return None
