"""A job kind without files for tests in one process: quick enough to be done hundreds of times."""

import uuid
from collections.abc import Callable
from typing import Any

import polars as pl
from sqlalchemy import func, select

from catalog.database import Catalog
from catalog.store import StoredFile
from catalog.tables import metadata
from catalog.tables.curation import Verdict
from catalog.tables.engine import Run, Unit
from tests.workers.building import add_dataset
from workers import runs
from workers.engine import UnitResult
from workers.execution import UnitContext
from workers.pipelines import PIPELINES, Pipeline, Stage, single

KIND = "toy of faults"
WIDTH = 4


class Toys:
    """Runs of the kind on one catalog.

    Parameters
    ----------
    catalog : with every table.
    """

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.started: list[tuple[str, int]] = []
        """Unit and epoch of each time that work was begun."""
        self.during: Callable[[UnitContext], None] = lambda _unit: None
        PIPELINES.register(KIND)(
            Pipeline(
                stages=(
                    Stage(name="spread", plan=lambda _session, _run: [{}] * WIDTH, work=self._spread),
                    Stage(name="finish", plan=single, work=lambda unit: UnitResult(result={"of": unit.claim.run_id})),
                )
            )
        )

    def close(self) -> None:
        """Forget the kind."""
        del PIPELINES._members[KIND]

    def _spread(self, unit: UnitContext) -> UnitResult:
        self.started.append((unit.claim.unit_id, unit.claim.epoch))
        self.during(unit)
        # Under a name of its own: what is committed twice are two rows.
        row = {
            "run_id": unit.claim.run_id,
            "record_id": uuid.uuid4().hex,
            "kept": True,
            "reason": unit.claim.unit_id,
            "failed": "[]",
            "measured": "{}",
            "scores": "{}",
        }
        # No file is behind it: its row alone matters, which refers to the run's.
        shard = StoredFile(name="toy", sha256="0" * 64, size_bytes=1)
        return UnitResult(shards=[("toy", shard)], rows=[(metadata.tables["verdicts"], pl.DataFrame([row]))])

    def ask(self, key: str) -> str:
        """Ask for a run; the same key again is the same run."""
        with self.catalog.write() as session:
            dataset_id = session.scalars(select(Run.dataset_id)).first() or add_dataset(session).id
            run, _ = runs.submit(
                session,
                now=self.catalog.now(session),
                kind=KIND,
                dataset_id=dataset_id,
                version_id=None,
                config={},
                idempotency_key=key,
            )
            return run.id

    def state(self, run_id: str) -> str:
        """Of a run."""
        with self.catalog.read() as session:
            return session.get_one(Run, run_id).state

    def unit_ids(self, run_id: str) -> list[str]:
        """Of the first stage."""
        with self.catalog.read() as session:
            query = select(Unit.id).where(Unit.run_id == run_id, Unit.stage == 0).order_by(Unit.position)
            return list(session.scalars(query))

    def units(self, run_id: str) -> list[Unit]:
        """All rows."""
        with self.catalog.read() as session:
            return list(session.scalars(select(Unit).where(Unit.run_id == run_id).order_by(Unit.stage, Unit.position)))

    def commits(self, run_id: str) -> dict[str, int]:
        """How often each unit of the first stage was committed."""
        query = select(Verdict.reason, func.count().label("num")).where(Verdict.run_id == run_id)
        with self.catalog.read() as session:
            return {str(row.reason): row.num for row in session.execute(query.group_by(Verdict.reason))}

    def check_done(self, run_id: str) -> dict[str, Any]:
        """The oracle: done, each unit once."""
        assert self.state(run_id) == "done"
        units = self.units(run_id)
        assert [one.state for one in units] == ["done"] * (WIDTH + 1)
        assert self.commits(run_id) == dict.fromkeys(self.unit_ids(run_id), 1)
        return {one.id: one.epoch for one in units}
