"""A job kind of these tests: the smallest that reads shards, writes some, gives verdicts and publishes a version."""

from typing import Any

import polars as pl
from sqlalchemy.orm import Session

from catalog.database import Catalog
from catalog.store import StoredFile
from catalog.tables import metadata
from catalog.tables.datasets import Version
from catalog.tables.engine import Run
from workers import manifests, runs
from workers.engine import UnitResult
from workers.execution import UnitContext
from workers.pipelines import PIPELINES, Pipeline, Stage, single
from workers.pipelines.outputs import entries, outputs

KIND = "judge"
MIN_CHARS = 10


def submit_judge(catalog: Catalog, dataset: str) -> str:
    """Ask for every record of the newest raw version to be judged by its length; the run's id."""
    with catalog.write() as session:
        found = manifests.find_dataset(session, dataset)
        version = manifests.require_version(session, found, "raw")
        run, _ = runs.submit(
            session,
            now=catalog.now(session),
            kind=KIND,
            dataset_id=found.id,
            version_id=version.id,
            config={"manifest": version.manifest_sha256},
            idempotency_key=runs.digest({KIND: version.id}),
        )
        return run.id


def _plan(session: Session, run: Run) -> list[dict[str, Any]]:
    return [{"index": index} for index in range(session.get_one(Version, run.version_id).num_shards)]


def _judge(unit: UnitContext) -> UnitResult:
    entry = entries(unit)[unit.claim.payload["index"]]
    frame = unit.store.read_frame(StoredFile.from_json(entry["data"]), ["id", "text"])
    unit.progress(0, frame.height)
    kept = frame["text"].str.len_chars() >= MIN_CHARS
    verdicts = frame.select(
        run_id=pl.lit(unit.claim.run_id),
        record_id="id",
        kept=kept,
        reason=pl.when(kept).then(None).otherwise(pl.lit("too_short")),
        failed=pl.when(kept).then(pl.lit("[]")).otherwise(pl.lit('["too_short"]')),
        measured=pl.lit("{}"),
        scores=pl.lit("{}"),
    )
    selection = pl.DataFrame({"row": pl.arange(frame.height, eager=True).filter(kept)})
    unit.progress(frame.height, frame.height)
    return UnitResult(
        shards=[("selection", unit.store.write_frame(selection, "selection"))],
        rows=[(metadata.tables["verdicts"], verdicts)],
    )


def _publish(unit: UnitContext) -> UnitResult:
    selections = outputs(unit, "judge", "selection")
    kept = [
        entry | {"selection": selection.to_json()}
        for entry, selection in zip(entries(unit), selections, strict=True)
        if selection.num_rows
    ]
    manifest = manifests.write(unit.store, unit.catalog, unit.claim.dataset_id, "curated", kept)
    publish = manifests.publisher(
        unit.claim, manifest, kind="curated", parent_id=unit.claim.version_id, entries=kept, summary={}
    )
    return UnitResult(result={"kept": sum(one.num_rows for one in selections)}, apply=publish)


PIPELINE = Pipeline(
    stages=(Stage(name="judge", plan=_plan, work=_judge), Stage(name="publish", plan=single, work=_publish))
)


def register() -> None:
    """Make the kind known in this process; again changes nothing."""
    PIPELINES.register(KIND)(PIPELINE)


def forget() -> None:
    """Make it unknown again."""
    PIPELINES._members.pop(KIND, None)
