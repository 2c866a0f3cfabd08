"""Exactly-once effects over at-least-once delivery, on both databases."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from catalog.database import Catalog
from catalog.errors import ConflictError, DataError, NotFoundError, TransientError
from catalog.tables import metadata
from catalog.tables.curation import Verdict
from catalog.tables.engine import Outbox, Run, Unit
from tests.workers.building import ME, add_dataset, at_once, drain
from workers import engine, process_names, runs, sweeping
from workers.engine import LostClaimError, UnitResult
from workers.execution import UnitContext, execute
from workers.pipelines import PIPELINES, Pipeline, Stage, single
from workers.stopping import STOPPING

STRANGER = "elsewhere/host/1/0.00"
WIDTH = 4
ROUNDS = 10


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self, _session: Session) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class Toy:
    """What the toy job does next, and how often it was done."""

    def __init__(self) -> None:
        self.worked: list[int] = []
        self.raises: Exception | None = None
        self.during: threading.Event | None = None

    def work(self, unit: UnitContext) -> UnitResult:
        index = unit.claim.payload["index"]
        self.worked.append(index)
        unit.progress(1, 2)
        if self.raises is not None:
            raise self.raises
        rows = pl.DataFrame(
            {
                "run_id": [unit.claim.run_id],
                "record_id": [f"{index:034d}"],
                "kept": [True],
                "reason": [None],
                "failed": ["[]"],
                "measured": ["{}"],
                "scores": ["{}"],
            },
            schema_overrides={"reason": pl.String},
        )
        return UnitResult(result={"index": index}, rows=[(metadata.tables["verdicts"], rows)])

    def finish(self, unit: UnitContext) -> UnitResult:
        self.worked.append(-1)
        return UnitResult(result={"finished": unit.claim.run_id})


TOY = Toy()
TOY_PIPELINE = Pipeline(
    stages=(
        Stage(
            name="spread",
            plan=lambda _session, _run: [{"index": index} for index in range(WIDTH)],
            work=lambda unit: TOY.work(unit),
        ),
        Stage(name="finish", plan=single, work=lambda unit: TOY.finish(unit)),
    )
)


@pytest.fixture(scope="module", autouse=True)
def toy_kind() -> Iterator[None]:
    """A job kind for these tests alone."""
    PIPELINES.register("toy")(TOY_PIPELINE)
    yield
    del PIPELINES._members["toy"]


@pytest.fixture(autouse=True)
def toy() -> Iterator[Toy]:
    TOY.__init__()  # type: ignore[misc]
    yield TOY
    STOPPING.clear()


@pytest.fixture
def clock(database: Catalog) -> Clock:
    database.clock = Clock()
    return database.clock


@pytest.fixture
def run_id(database: Catalog, clock: Clock) -> str:
    with database.write() as session:
        dataset = add_dataset(session)
        run, state = runs.submit(
            session,
            now=clock.now,
            kind="toy",
            dataset_id=dataset.id,
            version_id=None,
            config={},
            idempotency_key="the toy",
        )
        assert state == "new"
        return run.id


def unit_ids(catalog: Catalog) -> list[str]:
    with catalog.read() as session:
        return list(session.scalars(select(Unit.id).where(Unit.stage == 0).order_by(Unit.position)))


def unit(catalog: Catalog, unit_id: str) -> Unit:
    with catalog.read() as session:
        return session.get_one(Unit, unit_id)


def run(catalog: Catalog, run_id: str) -> Run:
    with catalog.read() as session:
        return session.get_one(Run, run_id)


def num_verdicts(catalog: Catalog) -> int:
    with catalog.read() as session:
        return session.scalar(select(func.count()).select_from(Verdict)) or 0


def test_a_run_goes_through_its_stages(database: Catalog, run_id: str, toy: Toy) -> None:
    assert drain(database) == ["done"] * (WIDTH + 1)
    assert toy.worked == [*range(WIDTH), -1]
    ended = run(database, run_id)
    assert (ended.state, ended.result) == ("done", {"finished": run_id})
    assert num_verdicts(database) == WIDTH


def test_every_message_delivered_three_times_works_once(database: Catalog, run_id: str, toy: Toy) -> None:
    outcomes = drain(database, times=3)
    assert (outcomes.count("done"), outcomes.count("nothing")) == (WIDTH + 1, 2 * (WIDTH + 1))
    assert toy.worked == [*range(WIDTH), -1]
    assert num_verdicts(database) == WIDTH


def test_the_same_request_is_the_same_run(database: Catalog, run_id: str, clock: Clock) -> None:
    def again() -> tuple[str, str]:
        with database.write() as session:
            dataset_id = session.scalars(select(Run.dataset_id)).one()
            found, state = runs.submit(
                session,
                now=clock.now,
                kind="toy",
                dataset_id=dataset_id,
                version_id=None,
                config={},
                idempotency_key="the toy",
            )
            return found.id, state

    assert again() == (run_id, "running")
    drain(database)
    assert again() == (run_id, "done")


def test_only_one_of_many_claims_wins(database: Catalog, run_id: str) -> None:
    (first, *_) = unit_ids(database)
    barrier = threading.Barrier(8)
    won: list[engine.Claim] = []

    def compete() -> None:
        barrier.wait()
        mine = engine.claim(database, first, ME())
        if mine is not None:
            won.append(mine)

    threads = [threading.Thread(target=compete) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(mine.epoch, mine.attempts) for mine in won] == [(1, 1)]


def test_a_worker_that_overslept_cannot_commit(database: Catalog, run_id: str, clock: Clock) -> None:
    (first, *_) = unit_ids(database)
    sleeper = engine.claim(database, first, STRANGER)
    assert sleeper is not None
    clock.advance(61)
    other = engine.claim(database, first, ME())
    assert other is not None
    assert other.epoch == 2
    rows = TOY.work(UnitContext(database, sleeper)).rows
    with pytest.raises(LostClaimError):
        engine.commit(database, sleeper, UnitResult(result={"stale": True}, rows=rows))
    with pytest.raises(LostClaimError):
        engine.renew(database, sleeper, 0, 0)
    assert num_verdicts(database) == 0
    engine.commit(database, other, UnitResult(result={"fresh": True}, rows=rows))
    assert (unit(database, first).state, unit(database, first).result) == ("done", {"fresh": True})
    assert num_verdicts(database) == 1


def test_a_heartbeat_keeps_the_lease(database: Catalog, run_id: str, clock: Clock) -> None:
    (first, *_) = unit_ids(database)
    mine = engine.claim(database, first, STRANGER)
    assert mine is not None
    for _ in range(5):
        clock.advance(40)
        engine.renew(database, mine, 3, 9)
        assert engine.claim(database, first, ME()) is None
    assert (unit(database, first).num_done, unit(database, first).num_total) == (3, 9)


def test_the_sweeper_recovers_what_a_dead_worker_held(database: Catalog, run_id: str, clock: Clock, toy: Toy) -> None:
    (first, *_) = unit_ids(database)
    engine.claim(database, first, STRANGER)
    assert "nothing" in drain(database)
    assert run(database, run_id).state == "running"
    assert sweeping.sweep(database, idle=True).recovered == 0
    clock.advance(61)
    assert sweeping.sweep(database, idle=True).recovered == 1
    drain(database)
    assert run(database, run_id).state == "done"
    assert num_verdicts(database) == WIDTH


def test_a_dead_process_of_this_machine_is_not_waited_for(database: Catalog, run_id: str, clock: Clock) -> None:
    (first, *_) = unit_ids(database)
    host, namespace, _pid, _started = ME().rsplit("/", 3)
    engine.claim(database, first, f"{host}/{namespace}/999999999/1.00")
    assert process_names.is_gone(f"{host}/{namespace}/999999999/1.00")
    assert not process_names.is_gone(ME())
    assert not process_names.is_gone(STRANGER)
    assert sweeping.sweep(database, idle=False).recovered == 1


def test_lost_messages_are_sent_again_only_by_the_idle(database: Catalog, run_id: str, clock: Clock) -> None:
    with database.write() as session:
        for message in session.scalars(select(Outbox)):
            session.delete(message)
    clock.advance(11)
    assert sweeping.sweep(database, idle=False).resent == 0
    assert sweeping.sweep(database, idle=True).resent == WIDTH
    assert sweeping.sweep(database, idle=True).resent == 0
    drain(database)
    assert run(database, run_id).state == "done"


def test_a_unit_that_always_kills_its_worker_is_poisoned(database: Catalog, run_id: str, clock: Clock) -> None:
    (first, *_) = unit_ids(database)
    for _ in range(3):
        assert engine.claim(database, first, STRANGER) is not None
        clock.advance(61)
        sweeping.sweep(database, idle=False)
    poisoned = unit(database, first)
    assert poisoned.state == "poisoned"
    assert poisoned.reason == f"its worker died or went silent 3 times; last: {STRANGER}"
    assert engine.claim(database, first, ME()) is None
    ended = run(database, run_id)
    assert (ended.state, ended.reason) == ("failed", f"spread: {poisoned.reason}")


def test_attempts_are_bounded_even_where_nobody_sweeps(database: Catalog, run_id: str, clock: Clock) -> None:
    (first, *_) = unit_ids(database)
    for _ in range(3):
        assert engine.claim(database, first, STRANGER) is not None
        clock.advance(61)
    assert engine.claim(database, first, ME()) is None


def test_passing_trouble_is_tried_again_and_then_told(database: Catalog, run_id: str, toy: Toy) -> None:
    toy.raises = TransientError("the disk is full")
    assert drain(database).count("failed") >= 3
    ended = run(database, run_id)
    assert (ended.state, ended.reason) == ("failed", "spread: the disk is full")
    assert toy.worked.count(0) <= 3


def test_wrong_data_is_not_tried_again(database: Catalog, run_id: str, toy: Toy) -> None:
    toy.raises = DataError("record 7 has no text")
    assert drain(database).count("failed") == 1
    assert toy.worked == [0]
    assert run(database, run_id).reason == "spread: record 7 has no text"


def test_a_bug_becomes_a_reason(database: Catalog, run_id: str, toy: Toy) -> None:
    toy.raises = KeyError("missing")
    drain(database)
    assert run(database, run_id).reason == "spread: KeyError: 'missing'"


def test_a_failed_run_goes_on_where_it_ended(database: Catalog, run_id: str, clock: Clock, toy: Toy) -> None:
    ids = unit_ids(database)
    assert execute(database, ids[0], ME()) == "done"
    toy.raises = DataError("no")
    assert execute(database, ids[1], ME()) == "failed"
    toy.raises = None
    with database.write() as session:
        runs.resume(session, session.get_one(Run, run_id), clock.now)
    drain(database)
    assert run(database, run_id).state == "done"
    assert toy.worked.count(0) == 1
    assert num_verdicts(database) == WIDTH


def test_cancelled_work_is_not_committed_and_can_be_resumed(
    database: Catalog, run_id: str, clock: Clock, toy: Toy
) -> None:
    (first, *_) = unit_ids(database)
    mine = engine.claim(database, first, ME())
    assert mine is not None
    with database.write() as session:
        runs.cancel(session, session.get_one(Run, run_id), clock.now)
    with pytest.raises(LostClaimError):
        engine.commit(database, mine, UnitResult())
    assert set(drain(database)) == {"nothing"}
    with database.write() as session, pytest.raises(ConflictError, match="only a running run can be cancelled"):
        runs.cancel(session, session.get_one(Run, run_id), clock.now)
    with database.write() as session:
        runs.resume(session, session.get_one(Run, run_id), clock.now)
    drain(database)
    assert run(database, run_id).state == "done"


def test_a_worker_that_must_stop_gives_its_unit_back(database: Catalog, run_id: str, toy: Toy) -> None:
    (first, *_) = unit_ids(database)
    mine = engine.claim(database, first, ME())
    assert mine is not None
    engine.give_back(database, mine)
    returned = unit(database, first)
    assert (returned.state, returned.attempts, returned.epoch) == ("ready", 0, 1)

    class StopsInTheMiddle(Toy):
        def work(self, unit: UnitContext) -> UnitResult:
            STOPPING.set()
            return super().work(unit)

    toy.work = StopsInTheMiddle().work  # type: ignore[method-assign]
    assert execute(database, first, ME()) == "stopped"
    assert execute(database, first, ME()) == "nothing"
    assert (unit(database, first).state, unit(database, first).attempts) == ("ready", 0)
    STOPPING.clear()
    del toy.work  # type: ignore[attr-defined]
    drain(database)
    assert run(database, run_id).state == "done"


def test_a_running_unit_learns_that_it_lost_its_claim(database: Catalog, run_id: str, clock: Clock, toy: Toy) -> None:
    object.__setattr__(database.settings, "heartbeat_seconds", 0.05)
    (first, *_) = unit_ids(database)

    class Sleeper(Toy):
        def work(self, unit: UnitContext) -> UnitResult:
            clock.advance(61)
            assert engine.claim(database, first, STRANGER) is not None
            for _ in range(200):
                threading.Event().wait(0.02)
                unit.progress(1, 2)
            raise AssertionError("never told")

    toy.work = Sleeper().work  # type: ignore[method-assign]
    assert execute(database, first, ME()) == "lost"
    del toy.work  # type: ignore[attr-defined]


def test_a_unit_that_must_stop_and_was_lost_meanwhile_is_nobodys_error(
    database: Catalog, run_id: str, clock: Clock, toy: Toy
) -> None:
    (first, *_) = unit_ids(database)

    class Cancelled(Toy):
        def work(self, unit: UnitContext) -> UnitResult:
            with database.write() as session:
                runs.cancel(session, session.get_one(Run, run_id), clock.now)
            STOPPING.set()
            return super().work(unit)

    toy.work = Cancelled().work  # type: ignore[method-assign]
    assert execute(database, first, ME()) == "lost"
    del toy.work  # type: ignore[attr-defined]


def test_a_heartbeat_outlives_what_nobody_foresaw(database: Catalog, run_id: str, toy: Toy) -> None:
    object.__setattr__(database.settings, "heartbeat_seconds", 0.05)
    (first, *_) = unit_ids(database)
    faults = [RuntimeError("nobody foresaw this")] * 3
    moment = datetime(2026, 1, 1, tzinfo=UTC)

    def faulty(_session: Session) -> datetime:
        if threading.current_thread().name == "heartbeat" and faults:
            raise faults.pop()
        return moment

    database.clock = faulty

    class Patient(Toy):
        def work(self, unit: UnitContext) -> UnitResult:
            for _ in range(200):
                threading.Event().wait(0.02)
                unit.progress(7, 9)
                with database.read() as session:
                    if session.get_one(Unit, first).num_done == 7:
                        return super().work(unit)
            raise AssertionError("no heartbeat any more")

    toy.work = Patient().work  # type: ignore[method-assign]
    assert execute(database, first, ME()) == "done"
    assert faults == []
    del toy.work  # type: ignore[attr-defined]


def test_the_same_request_in_the_same_moment_is_the_same_run(database: Catalog, run_id: str, clock: Clock) -> None:
    with database.read() as session:
        dataset_id = session.scalars(select(Run.dataset_id)).one()

    def ask() -> tuple[str, str]:
        with database.write() as session:
            found, state = runs.submit(
                session,
                now=clock.now,
                kind="toy",
                dataset_id=dataset_id,
                version_id=None,
                config={},
                idempotency_key=key,
            )
            return found.id, state

    for number in range(ROUNDS):
        key = f"at once {number}"
        first, second = at_once(ask, ask)
        assert first[0] == second[0]
        assert {first[1], second[1]} == {"new", "running"}


def test_a_unit_that_is_done_has_done_all_of_it(database: Catalog, run_id: str) -> None:
    drain(database)
    # The toy says 1 of 2 and ends, as stages do that tell where they are before each step.
    with database.read() as session:
        seen = runs.run_progress(session, run_id, database.now(session))
    first, last = seen.stages
    assert (first.num_done, first.num_total, first.is_estimate, first.is_over) == (2 * WIDTH, 2 * WIDTH, False, True)
    assert (last.num_done, last.num_total) == (0, 0)


def test_progress_counts_units_and_knows_rate_and_time_left(database: Catalog, run_id: str, clock: Clock) -> None:
    ids = unit_ids(database)
    mine = engine.claim(database, ids[0], ME())
    assert mine is not None
    clock.advance(10)
    engine.renew(database, mine, 50, 200)
    with database.read() as session:
        seen = runs.run_progress(session, run_id, clock.now)
    assert (seen.state, seen.stages[0].num_units, seen.stages[0].num_done) == ("running", WIDTH, 50)
    # The other units have not told their total: it is taken to be the same.
    assert (seen.stages[0].num_total, seen.stages[0].is_estimate) == (200 * WIDTH, True)
    assert (seen.rate, seen.seconds_left) == (5.0, (200 * WIDTH - 50) / 5)
    with database.write() as session:
        runs.pause(session.get_one(Run, run_id), clock.now)
    clock.advance(10)
    with database.read() as session:
        rested = runs.run_progress(session, run_id, clock.now)
    assert (rested.paused, rested.rate, rested.seconds_left) == (True, None, None)
    with database.write() as session:
        runs.resume(session, session.get_one(Run, run_id), clock.now)
    drain(database)
    with database.read() as session:
        seen = runs.run_progress(session, run_id, clock.now)
        with pytest.raises(NotFoundError, match="there is no run 'nope'"):
            runs.run_progress(session, "nope", clock.now)
    assert seen.stages[0].num_units_done == WIDTH - 1
    assert not seen.stages[0].is_over
    assert seen.to_json()["stages"][1]["name"] == "finish"


def test_a_run_is_found_by_its_beginning(database: Catalog, run_id: str) -> None:
    with database.read() as session:
        assert engine.find_run(session, run_id[:8]).id == run_id
        assert engine.find_run(session, run_id).id == run_id
        with pytest.raises(NotFoundError, match="no run begins with 'zzzz'"):
            engine.find_run(session, "zzzz")
