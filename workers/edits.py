"""What a run's edits changed: the texts as they are judged, and the changes of one record."""

from typing import Any

import polars as pl
from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog.store import Store, StoredFile
from catalog.tables.engine import Run, Unit
from workers import manifests

STAGE = "edit"
KIND = "changes"


def measuring_run(session: Session, run_id: str) -> str:
    """The run whose edited texts and measured values a run judges by: its own, or those that a what-if goes back to."""
    run = session.get_one(Run, run_id)
    return str(run.config["of"]) if run.kind == "what_if" else run_id


def edited_files(session: Session, run_id: str) -> dict[int, StoredFile]:
    """The text shards that a run's edits changed, by the shard's place among those that the run reads."""
    of_stage = (Unit.run_id == measuring_run(session, run_id), Unit.stage_name == STAGE)
    results = session.execute(select(Unit.position, Unit.result).where(*of_stage)).all()
    return {place: StoredFile.from_json(result["text"]) for place, result in results if result and result["text"]}


def changes_of(session: Session, store: Store, run: Run, record_id: str) -> list[dict[str, Any]]:
    """What the run's edits changed in a record: ``edit``, ``reason``, ``start``, ``end``, ``before`` and ``after``.

    Positions are characters of the text as the edit found it, which the first edit found as it was ingested.
    """
    found: list[dict[str, Any]] = []
    for file in manifests.run_files(session, measuring_run(session, run.id), KIND):
        found += store.read_frame(file).filter(pl.col("id") == record_id).drop("id").to_dicts()
    return found


def text_as_judged(session: Session, store: Store, run: Run, record_id: str, text: str) -> str:
    """A record's text after the run's edits.

    Parameters
    ----------
    text : as it was ingested.
    """
    if not run.config.get("recipe", {}).get("edit"):
        return text
    for file in edited_files(session, run.id).values():
        row = store.read_frame(file, ["id", "text"]).filter(pl.col("id") == record_id)
        if row.height:
            return str(row["text"][0])
    return text
