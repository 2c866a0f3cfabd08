"""One writer at a time, nothing half-kept, clear words for what goes wrong."""

import multiprocessing
import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import StatementError

from catalog import database as database_module
from catalog.database import Catalog, filesystem_of
from catalog.errors import ConfigError, TransientError
from catalog.settings import Settings
from catalog.tables import metadata
from catalog.tables.access import User
from catalog.tables.base import new_id

NOW = datetime(2026, 1, 2, 3, 4, 5, 678900, tzinfo=UTC)


def add_user(catalog: Catalog, name: str) -> None:
    with catalog.write() as session:
        session.add(User(id=new_id(), name=name, role="admin", created_at=NOW))


def count_users(catalog: Catalog) -> int:
    with catalog.read() as session:
        return session.scalar(select(func.count()).select_from(User)) or 0


def _add_users(home: str, url: str, name: str, count: int) -> None:
    catalog = Catalog(Settings(home=Path(home), database_url=url))
    for number in range(count):
        add_user(catalog, f"{name}-{number}")


def test_writes_of_many_processes_are_all_kept(database: Catalog) -> None:
    context = multiprocessing.get_context("spawn")
    arguments = (str(database.settings.home), database.settings.database_url)
    processes = [context.Process(target=_add_users, args=(*arguments, f"p{n}", 25)) for n in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    assert count_users(database) == 100


def test_failed_transaction_keeps_nothing(database: Catalog) -> None:
    with pytest.raises(RuntimeError, match="in the middle"), database.write() as session:
        session.add(User(id=new_id(), name="ann", role="admin", created_at=NOW))
        session.flush()
        raise RuntimeError("in the middle")
    assert count_users(database) == 0


def test_read_session_keeps_nothing(database: Catalog) -> None:
    with database.read() as session:
        session.add(User(id=new_id(), name="ann", role="admin", created_at=NOW))
        session.flush()
    assert count_users(database) == 0


def test_readers_do_not_wait_for_the_writer(database: Catalog) -> None:
    add_user(database, "before")
    seen: list[int] = []
    with database.write() as session:
        session.add(User(id=new_id(), name="during", role="admin", created_at=NOW))
        session.flush()
        reader = threading.Thread(target=lambda: seen.append(count_users(database)))
        reader.start()
        reader.join(timeout=5)
    assert seen == [1]


def test_moments_are_aware_utc_on_both_databases(database: Catalog) -> None:
    east = NOW.astimezone(timezone(timedelta(hours=9)))
    with database.write() as session:
        session.add(User(id=new_id(), name="ann", role="admin", created_at=east))
    with database.read() as session:
        found = session.scalars(select(User.created_at)).one()
    assert found == NOW
    assert found.utcoffset() == timedelta(0)


def test_naive_moment_is_refused(database: Catalog) -> None:
    with pytest.raises(StatementError, match="has no time zone"), database.write() as session:
        session.add(User(id=new_id(), name="ann", role="admin", created_at=NOW.replace(tzinfo=None)))


def test_database_clock_is_close_to_ours_and_replaceable(database: Catalog) -> None:
    with database.read() as session:
        assert abs((database.now(session) - datetime.now(UTC)).total_seconds()) < 60
    frozen = Catalog(database.settings, clock=lambda _session: NOW)
    with frozen.read() as session:
        assert frozen.now(session) == NOW
    frozen.close()


def test_a_writer_that_waits_too_long_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "BUSY_SECONDS", 0.2)
    holder, other = (Catalog(Settings(home=tmp_path)) for _ in range(2))
    with holder.write() as session:
        metadata.create_all(session.connection())
    with holder.write(), pytest.raises(TransientError, match="stayed locked"):
        add_user(other, "ann")
    add_user(other, "ann")
    assert count_users(holder) == 1
    holder.close()
    other.close()


def sizes_after_writes(home: Path, name: str) -> list[int]:
    """Bytes of a file of the database after each of sixty writes."""
    catalog = Catalog(Settings(home=home))
    with catalog.write() as session:
        metadata.create_all(session.connection())
    sizes = []
    for number in range(60):
        add_user(catalog, f"{number:0>190}")
        sizes.append((home / name).stat().st_size)
    catalog.close()
    return sizes


def test_the_log_is_checkpointed_once_it_is_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "CHECKPOINT_EVERY_BYTES", 50_000)
    monkeypatch.setattr(database_module, "CHECKPOINT_EVERY_SECONDS", 0.0)
    sizes = sizes_after_writes(tmp_path, "winnow.db-wal")
    # The schema alone is the most that was written at once.
    assert max(sizes) < 500_000


def test_a_large_log_is_not_checkpointed_after_every_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "CHECKPOINT_EVERY_BYTES", 1)
    monkeypatch.setattr(database_module, "CHECKPOINT_EVERY_SECONDS", 1_000.0)
    sizes = sizes_after_writes(tmp_path, "winnow.db")
    # The first write's checkpoint is the only one: the database's file stays as that left it.
    assert len(set(sizes)) == 1


def test_missing_schema_and_missing_folder_say_what_to_do(tmp_path: Path) -> None:
    catalog = Catalog(Settings(home=tmp_path))
    with pytest.raises(ConfigError, match="run `winnow init`"), catalog.read() as session:
        session.execute(text("SELECT * FROM users"))
    catalog.close()
    nowhere = Catalog(Settings(home=tmp_path / "none"))
    with pytest.raises(ConfigError, match="cannot be used"), nowhere.read() as session:
        session.execute(text("SELECT 1"))


def test_network_filesystem_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "filesystem_of", lambda _path: "nfs4")
    with pytest.raises(ConfigError, match="lies on a nfs4 filesystem, where SQLite's locks do not hold"):
        _ = Catalog(Settings(home=tmp_path)).engine


def test_filesystem_of_names_a_real_mount() -> None:
    assert filesystem_of(Path("/proc/self")) == "proc"
