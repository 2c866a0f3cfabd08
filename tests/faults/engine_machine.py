"""The job engine against a model of it small enough to read, over random acts of workers, brokers, sweepers and people.

A worker here is a claim that somebody once held: it may act on it at any later time, as one that was stopped and wakes
up would. The broker is a list that may repeat, forget and reorder. The clock is the test's.
"""

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import delete, func, select

from catalog.database import Catalog
from catalog.errors import ConflictError
from catalog.store import Store, StoredFile
from catalog.tables import metadata
from catalog.tables.curation import Verdict
from catalog.tables.datasets import Dataset, Shard
from catalog.tables.engine import Outbox, Run, Unit, UnitLog
from tests.workers.building import add_dataset
from workers import engine, outbox, runs, sweeping
from workers.engine import Claim, LostClaimError, UnitResult
from workers.pipelines import Pipeline, Stage, single

KIND = "machine"
WIDTH = 2
KEYS = ("one", "two")
LEASE = timedelta(seconds=60)
MAX_ATTEMPTS = 3
ENOUGH_ROUNDS = 40
"""More than any run needs to end once nothing goes wrong any more."""


def _no_work(_unit: Any) -> UnitResult:
    raise AssertionError("the machine does the work itself")


PIPELINE = Pipeline(
    stages=(
        Stage(name="spread", plan=lambda _session, _run: [{"index": n} for n in range(WIDTH)], work=_no_work),
        Stage(name="nothing", plan=lambda _session, _run: [], work=_no_work),
        Stage(name="finish", plan=single, work=_no_work),
    )
)
UNITS_OF_STAGE = (WIDTH, 0, 1)


@dataclass
class UnitModel:
    """What a unit's row should say."""

    run: str
    state: str = "ready"
    epoch: int = 0
    attempts: int = 0
    lease_until: datetime | None = None
    num_commits: int = 0

    @property
    def told(self) -> tuple[str, int, int]:
        """As the row has it."""
        return self.state, self.epoch, self.attempts

    def free(self, *, attempts: int) -> None:
        """Nobody's again."""
        self.state, self.attempts, self.lease_until = "ready", attempts, None


@dataclass
class RunModel:
    """What a run's row should say."""

    state: str = "running"
    stage: int = 0
    paused: bool = False
    priority: int = 0
    units: list[list[str]] = field(default_factory=lambda: [[] for _ in UNITS_OF_STAGE])


class EngineMachine(RuleBasedStateMachine):
    """Every act on the real engine is done to the model too, and both must say the same."""

    def __init__(self, catalog: Catalog) -> None:
        super().__init__()
        self.catalog = catalog
        self.store = Store.of(catalog.settings)
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        catalog.clock = lambda _session: self.now
        self.runs: dict[str, RunModel] = {}
        self.units: dict[str, UnitModel] = {}
        self.broker: list[str] = []
        self.claims: list[Claim] = []

    @initialize()
    def begin(self) -> None:
        with self.catalog.write() as session:
            for table in (Verdict, Shard, Outbox, UnitLog, Unit, Run, Dataset):
                session.execute(delete(table))
            self.dataset_id = add_dataset(session).id
        # Where mistakes are near: units that somebody has, and units of two runs that nobody has.
        self.submit(KEYS[0])
        self._claim(next(iter(self.units)))
        self.submit(KEYS[1])

    # People.

    @rule(key=st.sampled_from(KEYS))
    def submit(self, key: str) -> None:
        # Of runs alike the older comes first, and the same acts must do the same again.
        self.now += timedelta(milliseconds=1)
        with self.catalog.write() as session:
            run, state = runs.submit(
                session,
                now=self.now,
                kind=KIND,
                dataset_id=self.dataset_id,
                version_id=None,
                config={},
                idempotency_key=key,
            )
            run_id = run.id
        model = self.runs.get(run_id)
        if model is None:
            assert state == "new"
            self.runs[run_id] = model = RunModel()
            self._learn_units(run_id)
        elif model.state in ("failed", "cancelled"):
            assert state == "resumed"
            self._set_going(run_id)
        else:
            assert state == model.state
        assert len(self.runs) <= len(KEYS)

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        run_id = data.draw(st.sampled_from(list(self.runs)))
        model = self.runs[run_id]
        try:
            with self.catalog.write() as session:
                runs.cancel(session, session.get_one(Run, run_id), self.now)
        except ConflictError:
            assert model.state != "running"
            return
        assert model.state == "running"
        model.state = "cancelled"
        for unit in self._units_of(run_id):
            if unit.state in ("ready", "running"):
                unit.state, unit.lease_until = "cancelled", None

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def pause(self, data: st.DataObject) -> None:
        run_id = data.draw(st.sampled_from(list(self.runs)))
        model = self.runs[run_id]
        try:
            with self.catalog.write() as session:
                runs.pause(session.get_one(Run, run_id), self.now)
        except ConflictError:
            assert model.state != "running"
            return
        assert model.state == "running"
        model.paused = True

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        self._resume(data.draw(st.sampled_from(list(self.runs))))

    def _resume(self, run_id: str) -> None:
        model = self.runs[run_id]
        try:
            with self.catalog.write() as session:
                runs.resume(session, session.get_one(Run, run_id), self.now)
        except ConflictError:
            assert model.state == "done" or (model.state == "running" and not model.paused)
            return
        if model.state == "running":
            assert model.paused
            model.paused = False
        else:
            assert model.state in ("failed", "cancelled")
            self._set_going(run_id)

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), priority=st.integers(-1, 1))
    def steer(self, data: st.DataObject, priority: int) -> None:
        run_id = data.draw(st.sampled_from(list(self.runs)))
        model = self.runs[run_id]
        try:
            with self.catalog.write() as session:
                runs.steer(session, session.get_one(Run, run_id), self.now, priority=priority)
        except ConflictError:
            assert model.state != "running"
            return
        assert model.state == "running"
        model.priority = priority

    def _set_going(self, run_id: str) -> None:
        self.runs[run_id].state, self.runs[run_id].paused = "running", False
        for unit in self._units_of(run_id):
            if unit.state != "done":
                unit.free(attempts=0)

    # The broker.

    @rule(marked=st.booleans())
    def relay(self, marked: bool) -> None:
        """Send everything; who dies before marking it as sent sends it twice."""
        messages = outbox.unsent(self.catalog)
        # Some of them stand in the order of random ids, and the same acts must do the same again.
        order = {unit_id: place for place, unit_id in enumerate(self.units)}
        self.broker += sorted((message.args[0] for message in messages), key=lambda one: order.get(one, 99))
        if marked:
            outbox.mark_sent(self.catalog, *[message.id for message in messages])

    @precondition(lambda self: self.broker)
    @rule(data=st.data(), lost=st.booleans())
    def lose(self, data: st.DataObject, lost: bool) -> None:
        """Forget one message, or all of them."""
        if lost:
            self.broker.clear()
        else:
            self.broker.pop(data.draw(st.integers(0, len(self.broker) - 1)))

    # Workers.

    @precondition(lambda self: self.broker)
    @rule(data=st.data(), repeated=st.booleans())
    def deliver(self, data: st.DataObject, repeated: bool) -> None:
        """A worker takes any message; perhaps another will get the same."""
        at = data.draw(st.integers(0, len(self.broker) - 1))
        self._claim(self.broker[at] if repeated else self.broker.pop(at))

    @precondition(lambda self: self.units)
    @rule(data=st.data())
    def deliver_late(self, data: st.DataObject) -> None:
        """A message of long ago, about whatever unit."""
        self._claim(data.draw(st.sampled_from(list(self.units))))

    @precondition(lambda self: self.runs)
    @rule()
    def work(self) -> None:
        """An honest worker, so that runs come further than their first stage."""
        self.relay(marked=True)
        mine = self._claim(self.broker.pop(0)) if self.broker else None
        if mine is not None:
            assert self._commit(mine)

    @precondition(lambda self: self.units)
    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        """A worker asks what comes first; the message that woke it is a hint."""
        ready = [name for name, unit in self.units.items() if unit.state == "ready" and self._is_claimable(unit)]
        among = ready if ready and data.draw(st.booleans()) else list(self.units)
        hint = data.draw(st.sampled_from(among))
        mine = engine.take(self.catalog, hint, f"elsewhere/host/{len(self.claims)}/0.00")
        if mine is None:
            assert not ready
            assert not self._is_claimable(self.units[hint])
            return
        most = max((self._priority(name) for name in ready), default=None)
        if mine.unit_id == hint:
            assert self._is_claimable(self.units[hint])
            assert most is None or self._priority(hint) >= most
        else:
            assert mine.unit_id in ready
            assert self._priority(mine.unit_id) == most
            assert not self._is_claimable(self.units[hint]) or self._priority(hint) < most
        self._has_claimed(mine)

    def _claim(self, unit_id: str) -> Claim | None:
        expected = self._is_claimable(self.units[unit_id])
        mine = engine.claim(self.catalog, unit_id, f"elsewhere/host/{len(self.claims)}/0.00")
        assert (mine is not None) == expected
        if mine is not None:
            self._has_claimed(mine)
        return mine

    def _is_claimable(self, unit: UnitModel) -> bool:
        expired = unit.lease_until is not None and unit.lease_until < self.now
        return (
            (unit.state == "ready" or (unit.state == "running" and expired))
            and unit.attempts < MAX_ATTEMPTS
            and self.runs[unit.run].state == "running"
            and not self.runs[unit.run].paused
        )

    def _priority(self, unit_id: str) -> int:
        return self.runs[self.units[unit_id].run].priority

    def _has_claimed(self, mine: Claim) -> None:
        unit = self.units[mine.unit_id]
        unit.state, unit.lease_until = "running", self.now + LEASE
        unit.epoch, unit.attempts = unit.epoch + 1, unit.attempts + 1
        assert (mine.epoch, mine.attempts) == (unit.epoch, unit.attempts)
        self.claims.append(mine)

    def _draw(self, data: st.DataObject) -> tuple[Claim, UnitModel, bool]:
        """A claim of any time, its unit, and whether it still holds. Most do not, so those that do come more often."""
        holding = [mine for mine in self.claims if self._holds(mine)]
        among = holding if holding and data.draw(st.booleans()) else self.claims
        mine = among[-1 - data.draw(st.integers(0, len(among) - 1))]
        return mine, self.units[mine.unit_id], self._holds(mine)

    def _holds(self, mine: Claim) -> bool:
        unit = self.units[mine.unit_id]
        return (unit.state, unit.epoch) == ("running", mine.epoch)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def heartbeat(self, data: st.DataObject) -> None:
        mine, unit, holds = self._draw(data)
        expected = holds and self.runs[unit.run].state == "running"
        assert self._allowed(lambda: engine.renew(self.catalog, mine, 1, 2)) == expected
        if expected:
            unit.lease_until = self.now + LEASE

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def oversleep(self, data: st.DataObject) -> None:
        """Another takes over what a worker held past its lease; both may yet act."""
        mine, _unit, holds = self._draw(data)
        if holds:
            self.wait(61)
            self._claim(mine.unit_id)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        mine, unit, holds = self._draw(data)
        assert self._commit(mine) == holds, f"epoch {mine.epoch} of {unit}"

    def _commit(self, mine: Claim) -> bool:
        """A worker's end, whenever it comes to it; whether it counted."""
        unit = self.units[mine.unit_id]
        file = self.store.write_json({"unit": mine.unit_id, "epoch": mine.epoch}, "machine")
        # Under a name of its own, so that a commit which should not have been leaves a second row.
        row = pl.DataFrame(
            {
                "run_id": [mine.run_id],
                "record_id": [uuid.uuid4().hex],
                "kept": [True],
                "reason": [mine.unit_id],
                "failed": ["[]"],
                "measured": ["{}"],
                "scores": ["{}"],
            }
        )
        outcome = UnitResult(
            result={"epoch": mine.epoch}, shards=[("machine", file)], rows=[(metadata.tables["verdicts"], row)]
        )
        if not self._allowed(lambda: engine.commit(self.catalog, mine, outcome)):
            return False
        unit.state, unit.lease_until = "done", None
        unit.num_commits += 1
        self._advance(unit.run)
        return True

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), retry=st.booleans())
    def fail(self, data: st.DataObject, retry: bool) -> None:
        mine, unit, holds = self._draw(data)
        assert self._allowed(lambda: engine.fail(self.catalog, mine, "no", retry=retry)) == holds
        if not holds:
            return
        if retry and unit.attempts < MAX_ATTEMPTS:
            unit.free(attempts=unit.attempts)
        else:
            self._poison(unit)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        mine, unit, holds = self._draw(data)
        assert self._allowed(lambda: engine.give_back(self.catalog, mine)) == holds
        if holds:
            unit.free(attempts=unit.attempts - 1)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def take_back(self, data: st.DataObject) -> None:
        """A supervisor has killed a worker that would not stop."""
        mine, unit, holds = self._draw(data)
        owner = f"elsewhere/host/{self.claims.index(mine)}/0.00"
        assert engine.take_back(self.catalog, owner) == int(holds)
        if holds:
            unit.free(attempts=unit.attempts - 1)

    # Time and the sweeper.

    @rule(seconds=st.sampled_from([1, 11, 61, 61]))
    def wait(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(idle=st.booleans())
    def sweep(self, idle: bool) -> None:
        expired = [
            unit
            for unit in self.units.values()
            if unit.state == "running" and self.runs[unit.run].state == "running" and unit.lease_until < self.now
        ]
        report = sweeping.sweep(self.catalog, idle=idle)
        assert (report.recovered + report.poisoned) == len(expired)
        for unit in expired:
            if unit.attempts >= MAX_ATTEMPTS:
                self._poison(unit)
            else:
                unit.free(attempts=unit.attempts)
        assert idle or report.resent == 0

    # What must always hold.

    @invariant()
    def rows_are_those_of_the_model(self) -> None:
        if not hasattr(self, "dataset_id"):
            return
        with self.catalog.read() as session:
            found = {row.id: row for row in session.scalars(select(Unit))}
            states = {row.id: (row.state, row.stage) for row in session.scalars(select(Run))}
        assert {key: (row.state, row.epoch, row.attempts) for key, row in found.items()} == {
            key: unit.told for key, unit in self.units.items()
        }
        assert states == {key: (run.state, run.stage) for key, run in self.runs.items()}

    @invariant()
    def every_done_unit_was_committed_once_and_has_its_file(self) -> None:
        if not hasattr(self, "dataset_id"):
            return
        with self.catalog.read() as session:
            commits = {
                row.reason: row.num
                for row in session.execute(select(Verdict.reason, func.count().label("num")).group_by(Verdict.reason))
            }
            files = {row.unit_id: row for row in session.execute(select(Shard.unit_id, Shard.name, Shard.sha256))}
            num_files = session.scalar(select(func.count()).select_from(Shard))
        done = {key for key, unit in self.units.items() if unit.state == "done"}
        assert commits == dict.fromkeys(done, 1)
        assert files.keys() == done
        assert num_files == len(done)
        for row in files.values():
            self.store.read_json(StoredFile(name=row.name, sha256=row.sha256, size_bytes=0))

    def teardown(self) -> None:
        """With every message lost and every worker gone, each run that is running still comes to its end."""
        if not hasattr(self, "dataset_id"):
            return
        self.broker.clear()
        for run_id, run in self.runs.items():
            if run.paused and run.state == "running":
                self._resume(run_id)
        with self.catalog.write() as session:
            session.execute(delete(Outbox))
        for _ in range(ENOUGH_ROUNDS):
            if all(run.state != "running" for run in self.runs.values()):
                break
            self.wait(61)
            self.sweep(idle=True)
            self.relay(marked=True)
            for unit_id in self.broker:
                mine = self._claim(unit_id)
                if mine is not None:
                    assert self._commit(mine)
            self.broker.clear()
        self.rows_are_those_of_the_model()
        self.every_done_unit_was_committed_once_and_has_its_file()
        for run_id, run in self.runs.items():
            left = {unit.state for unit in self._units_of(run_id)}
            assert run.state != "running", "it never ended"
            assert (run.state == "done") == (left == {"done"})
            assert run.state != "failed" or "poisoned" in left

    # The rest of the model.

    def _allowed(self, act: Any) -> bool:
        try:
            act()
        except LostClaimError:
            return False
        return True

    def _units_of(self, run_id: str) -> list[UnitModel]:
        return [unit for unit in self.units.values() if unit.run == run_id]

    def _poison(self, unit: UnitModel) -> None:
        unit.state, unit.lease_until = "poisoned", None
        run = self.runs[unit.run]
        if run.state == "running":
            run.state = "failed"

    def _advance(self, run_id: str) -> None:
        run = self.runs[run_id]
        if run.state != "running":
            return
        while all(self.units[unit_id].state == "done" for unit_id in run.units[run.stage]):
            if run.stage == len(UNITS_OF_STAGE) - 1:
                run.state = "done"
                return
            run.stage += 1
            self._learn_units(run_id)

    def _learn_units(self, run_id: str) -> None:
        """The ids that the engine has given to a stage's units; how many there must be is known."""
        run = self.runs[run_id]
        with self.catalog.read() as session:
            query = select(Unit.id).where(Unit.run_id == run_id, Unit.stage == run.stage).order_by(Unit.position)
            run.units[run.stage] = list(session.scalars(query))
        assert len(run.units[run.stage]) == UNITS_OF_STAGE[run.stage]
        for unit_id in run.units[run.stage]:
            self.units[unit_id] = UnitModel(run_id)
