"""Reading a curated version back: its records, difficulty and vectors, in the manifest's order."""

from typing import Any

import numpy as np
import polars as pl
from sqlalchemy.orm import Session

from catalog.store import Store, StoredFile
from catalog.tables.datasets import Version
from catalog.tables.engine import Run
from workers import manifests


def _file(entry: dict[str, Any], kind: str) -> StoredFile:
    return StoredFile.from_json(entry[kind])


def read_records(store: Store, version: Version, *more: str) -> pl.DataFrame:
    """The records that stay: ``id, text, label, difficulty, weight`` and ``more`` columns of their data, one row each.

    ``weight`` is how often a record is to be drawn against the others: 1 but where a recipe's ``balance`` reweighted.
    """
    frames = []
    for entry in manifests.read(store, version)["shards"]:
        selection = store.read_frame(_file(entry, "selection"))
        if "weight" not in selection.columns:
            # Published before there were weights.
            selection = selection.with_columns(weight=pl.lit(1.0))
        selection = selection.select("id", "row", "difficulty", "weight")
        text = store.read_frame(_file(entry, "data"), ["text", "label", *more])
        frames.append(pl.concat([selection.drop("row"), text[selection["row"]]], how="horizontal"))
    return pl.concat(frames)


def languages_of(session: Session, store: Store, version: Version) -> pl.DataFrame:
    """``id`` and ``language`` of every record of the version's texts, null where cleaning told none."""
    run = session.get_one(Run, version.run_id)
    num_shards = len(manifests.read(store, version)["shards"])
    # A what-if measures nothing itself; those behind the version's own are of the datasets that were cleaned against.
    files = manifests.run_files(session, run.config.get("of", run.id), "measured")[:num_shards]
    schema = {"id": pl.String, "language": pl.String}
    return pl.concat([pl.DataFrame(schema=schema), *(store.read_frame(file, list(schema)) for file in files)])


def read_embeddings(store: Store, version: Version) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(num_records, dim) float32, in the order of ``read_records``."""
    parts = []
    for entry in manifests.read(store, version)["shards"]:
        embedded = store.read_frame(_file(entry, "embedding"))
        if embedded.height > entry["selection"]["num_rows"]:
            # Semantic duplicates leave by their vectors, after these were stored.
            kept = store.read_frame(_file(entry, "selection"), ["id"])["id"]
            embedded = embedded.filter(pl.col("id").is_in(kept.implode()))
        vectors = embedded["vector"]
        if len(vectors):
            width = int(vectors.list.len()[0])
            parts.append(vectors.list.explode().to_numpy().reshape(-1, width))
    return np.concatenate(parts).astype(np.float32, copy=False)


def has_embeddings(store: Store, version: Version) -> bool:
    """Whether the version's records have vectors."""
    return all("embedding" in entry for entry in manifests.read(store, version)["shards"])


def embeddings_of(store: Store, version: Version, ids: pl.Series) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(n, dim) float32 of some records of the version, by id (n,)."""
    entries = manifests.read(store, version)["shards"]
    of = pl.concat([store.read_frame(_file(entry, "selection"), ["id"]) for entry in entries]).with_row_index("place")
    places = pl.DataFrame({"id": ids}).join(of, on="id", how="left", maintain_order="left")["place"]
    chosen: np.ndarray[Any, np.dtype[np.float32]] = read_embeddings(store, version)[places.to_numpy()]
    return chosen
