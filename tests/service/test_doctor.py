"""``winnow doctor`` finds each kind of trouble, says what to do, and is content with a healthy home."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from catalog import database as databases
from catalog import migrate
from catalog.database import Catalog
from catalog.settings import Settings
from catalog.store import Store
from catalog.tables.engine import Outbox, Unit, Worker
from service import doctor
from service.doctor import OK, PROBLEM, WARNING, Finding, examine
from tests.cli.command import Winnow
from tests.workers.building import add_dataset, add_run, drain
from tests.workers.corpus import write_files
from tests.workers.test_determinism import ask_ingest
from workers import process_names


@pytest.fixture(params=["sqlite", "postgresql"])
def healthy(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalog]:
    """A home with a finished ingest, on each database."""
    url = request.getfixturevalue("new_empty_postgres") if request.param == "postgresql" else ""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    catalog = Catalog(Settings(home=home, database_url=url, shard_rows=20))
    migrate.upgrade(catalog)
    Store.of(catalog.settings).create()
    ask_ingest(catalog, write_files(tmp_path / "in", 1, 60))
    drain(catalog)
    yield catalog
    catalog.close()


def findings(catalog: Catalog, **changed: object) -> dict[str, Finding]:
    """The worst finding of each check."""
    settings = catalog.settings.model_copy(update=changed)
    order = (PROBLEM, WARNING, OK)
    found = sorted(examine(settings, sample=50), key=lambda one: order.index(one.level), reverse=True)
    return {one.check: one for one in found}


def add_unit(catalog: Catalog, state: str, **values: object) -> None:
    with catalog.write() as session:
        now = catalog.now(session)
        run = add_run(session, add_dataset(session, name=f"of {state}"))
        moments = {name: now - timedelta(seconds=ago) for name, ago in values.items() if isinstance(ago, float)}
        others = {name: value for name, value in values.items() if not isinstance(value, float)}
        asked = {"run_id": run.id, "stage": 0, "stage_name": "measure", "position": 0, "payload": {}, "ready_at": now}
        session.add(Unit(**asked | {"state": state} | moments | others))


def a_shard(catalog: Catalog) -> Path:
    return next((catalog.settings.home / "store" / "text").rglob("*.parquet"))


def break_shard(catalog: Catalog) -> None:
    path = a_shard(catalog)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def leave_message(catalog: Catalog) -> None:
    with catalog.write() as session:
        long_ago = catalog.now(session) - timedelta(seconds=90)
        session.add(Outbox(task="engine.run_unit", args=["u"], created_at=long_ago))


def go_back(catalog: Catalog) -> None:
    with catalog.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '0001'"))


TROUBLES: dict[str, tuple[str, str, str, Callable[[Catalog], object]]] = {
    "home open": ("home", WARNING, "chmod 700", lambda it: it.settings.home.chmod(0o755)),
    "home gone": ("home", PROBLEM, "winnow init", lambda it: it.settings.home.rename(it.settings.home.with_name("x"))),
    "store gone": ("store", PROBLEM, "mount it", lambda it: shutil.rmtree(it.settings.home / "store")),
    "shard damaged": ("files", PROBLEM, "winnow restore", break_shard),
    "shard gone": ("files", PROBLEM, "winnow restore", lambda it: a_shard(it).unlink()),
    "old revision": ("database", PROBLEM, "", go_back),
    "nobody works": ("workers", PROBLEM, "winnow up", lambda it: add_unit(it, "ready")),
    "lease over": ("leases", WARNING, "sweepers", lambda it: add_unit(it, "running", lease_until=60.0)),
    "unsent": ("outbox", WARNING, "broker", leave_message),
    "given up": ("poisoned", WARNING, "same command", lambda it: add_unit(it, "poisoned", reason="KeyError: 'x'")),
}


@pytest.mark.parametrize("name", sorted(TROUBLES))
def test_each_trouble_is_found_and_nothing_else_suffers(name: str, healthy: Catalog) -> None:
    check, level, remedy, make = TROUBLES[name]
    make(healthy)
    found = findings(healthy)
    assert found[check].level == level, found[check]
    assert remedy in found[check].remedy
    if name not in ("home gone", "store gone", "old revision"):
        others = {one.check: one.level for one in found.values() if one.check != check}
        assert set(others.values()) == {OK}, others
    if name == "given up":
        assert "KeyError: 'x'" in found[check].found


def test_a_healthy_home_is_all_ok(healthy: Catalog) -> None:
    with healthy.write() as session:
        now = healthy.now(session)
        session.add(Worker(name=process_names.this_process(), pid=os.getpid(), started_at=now, seen_at=now))
    add_unit(healthy, "ready")
    found = findings(healthy)
    assert {one.level for one in found.values()} == {OK}, found
    checks = {"settings", "home", "database", "broker", "store", "disk", "clock", "files", "workers", "leases"}
    checks |= {"outbox", "poisoned"} | ({"filesystem", "wal", "integrity"} if healthy.is_sqlite else set())
    assert set(found) == checks
    assert found["workers"].found == "1 alive, 1 units wait"
    assert int(found["files"].found.split()[0]) > 4
    assert not list((healthy.settings.home / "store").glob(".*"))


def test_a_clock_that_is_off_a_full_disk_and_a_long_log_are_told(
    healthy: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time
    monkeypatch.setattr(doctor.time, "time", lambda: real() + 7.0)
    monkeypatch.setattr(doctor, "DISK_WARNING_BYTES", 2**60)
    found = findings(healthy)
    assert (found["clock"].level, found["disk"].level) == (WARNING, WARNING)
    assert "NTP" in found["clock"].remedy
    monkeypatch.setattr(doctor.time, "time", lambda: real() - 3600.0)
    monkeypatch.setattr(doctor, "DISK_PROBLEM_BYTES", 2**60)
    monkeypatch.setattr(doctor, "WAL_WARNING_BYTES", -1)
    found = findings(healthy)
    assert (found["clock"].level, found["disk"].level) == (PROBLEM, PROBLEM)
    assert not healthy.is_sqlite or found["wal"].level == WARNING


@pytest.fixture
def on_sqlite(tmp_path: Path) -> Iterator[Catalog]:
    """A migrated home without data."""
    catalog = Catalog(Settings(home=tmp_path))
    migrate.upgrade(catalog)
    Store.of(catalog.settings).create()
    yield catalog
    catalog.close()


def test_a_damaged_sqlite_file_is_a_problem(on_sqlite: Catalog) -> None:
    with on_sqlite.write() as session:
        session.execute(text("CREATE TABLE t (x TEXT)"))
        session.execute(text("CREATE INDEX ix_t ON t (x)"))
        session.execute(text("INSERT INTO t SELECT hex(randomblob(50)) FROM sqlite_master"))
        page = session.scalar(text("SELECT rootpage FROM sqlite_master WHERE name = 'ix_t'"))
        size = session.scalar(text("PRAGMA page_size"))
    with on_sqlite.read() as session:
        session.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
    on_sqlite.close()
    with on_sqlite.sqlite_path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * 100)
    found = findings(on_sqlite)
    assert found["integrity"].level == PROBLEM
    assert "winnow restore" in found["integrity"].remedy


def test_a_database_on_a_network_filesystem_is_a_problem(on_sqlite: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    here = databases.filesystem_of(on_sqlite.settings.home)
    for module in (databases, doctor):
        monkeypatch.setattr(module, "NETWORK_FILESYSTEMS", frozenset({here}))
    found = findings(on_sqlite)
    assert (found["filesystem"].level, found["database"].level) == (PROBLEM, PROBLEM)
    assert "PostgreSQL" in found["filesystem"].remedy
    assert "workers" not in found


@pytest.mark.parametrize(
    ("check", "changed"),
    [
        ("broker", {"broker_url": "redis://:hunter2pass@127.0.0.1:1/0"}),
        ("broker", {"broker_url": "amqp://me:hunter2pass@127.0.0.1:1//"}),
        ("database", {"database_url": "postgresql+psycopg://me:hunter2pass@127.0.0.1:1/x"}),
        ("database", {"database_url": "nothing"}),
        ("store", {"store_url": "nowhere://bucket"}),
    ],
)
def test_what_does_not_answer_is_a_problem_without_its_password(
    check: str, changed: dict[str, object], on_sqlite: Catalog
) -> None:
    found = findings(on_sqlite, **changed)
    assert found[check].level == PROBLEM
    assert found[check].remedy
    assert "hunter2pass" not in str(found)


def test_a_home_that_is_not_there_is_looked_at_and_not_made(fresh: Winnow) -> None:
    told = fresh("doctor", "--json")
    assert told.code == 1
    remedies = {one["check"]: one["remedy"] for one in told.json["checks"] if one["level"] == PROBLEM}
    assert remedies["database"] == "run `winnow init`, or set WINNOW_HOME to the home folder of before"
    assert not fresh.home.exists()


def test_the_command_ends_with_1_on_a_problem_only(fresh: Winnow) -> None:
    assert "(made)" in fresh("init").err
    assert fresh.ok("doctor", "--sample", "3")["ok"] is True
    assert not (fresh.home / "broker.db").exists()
    (fresh.home / "admin.token").chmod(0o644)
    told = fresh("doctor")
    assert told.code == 1
    assert "PROBLEM  token file" in told.out
    assert "token file: chmod 600" in told.err
    told = fresh("doctor", "--json", num_workers=0)
    assert told.code == 1
    assert [(one["check"], one["level"]) for one in told.json["checks"]] == [("settings", "problem")]


@pytest.fixture
def fresh(tmp_path: Path) -> Winnow:
    """The command on a home folder that does not exist yet."""
    return Winnow(tmp_path / "home")
