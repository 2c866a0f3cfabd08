"""Edit: a stage before all others, in which a recipe changes texts; a unit a text shard.

Later stages read the changed shard instead, by way of ``dedup.all_shards``. Rows and ids stay as they are.
"""

from typing import Any

import polars as pl
from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog.store import StoredFile
from catalog.tables.engine import Run, Unit
from curation.edits import CHANGES, apply, count_changes
from workers.edits import KIND, STAGE, measuring_run
from workers.engine import UnitResult
from workers.execution import UnitContext
from workers.pipelines import Stage
from workers.pipelines.dedup import ingested_shards, plan_measure, recipe_of
from workers.pipelines.reuse import taken_over

BATCH_ROWS = 1_000


def _plan(session: Session, run: Run) -> list[dict[str, Any]]:
    return plan_measure(session, run) if run.config["recipe"].get("edit") else []


def _edit(unit: UnitContext) -> UnitResult:
    """The texts of one shard as the recipe's edits leave them, and what was changed, by record."""
    if (done := taken_over(unit)) is not None:
        return done
    recipe, entry = recipe_of(unit), ingested_shards(unit)[unit.claim.payload["index"]]
    frame = unit.store.read_frame(StoredFile.from_json(entry["data"]))
    texts, found = [pl.Series("text", [], dtype=pl.String)], [pl.DataFrame(schema=CHANGES)]
    for first in range(0, frame.height, BATCH_ROWS):
        unit.progress(first, frame.height)
        after, changes = apply(frame["text"].slice(first, BATCH_ROWS), recipe.edit)
        texts.append(after.alias("text"))
        found.append(changes.with_columns(pl.col("row") + pl.lit(first, pl.UInt32)))
        unit.check()
    after, changes = pl.concat(texts), pl.concat(found)
    differ = int((after != frame["text"]).sum())
    shards = []
    written = None
    if differ:
        written = unit.store.write_frame(frame.with_columns(text=after), "text")
        shards.append(("text", written))
    if changes.height and "of" not in entry:
        by_record = changes.select(frame["id"].gather(changes["row"]), pl.exclude("row"))
        shards.append((KIND, unit.store.write_frame(by_record, KIND)))
    own = "of" not in entry
    return UnitResult(
        result={
            "text": written and written.to_json(),
            "changed": differ if own else 0,
            "emptied": int((after == "").sum()) if own else 0,
            "counts": count_changes(changes) if own else [],
        },
        shards=shards,
    )


def summary(unit: UnitContext) -> dict[str, Any]:
    """What was changed, under ``edits``: ``changed`` and ``emptied`` records, and ``counts`` by edit and reason."""
    if not unit.claim.config["recipe"].get("edit"):
        return {}
    with unit.catalog.read() as session:
        of_stage = (Unit.run_id == measuring_run(session, unit.claim.run_id), Unit.stage_name == STAGE)
        query = select(Unit.result).where(*of_stage)
        results = [result or {} for result in session.scalars(query)]
    totals: dict[tuple[str, str], dict[str, Any]] = {}
    for one in (count for result in results for count in result["counts"]):
        key = (one["edit"], one["reason"])
        into = totals.setdefault(key, {"edit": key[0], "reason": key[1], "changes": 0, "records": 0, "characters": 0})
        for name in ("changes", "records", "characters"):
            into[name] += one[name]
    return {
        "edits": {
            "changed": sum(result["changed"] for result in results),
            "emptied": sum(result["emptied"] for result in results),
            "counts": sorted(totals.values(), key=lambda one: (-one["changes"], one["edit"], one["reason"])),
        }
    }


STAGES = (Stage(name=STAGE, plan=_plan, work=_edit),)
