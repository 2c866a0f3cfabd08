"""Many at once, late ones, and clocks that are wrong: nothing is done twice, and what has ended stays so."""

import random
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psutil
import pytest
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from catalog.bulk import upsert_frame
from catalog.database import Catalog
from catalog.errors import ConflictError
from catalog.tables.engine import Outbox, Run, Unit
from tests.faults.toys import WIDTH, Toys
from tests.workers.building import ME, at_once, drain
from workers import engine, process_names, runs, sweeping
from workers.engine import LostClaimError, UnitResult
from workers.execution import UnitContext, execute

NUM_STALE = 100
NUM_RACES = {"sqlite": 70, "postgresql": 30}
NUM_SWEEPERS = 3
ROUNDS = 10
ELSEWHERE = "elsewhere/host/1/0"


class Clock:
    """The database's clock, set by the test."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self, _session: Session) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def toys(database: Catalog) -> Iterator[Toys]:
    made = Toys(database)
    yield made
    made.close()


@pytest.fixture
def clock(database: Catalog) -> Clock:
    database.clock = made = Clock()
    return made


def test_of_a_hundred_late_commits_none_counts(database: Catalog, toys: Toys, clock: Clock) -> None:
    run_id = toys.ask("one")
    unit_id = toys.unit_ids(run_id)[0]
    refused = 0
    for _ in range(NUM_STALE):
        sleeper = engine.claim(database, unit_id, ELSEWHERE)
        assert sleeper is not None
        rows = toys._spread(UnitContext(database, sleeper)).rows
        clock.advance(61)
        other = engine.claim(database, unit_id, ELSEWHERE)
        assert other is not None
        with pytest.raises(LostClaimError):
            engine.commit(database, sleeper, UnitResult(rows=rows))
        refused += 1
        # Both were no fault of the unit's.
        engine.give_back(database, other)
        with database.write() as session:
            session.execute(update(Unit).where(Unit.id == unit_id).values(attempts=0))
    assert refused == NUM_STALE
    assert toys.commits(run_id) == {}
    drain(database)
    assert toys.check_done(run_id)[unit_id] == 2 * NUM_STALE + 1


def test_cancelling_while_units_are_worked_resurrects_nothing(database: Catalog, toys: Toys) -> None:
    rng = random.Random(3)
    ends = set()
    warm = toys.ask("undisturbed")
    began = time.monotonic()
    assert drain(database)[-1] == "done"
    seconds = time.monotonic() - began
    toys.check_done(warm)
    for number in range(NUM_RACES["sqlite" if database.is_sqlite else "postgresql"]):
        run_id = toys.ask(f"race {number}")
        units = toys.unit_ids(run_id)
        pause = rng.random() * seconds

        def cancel(run_id: str = run_id, pause: float = pause) -> bool:
            time.sleep(pause)
            try:
                with database.write() as session:
                    runs.cancel(session, session.get_one(Run, run_id), database.now(session))
            except ConflictError:
                return False
            return True

        outcomes, cancelled = at_once(
            lambda units=units: [execute(database, unit_id, ME()) for unit_id in units], cancel
        )
        state = toys.state(run_id)
        ends.add((cancelled, outcomes.count("done")))
        assert state == ("cancelled" if cancelled else "running")
        before = {one.id: (one.state, one.epoch) for one in toys.units(run_id)}
        if cancelled:
            assert {one for one, _ in before.values()} <= {"done", "cancelled"}
            # Every message that was ever sent about it comes once more, and every sweeper by.
            assert {execute(database, unit_id, ME()) for unit_id in before} == {"nothing"}
            sweeping.sweep(database, idle=True)
            drain(database)
            assert {one.id: (one.state, one.epoch) for one in toys.units(run_id)} == before
            assert toys.state(run_id) == "cancelled"
            assert toys.ask(f"race {number}") == run_id
        drain(database)
        toys.check_done(run_id)
    assert len(ends) > 3, f"the races all ended alike: {ends}"


def test_three_sweepers_at_once_repair_everything_once(database: Catalog, toys: Toys, clock: Clock) -> None:
    for number in range(ROUNDS):
        run_id = toys.ask(f"run {number}")
        for unit_id in toys.unit_ids(run_id):
            assert engine.claim(database, unit_id, ELSEWHERE) is not None
        with database.write() as session:
            session.execute(delete(Outbox))
        clock.advance(61)
        reports = at_once(*[lambda: sweeping.sweep(database, idle=False)] * NUM_SWEEPERS)
        assert sum(report.recovered for report in reports) == WIDTH
        with database.read() as session:
            assert session.scalar(select(func.count()).select_from(Outbox)) == WIDTH
        drain(database)
        toys.check_done(run_id)


def test_three_sweepers_at_once_plan_a_stage_that_nobody_has_planned_once(database: Catalog, toys: Toys) -> None:
    for number in range(ROUNDS):
        run_id = toys.ask(f"run {number}")
        with database.write() as session:
            session.execute(update(Unit).where(Unit.run_id == run_id).values(state="done"))
        at_once(*[lambda: sweeping.sweep(database, idle=False)] * NUM_SWEEPERS)
        assert [one.stage for one in toys.units(run_id)] == [0] * WIDTH + [1]
        assert drain(database).count("done") == 1
        assert toys.state(run_id) == "done"


def test_units_of_one_run_that_end_in_the_same_moment_do_not_wait_for_each_other(database: Catalog, toys: Toys) -> None:
    for number in range(ROUNDS):
        run_id = toys.ask(f"run {number}")
        claims = [engine.claim(database, unit_id, ME()) for unit_id in toys.unit_ids(run_id)]
        outcomes = [toys._spread(UnitContext(database, mine)) for mine in claims if mine is not None]
        at_once(
            *[
                lambda mine=mine, outcome=outcome: engine.commit(database, mine, outcome)
                for mine, outcome in zip(claims, outcomes, strict=True)
            ]
        )
        drain(database)
        assert set(toys.check_done(run_id).values()) == {1}


def test_process_outlives_a_correction_of_its_machines_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    me = ME()
    booted = psutil.boot_time()
    for hours in (-1, 1):
        monkeypatch.setattr(psutil._psplatform, "boot_time", lambda hours=hours: booted + 3600 * hours)
        assert ME() == me
        assert not process_names.is_gone(me)


@pytest.mark.parametrize("hours", [-1, 1])
def test_clock_of_a_worker_has_no_say_in_leases(
    database: Catalog, toys: Toys, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600 * hours)
    run_id = toys.ask("one")
    unit_id, *others = toys.unit_ids(run_id)
    mine = engine.claim(database, unit_id, ELSEWHERE)
    assert mine is not None
    assert engine.claim(database, unit_id, ELSEWHERE) is None
    assert sweeping.sweep(database, idle=True).recovered == 0
    engine.renew(database, mine, 1, 2)
    with database.read() as session:
        left = session.get_one(Unit, unit_id).lease_until - database.now(session)  # type: ignore[operator]
    assert 50 < left.total_seconds() <= 60
    for other in others:
        assert execute(database, other, ME()) == "done"
    engine.commit(database, mine, toys._spread(UnitContext(database, mine)))
    drain(database)
    toys.check_done(run_id)


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_rows_on_their_way_survive_a_worker_whose_clock_is_ahead(
    database: Catalog, toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = toys.ask("one")
    first, second, *_ = (engine.claim(database, unit_id, ME()) for unit_id in toys.unit_ids(run_id))
    assert first is not None
    assert second is not None
    (mine,) = toys._spread(UnitContext(database, first)).rows
    (theirs,) = toys._spread(UnitContext(database, second)).rows
    staged, dropped = threading.Event(), threading.Event()
    real_time, real_insert = time.time, Session.execute

    def insert(session: Session, statement: object, *given: object, **options: object) -> object:
        if threading.current_thread().name == "slow" and str(statement).startswith("INSERT INTO"):
            staged.set()
            assert dropped.wait(20)
        return real_insert(session, statement, *given, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(Session, "execute", insert)

    def slow() -> None:
        with database.write() as session:
            upsert_frame(session, *mine)

    thread = threading.Thread(target=slow, name="slow")
    thread.start()
    assert staged.wait(20)
    monkeypatch.setattr(time, "time", lambda: real_time() + 2 * 3600)
    with database.write() as session:
        upsert_frame(session, *theirs)
    dropped.set()
    thread.join()
    assert sum(toys.commits(run_id).values()) == 2
