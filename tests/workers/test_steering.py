"""Runs that people steer: what is taken up first, how much at once, what waits, what was logged."""

import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import delete, select

from catalog.database import Catalog
from catalog.errors import ConfigError, ConflictError, DataError
from catalog.settings import load_settings
from catalog.tables.engine import Outbox, Run, Unit, UnitLog
from tests.workers.building import ME, add_dataset, at_once, drain
from workers import engine, outbox, runs, sweeping
from workers.engine import UnitResult
from workers.execution import UnitContext, execute
from workers.pipelines import PIPELINES, Pipeline, Stage, single

WIDTH = 3
WORKED: list[tuple[str, str, int]] = []
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


def _work(unit: UnitContext) -> UnitResult:
    WORKED.append((unit.claim.config["name"], unit.claim.stage_name, unit.claim.payload.get("index", 0)))
    logging.getLogger("training.toy").warning("step %d of %s", unit.claim.payload.get("index", 0), unit.claim.run_id)
    if unit.claim.config["name"] == "broken":
        raise DataError("record 7 has no text")
    if unit.claim.config["name"] == "buggy":
        raise ZeroDivisionError("mean of nothing")
    return UnitResult(result={})


def _spread(_session: object, _run: object) -> list[dict[str, int]]:
    return [{"index": index} for index in range(WIDTH)]


@pytest.fixture(scope="module", autouse=True)
def kinds() -> Iterator[None]:
    """Job kinds for these tests alone."""
    spread, fit = (
        Stage(name="spread", plan=_spread, work=_work),
        Stage(name="fit", plan=single, work=_work, needs="train"),
    )
    PIPELINES.register("steered")(Pipeline(stages=(spread, fit)))
    yield
    del PIPELINES._members["steered"]


@pytest.fixture(autouse=True)
def nothing_worked() -> None:
    WORKED.clear()


@pytest.fixture
def ask(database: Catalog) -> Callable[[str], str]:
    """Ask for a run by a name of its own."""
    with database.write() as session:
        dataset_id = add_dataset(session).id

    def submit(name: str) -> str:
        with database.write() as session:
            run, _ = runs.submit(
                session,
                now=database.now(session),
                kind="steered",
                dataset_id=dataset_id,
                version_id=None,
                config={"name": name},
                idempotency_key=name,
            )
            return run.id

    return submit


def steer(catalog: Catalog, run_id: str, **values: int) -> None:
    with catalog.write() as session:
        runs.steer(session, session.get_one(Run, run_id), catalog.now(session), **values)


def state_of(catalog: Catalog, run_id: str) -> str:
    with catalog.read() as session:
        return session.get_one(Run, run_id).state


def ready(catalog: Catalog, run_id: str) -> list[str]:
    with catalog.read() as session:
        query = select(Unit.id).where(Unit.run_id == run_id, Unit.state == "ready").order_by(Unit.position)
        return list(session.scalars(query))


def test_a_run_of_higher_priority_is_taken_up_first(database: Catalog, ask: Callable[[str], str]) -> None:
    first, urgent = ask("first"), ask("urgent")
    steer(database, urgent, priority=5)
    drain(database)
    assert [name for name, _, _ in WORKED] == ["urgent"] * (WIDTH + 1) + ["first"] * (WIDTH + 1)
    assert (state_of(database, first), state_of(database, urgent)) == ("done", "done")


def test_units_under_way_are_not_taken_from_a_run_of_lower_priority(
    database: Catalog, ask: Callable[[str], str]
) -> None:
    first = ask("first")
    mine = engine.take(database, ready(database, first)[0], ME())
    assert mine is not None
    steer(database, ask("urgent"), priority=5)
    engine.commit(database, mine, UnitResult())
    assert execute(database, ready(database, first)[0], ME()) == "done"
    assert WORKED[0][0] == "urgent"


def test_a_paused_run_takes_up_nothing_and_loses_nothing(database: Catalog, ask: Callable[[str], str]) -> None:
    run_id = ask("paused")
    mine = engine.take(database, ready(database, run_id)[0], ME())
    assert mine is not None
    with database.write() as session:
        runs.pause(session.get_one(Run, run_id), MOMENT)
    engine.renew(database, mine, 1, 2)
    engine.commit(database, mine, UnitResult())
    assert set(drain(database)) == {"nothing"}
    assert sweeping.sweep(database, idle=True).resent == 0
    with database.write() as session:
        session.execute(delete(Outbox))
        runs.resume(session, session.get_one(Run, run_id), database.now(session))
    drain(database)
    assert state_of(database, run_id) == "done"
    assert len(WORKED) == WIDTH  # the first was ours


def test_a_paused_run_does_not_hold_up_others(database: Catalog, ask: Callable[[str], str]) -> None:
    paused, other = ask("paused"), ask("other")
    steer(database, paused, priority=9)
    with database.write() as session:
        runs.pause(session.get_one(Run, paused), MOMENT)
    drain(database)
    assert (state_of(database, paused), state_of(database, other)) == ("running", "done")


def test_a_limited_run_never_has_more_under_way_and_needs_no_sweeper(
    database: Catalog, ask: Callable[[str], str]
) -> None:
    run_id = ask("limited")
    steer(database, run_id, max_units=1)
    ids = ready(database, run_id)
    taken = [mine for mine in at_once(*[lambda one=one: engine.take(database, one, ME()) for one in ids]) if mine]
    assert len(taken) == 1
    assert set(drain(database)) == {"nothing"}
    engine.commit(database, taken[0], UnitResult())
    drain(database)
    assert state_of(database, run_id) == "done"
    assert len(WORKED) == WIDTH


def test_without_its_limit_a_run_goes_on_at_once(database: Catalog, ask: Callable[[str], str]) -> None:
    run_id = ask("limited")
    steer(database, run_id, max_units=1)
    assert engine.take(database, ready(database, run_id)[0], ME()) is not None
    drain(database)
    steer(database, run_id, max_units=0)
    assert drain(database) == ["done"] * (WIDTH - 1)


def test_workers_take_up_only_what_they_serve(database: Catalog, ask: Callable[[str], str]) -> None:
    run_id = ask("trained")
    without = Catalog(database.settings.model_copy(update={"worker_needs": "cpu,embed"}))
    drain(without)
    assert {stage for _, stage, _ in WORKED} == {"spread"}
    assert sweeping.sweep(without, idle=True).resent == 0
    (waiting,) = ready(database, run_id)
    assert execute(without, waiting, ME()) == "nothing"
    assert execute(database, waiting, ME()) == "done"
    assert state_of(database, run_id) == "done"
    without.close()


def test_messages_go_to_the_queue_of_what_a_unit_needs(database: Catalog, ask: Callable[[str], str]) -> None:
    ask("trained")
    for message in outbox.unsent(database):
        execute(database, message.args[0], ME())
        outbox.mark_sent(database, message.id)
    assert [message.needs for message in outbox.unsent(database)] == ["train"]


@pytest.mark.parametrize("given", ["gpu", "", "cpu,gpu"])
def test_an_unknown_need_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("WINNOW_WORKER_NEEDS", given)
    with pytest.raises(ConfigError, match="must name one or more of cpu, embed, train"):
        load_settings()


def test_what_a_unit_logged_is_kept_with_it(database: Catalog, ask: Callable[[str], str]) -> None:
    run_id = ask("logged")
    drain(database)
    with database.read() as session:
        lines = session.execute(
            select(Unit.position, UnitLog.level, UnitLog.message, UnitLog.epoch)
            .join(Unit, Unit.id == UnitLog.unit_id)
            .where(UnitLog.run_id == run_id, Unit.stage == 0)
            .order_by(UnitLog.id)
        ).all()
    assert [tuple(line) for line in lines] == [(n, "WARNING", f"step {n} of {run_id}", 1) for n in range(WIDTH)]


@pytest.mark.parametrize(
    ("name", "attempts", "words"),
    [("broken", 1, ["record 7 has no text"]), ("buggy", 3, ["ZeroDivisionError: mean of nothing", "in _work"])],
)
def test_why_an_attempt_failed_is_kept_with_it(
    database: Catalog, ask: Callable[[str], str], name: str, attempts: int, words: list[str]
) -> None:
    run_id = ask(name)
    for _ in range(3):
        drain(database)
    assert state_of(database, run_id) == "failed"
    with database.read() as session:
        failed = select(Unit.id).where(Unit.run_id == run_id, Unit.state == "poisoned")
        told = session.scalars(
            select(UnitLog.message).where(UnitLog.level == "ERROR", UnitLog.unit_id.in_(failed))
        ).all()
    assert len(told) == attempts
    assert all(word in message for message in told for word in words)


def test_only_a_running_run_is_steered(database: Catalog, ask: Callable[[str], str]) -> None:
    run_id = ask("done")
    with database.write() as session, pytest.raises(ConflictError, match="only a paused, failed or cancelled run"):
        runs.resume(session, session.get_one(Run, run_id), MOMENT)
    with pytest.raises(ConfigError, match="priority=101 must be -100 to 100"):
        steer(database, run_id, priority=101)
    with pytest.raises(ConfigError, match=r"max_units=-1 must be 1 to 10,000, or 0 for no limit"):
        steer(database, run_id, max_units=-1)
    drain(database)
    with pytest.raises(ConflictError, match="is done; only a running run can be steered"):
        steer(database, run_id, priority=1)
    with database.read() as session, pytest.raises(ConflictError, match="is done; only a running run can be paused"):
        runs.pause(session.get_one(Run, run_id), MOMENT)
