"""What the engine's bookkeeping costs a unit, and that what makes it cheap loses nothing."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from sqlalchemy import event, select, text

from catalog import database as database_module
from catalog.database import Catalog
from catalog.errors import TransientError
from catalog.settings import Settings
from catalog.tables.engine import Outbox, Run, Unit
from tests.workers.building import ME, add_dataset, drain
from workers import engine, execution, outbox, runs, sweeping
from workers.app import make_app, relay
from workers.engine import UnitResult
from workers.execution import UnitContext, execute
from workers.pipelines import PIPELINES, Pipeline, Stage

KIND = "cost"
WORK: dict[str, Callable[[UnitContext], None]] = {"work": lambda _unit: None}


def _work(unit: UnitContext) -> UnitResult:
    WORK["work"](unit)
    return UnitResult()


PIPELINES.register(KIND)(
    Pipeline(
        stages=(
            Stage(name="first", plan=lambda _session, run: [{}] * run.config["units"], work=_work),
            Stage(name="second", plan=lambda _session, _run: [{}], work=_work),
        )
    )
)


def submit(catalog: Catalog, units: int) -> tuple[str, list[str]]:
    with catalog.write() as session:
        now = catalog.now(session)
        run, _ = runs.submit(
            session,
            now=now,
            kind=KIND,
            dataset_id=add_dataset(session, name=f"d{time.monotonic_ns()}").id,
            version_id=None,
            config={"units": units},
            idempotency_key=f"k{time.monotonic_ns()}",
        )
        found = session.scalars(select(Unit.id).where(Unit.run_id == run.id).order_by(Unit.position)).all()
        return run.id, list(found)


@contextmanager
def statements(catalog: Catalog) -> Iterator[list[str]]:
    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        seen.append(statement)

    event.listen(catalog.engine, "before_cursor_execute", note)
    event.listen(catalog.engine, "commit", lambda _connection: seen.append("COMMIT"))
    yield seen
    event.remove(catalog.engine, "before_cursor_execute", note)


def test_a_unit_costs_two_transactions_of_three_statements(database: Catalog) -> None:
    _, units = submit(database, engine.LAST_UNITS + 10)
    execute(database, units[0], ME())
    outbox.UNSENT.clear()
    with statements(database) as seen:
        assert execute(database, units[1], ME()) == "done"
    asked = [one.split()[0] for one in seen if not one.startswith("BEGIN")]
    # SQLite's clock is that of the process.
    clock = [] if database.is_sqlite else ["SELECT"]
    assert asked == [*clock, "SELECT", "UPDATE", "COMMIT", *clock, "UPDATE", "SELECT", "COMMIT"]
    # It left no message, so nobody looks for one.
    assert not outbox.UNSENT.is_set()


def test_a_stage_of_many_units_is_planned_in_few_statements(database: Catalog) -> None:
    submit(database, 1)
    with statements(database) as few:
        submit(database, 10)
    with statements(database) as many:
        _, units = submit(database, 400)
    assert len(units) == 400
    assert len(many) <= len(few) + 4
    with database.read() as session:
        messages = session.scalars(select(Outbox.args).order_by(Outbox.id)).all()
    assert [args[0] for args in messages[-400:]] == units


def test_looking_for_an_urgent_unit_reads_its_run_alone_before_there_are_statistics(
    new_postgres: Callable[[], str], tmp_path: Path
) -> None:
    catalog = Catalog(Settings(home=tmp_path, database_url=new_postgres()))
    urgent, _ = submit(catalog, 200)
    with catalog.write() as session:
        runs.steer(session, session.get_one(Run, urgent), catalog.now(session), priority=5)
    _, others = submit(catalog, 5_000)
    asked: list[tuple[str, Any]] = []

    def note(_connection: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        if "SKIP LOCKED" in statement:
            asked.append((statement, parameters))

    event.listen(catalog.engine, "before_cursor_execute", note)
    claim = engine.take(catalog, others[0], ME())
    event.remove(catalog.engine, "before_cursor_execute", note)
    assert claim is not None
    assert claim.run_id == urgent
    ((statement, parameters),) = asked
    with catalog.engine.connect() as connection:
        plan = "\n".join(row[0] for row in connection.exec_driver_sql(f"EXPLAIN {statement}", parameters))
    assert "ix_units_run_id_unfinished" in plan
    assert "Sort" not in plan
    catalog.close()


def test_units_far_from_the_end_do_not_wait_for_each_other(new_postgres: Callable[[], str], tmp_path: Path) -> None:
    catalog = Catalog(Settings(home=tmp_path, database_url=new_postgres()))
    run_id, units = submit(catalog, engine.LAST_UNITS + 2)
    with ThreadPoolExecutor(1) as pool, catalog.write() as holding:
        holding.execute(select(Run.id).where(Run.id == run_id).with_for_update())
        assert pool.submit(execute, catalog, units[0], ME()).result(timeout=20) == "done"
        # From here on its commit might be the last, so it waits for the lock.
        waiting = pool.submit(execute, catalog, units[1], ME())
        with pytest.raises(TimeoutError):
            waiting.result(timeout=1.0)
        holding.rollback()
        assert waiting.result(timeout=20) == "done"
    catalog.close()


@pytest.mark.parametrize("num_units", [3, engine.LAST_UNITS + 20])
def test_every_stage_is_gone_on_with_exactly_once_when_many_finish_at_once(database: Catalog, num_units: int) -> None:
    run_id, units = submit(database, num_units)
    barrier = threading.Barrier(8)

    def work_through(part: int) -> list[str]:
        barrier.wait()
        return [execute(database, unit_id, ME()) for unit_id in units[part::8]]

    with ThreadPoolExecutor(8) as pool:
        done = [one for part in pool.map(work_through, range(8)) for one in part]
    assert done.count("done") == num_units
    # Should all of the last have ended in the same moment, a sweep goes on.
    sweeping.sweep(database, idle=True)
    drain(database)
    with database.read() as session:
        assert session.get_one(Run, run_id).state == "done"
        stages = session.scalars(select(Unit.stage).where(Unit.run_id == run_id)).all()
    assert sorted(stages) == [0] * num_units + [1]


def test_two_that_relay_at_once_send_each_message_once(
    new_postgres: Callable[[], str], tmp_path: Path, redis_url: str
) -> None:
    settings = Settings(home=tmp_path, database_url=new_postgres(), broker_url=f"{redis_url[:-1]}7")
    catalog = Catalog(settings)
    submit(catalog, 350)
    apps = [make_app(settings) for _ in range(4)]
    barrier = threading.Barrier(4)

    def send(app: Celery) -> int:
        barrier.wait()
        return sum(iter(lambda: relay(catalog, app), 0))

    with ThreadPoolExecutor(4) as pool:
        sent = list(pool.map(send, apps))
    # Whoever found everything locked by others went home early; nothing was sent twice, nothing was left.
    assert sum(sent) == 350
    with apps[0].connection_for_write() as connection:
        client = connection.default_channel.client
        assert client.llen("winnow.cpu") == 350
        client.flushdb()
    with catalog.read() as session:
        assert session.scalars(select(Outbox.id)).all() == []
    catalog.close()


def test_broker_that_goes_away_in_the_middle_leaves_the_messages(database: Catalog) -> None:
    submit(database, 3)
    with pytest.raises(OSError, match="cable"), outbox.sending(database) as (messages, sent):
        sent.append(messages[0].id)
        raise OSError("cable")
    with database.read() as session:
        left = session.scalars(select(Outbox.id).order_by(Outbox.id)).all()
    # At least once: the first may be sent again, the others must be.
    assert left[-2:] == [message.id for message in messages[1:]]


def test_lease_is_renewed_while_a_unit_works_and_not_after_it(database: Catalog) -> None:
    catalog = Catalog(
        Settings(
            home=database.settings.home,
            database_url=database.settings.database_url,
            lease_seconds=0.6,
            heartbeat_seconds=0.1,
        )
    )
    _, units = submit(catalog, 2)
    renewed: list[str] = []
    renew = engine.renew

    def noting(catalog: Catalog, mine: engine.Claim, num_done: int, num_total: int, **more: Any) -> None:
        renewed.append(mine.unit_id)
        renew(catalog, mine, num_done, num_total, **more)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(execution.engine, "renew", noting)
        patched.setitem(WORK, "work", lambda _unit: time.sleep(1.5))
        assert execute(catalog, units[0], ME()) == "done"
        seen = len(renewed)
        assert 3 <= seen <= 16
        time.sleep(0.5)
        assert len(renewed) == seen
    catalog.close()


def test_connection_that_broke_while_it_lay_idle_is_replaced_unnoticed(
    new_postgres: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = Catalog(Settings(home=tmp_path, database_url=new_postgres()))
    other = Catalog(catalog.settings)

    def backend() -> int:
        with catalog.read() as session:
            return int(session.execute(text("SELECT pg_backend_pid()")).scalar_one())

    def cut(pid: int) -> None:
        with other.write() as session:
            session.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})

    first = backend()
    assert backend() == first
    cut(first)
    # Used a moment ago, it is not tried before it is used; the next use has another.
    with pytest.raises(TransientError, match="nothing was kept, try again"):
        backend()
    second = backend()
    assert second != first
    monkeypatch.setattr(database_module, "PING_AFTER_SECONDS", 0.0)
    cut(second)
    assert backend() not in (first, second)
    catalog.close()
    other.close()
