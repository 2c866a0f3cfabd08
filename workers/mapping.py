"""Reading a map back: topics, outliers, points, and all of it with texts."""

from collections.abc import Iterator
from typing import Any

import polars as pl
from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog.errors import NotFoundError
from catalog.store import Store, StoredFile
from catalog.tables.datasets import Dataset, Version
from catalog.tables.engine import Run
from workers import manifests


def newest_map(session: Session, dataset: Dataset) -> Run | None:
    """The newest finished map of a dataset, or None."""
    query = select(Run).where(Run.dataset_id == dataset.id, Run.kind == "map", Run.state == "done")
    return session.scalars(query.order_by(Run.finished_at.desc(), Run.id).limit(1)).one_or_none()


def require_map(session: Session, dataset: Dataset) -> Run:
    """The same.

    Raises
    ------
    NotFoundError : there is none, with the command that makes one.
    """
    run = newest_map(session, dataset)
    if run is None:
        raise NotFoundError(f"there is no map of {dataset.name!r} yet; run `winnow map {dataset.name}`")
    return run


def listed(session: Session, store: Store, run: Run, kind: str) -> pl.DataFrame:
    """``outliers`` or ``unreached``: the farthest, with texts, file and line; or ``points`` of the picture."""
    return pl.concat([store.read_frame(file) for file in manifests.run_files(session, run.id, kind)])


def map_rows(session: Session, store: Store, run: Run) -> Iterator[pl.DataFrame]:
    """Every record with topic, distance, whether it is an outlier, reach, text, file and line, a shard at a time."""
    version = session.get_one(Version, run.version_id)
    summary = run.result or {}
    terms = {one["cluster"]: ", ".join(one["terms"]) for one in summary["topics"]}
    mapped = (
        pl.concat([store.read_frame(file) for file in manifests.run_files(session, run.id, "mapped")])
        .with_columns(
            outlier=(pl.col("distance") > summary["limit"]).fill_null(value=False),
            topic=pl.col("cluster").replace_strict(terms, default=None, return_dtype=pl.String),
        )
        .rename({"reach": "distance_to_reference"})
    )
    for entry in manifests.read(store, version)["shards"]:
        selection = store.read_frame(StoredFile.from_json(entry["selection"]), ["id", "row"])
        text = store.read_frame(StoredFile.from_json(entry["data"]), ["text", "source", "line"])[selection["row"]]
        frame = pl.concat([selection.select("id"), text], how="horizontal")
        yield frame.join(mapped, on="id", how="left", maintain_order="left")


def place_of(session: Session, store: Store, dataset: Dataset, record_id: str) -> dict[str, Any] | None:
    """Where a record lies on the newest map, or None where it is on none."""
    run = newest_map(session, dataset)
    if run is None or run.result is None:
        return None
    for file in manifests.run_files(session, run.id, "mapped"):
        found = store.read_frame(file).filter(pl.col("id") == record_id)
        if found.height:
            one = found.row(0, named=True)
            topic = run.result["topics"][one["cluster"]]["terms"] if one["cluster"] is not None else []
            limit = run.result["limit"]
            return {
                "run": run.id,
                "topic": topic,
                "distance": one["distance"],
                "limit": limit,
                "outlier": one["distance"] is not None and one["distance"] > limit,
                "distance_to_reference": one["reach"],
            }
    return None
