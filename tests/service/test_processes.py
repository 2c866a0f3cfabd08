"""The processes that a command starts: what they held when they had to be killed, and who replaces the dead."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from catalog.database import Catalog
from catalog.errors import ServiceError
from catalog.tables.engine import Outbox, Unit, Worker
from service import processes
from service.cli.output import RunFailedError, run_to_end, watch
from service.processes import Process, Supervisor, TemporaryWorkers, workers_for
from tests.workers.building import add_dataset, add_run
from tests.workers.corpus import write_files
from tests.workers.test_determinism import ask_ingest, make_catalog
from workers import engine, process_names, runs

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"


def add_unit(catalog: Catalog) -> str:
    with catalog.write() as session:
        run = add_run(session, add_dataset(session))
        unit = Unit(run_id=run.id, stage=0, stage_name="measure", position=0, payload={}, ready_at=run.created_at)
        session.add(unit)
        session.flush()
        return unit.id


def start_deaf(supervisor: Supervisor, log: Path) -> str:
    """A child that does not listen, as one in the middle of a long step; the name that it claims units by."""
    child = Process("worker-1", ["-c", DEAF], log, {})
    supervisor._add(child)
    while "up" not in log.read_text():
        time.sleep(0.01)
    assert child.popen is not None
    return process_names.name_of_process(child.popen.pid)


def test_unit_whose_worker_had_to_be_killed_by_its_own_supervisor_is_not_charged(
    database: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "STOP_SECONDS", 0.2)
    unit_id = add_unit(database)
    for epoch in range(1, 5):
        supervisor = Supervisor(database.settings)
        owner = start_deaf(supervisor, tmp_path / f"{epoch}.log")
        mine = engine.claim(database, unit_id, owner)
        assert mine is not None
        assert (mine.epoch, mine.attempts) == (epoch, 1)
        supervisor.stop()
        assert process_names.is_gone(owner)
        with database.read() as session:
            unit = session.get_one(Unit, unit_id)
            assert (unit.state, unit.attempts, unit.owner, unit.lease_until) == ("ready", 0, None, None)
            assert session.scalars(select(Outbox.args)).all() == [[unit_id]] * epoch


def test_units_of_others_are_left_to_them(database: Catalog) -> None:
    unit_id = add_unit(database)
    mine = engine.claim(database, unit_id, process_names.this_process())
    assert mine is not None
    assert engine.take_back(database, "elsewhere/host/1/0.00") == 0
    engine.renew(database, mine, 1, 2)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    made = make_catalog(tmp_path / "home")
    object.__setattr__(made.settings, "num_workers", 1)
    yield made
    made.close()


def only_child(workers: TemporaryWorkers) -> "subprocess.Popen[bytes]":
    assert workers._own is not None
    (child,) = workers._own.children
    assert child.popen is not None
    return child.popen


def test_command_goes_on_when_its_own_workers_are_killed(catalog: Catalog, tmp_path: Path) -> None:
    told: list[str] = []
    with workers_for(catalog, told.append) as workers:
        assert told == ["no worker is running: 1 started for this command"]
        killed = only_child(workers)
        killed.kill()
        killed.wait()
        run_id = ask_ingest(catalog, write_files(tmp_path / "files", 1, 5))
        assert watch(catalog, run_id, as_json=True, tend=workers.tend).state == "done"
        assert only_child(workers).pid != killed.pid
    assert runs.num_workers_alive(catalog) == 0


def test_command_starts_workers_when_those_of_others_have_left(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "ALONE_SECONDS", 1.0)
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    told: list[str] = []
    try:
        show_life(catalog, other.pid)
        with workers_for(catalog, told.append) as workers:
            assert workers.tend() == []
            other.kill()
            other.wait()
            assert workers.tend() == []
            run_id = ask_ingest(catalog, write_files(tmp_path / "files", 1, 5))
            assert watch(catalog, run_id, as_json=True, tend=workers.tend).state == "done"
    finally:
        other.kill()
        other.wait()
    assert told == []
    assert runs.num_workers_alive(catalog) == 0


@pytest.mark.parametrize("retry", [False, True])
def test_failed_run_promises_to_go_on_only_where_it_was_not_refused(database: Catalog, *, retry: bool) -> None:
    unit_id = add_unit(database)
    for _ in range(database.settings.max_attempts if retry else 1):
        mine = engine.claim(database, unit_id, process_names.this_process())
        assert mine is not None
        engine.fail(database, mine, "too few labels", retry=retry)
    assert mine is not None
    with pytest.raises(RunFailedError) as failed:
        watch(database, mine.run_id, as_json=True)
    told = f"clean run {mine.run_id[:8]} failed: measure: too few labels; what was finished is kept, "
    again = "and the same command goes on from there" if retry else "but the same command fails alike until that"
    assert str(failed.value).startswith(told + again)


def interrupted() -> None:
    raise KeyboardInterrupt


def test_interrupted_command_says_that_workers_of_others_go_on_with_its_run(catalog: Catalog, tmp_path: Path) -> None:
    run_id = ask_ingest(catalog, write_files(tmp_path / "files", 1, 5))
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        show_life(catalog, other.pid)
        with pytest.raises(ServiceError) as left:
            run_to_end(catalog, run_id, as_json=True, meanwhile=interrupted)
    finally:
        other.kill()
        other.wait()
    assert left.value.exit_code == 130
    assert str(left.value) == (
        f"interrupted, but run {run_id[:8]} goes on in the workers: watch it with `winnow runs`, stop it with "
        f"`winnow cancel {run_id[:8]}`; the same command goes on from there"
    )
    with catalog.read() as session:
        assert runs.run_progress(session, run_id, catalog.now(session)).state == "running"


def test_interrupted_command_whose_own_workers_did_the_run_says_nothing_of_others(
    catalog: Catalog, tmp_path: Path
) -> None:
    run_id = ask_ingest(catalog, write_files(tmp_path / "files", 1, 5))
    with pytest.raises(KeyboardInterrupt):
        run_to_end(catalog, run_id, as_json=True, meanwhile=interrupted)
    assert runs.num_workers_alive(catalog) == 0


def show_life(catalog: Catalog, pid: int) -> None:
    """Let a process pass for a worker of somebody else."""
    with catalog.write() as session:
        now = catalog.now(session)
        session.add(Worker(name=process_names.name_of_process(pid), pid=pid, started_at=now, seen_at=now))
