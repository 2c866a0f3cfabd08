"""A database of an earlier release, full of data, opens in this one with every row; migrations only add."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Column, MetaData, Table, insert, select

from catalog import migrate
from catalog.database import Catalog
from catalog.errors import ConfigError
from catalog.settings import Settings
from catalog.tables import metadata
from tests.cli.command import Winnow
from tests.service.conftest import World, _world
from tests.workers.test_backup import answer, rows_of
from tests.workers.test_worker_process import run_worker

MOMENT = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
FIRST_HELD = "0008"
"""Revisions from this one on only add, or say which earlier one they complete."""


def rest(world: World) -> dict[str, dict[str, Any]]:
    """A row of each table that the world leaves empty, as releases have written them."""
    run = {"run_id": world.run_id}
    return {
        "shards": {"id": "s1", "dataset_id": world.dataset_id, "unit_id": "u1", "position": 0, "kind": "text"}
        | {"name": f"text/ab/{'ab' * 32}.parquet", "sha256": "ab" * 32, "size_bytes": 2**40, "num_rows": 9}
        | run,
        "duplicate_pairs": {"record_id": "r1", "keeper_id": "other:r2", "kind": "near", "jaccard": 0.875}
        | {"cosine": None, "bands_shared": 3, "accepted": True, "rule": "minhash/1"}
        | run,
        "superseded_pairs": {"record_id": "r1", "by_run_id": "later"} | run,
        "loss_points": {"arm": "small", "step": 3, "loss": 0.1} | run,
        "evaluations": {"id": "e1", "arm": "small", "variant": "int8", "num_examples": 5, "accuracy": 0.5}
        | {"macro_f1": 0.4, "latency_ms": 1.5, "flops": 10**12, "size_bytes": 99, "energy_joules": None}
        | {"detail": {"seed": 1, "한": "글"}}
        | run,
        "label_rounds": {"queue_id": world.queue_id, "arm": "margin", "round": 1, "num_labels": 5, "num_examples": 9}
        | {"accuracy": 0.5, "accuracy_low": 0.2, "accuracy_high": 0.8, "macro_f1": 0.4, "seconds": 1.5}
        | {"created_at": MOMENT},
        "outbox": {"id": 7, "task": "engine.run_unit", "args": ["u1"], "needs": "embed", "created_at": MOMENT},
        "workers": {"name": "h/n/1/2.00", "pid": 1, "needs": "cpu", "started_at": MOMENT, "seen_at": MOMENT},
        "quality_models": {"name": "m", "version": 2, "scorer": "classifier", "file": {"name": "x"}, "summary": {}}
        | {"created_at": MOMENT},
        "label_errors": {"record_id": "r1", "rank": 1, "given": "긍정", "source": "given", "suggested": "부정"}
        | {"confidence": 0.9, "quality": 0.1}
        | run,
        "unit_log": {"id": 3, "unit_id": "u1", "epoch": 2, "at": MOMENT, "level": "ERROR", "message": "no"} | run,
        "schedules": {"id": "s", "name": "nightly", "dataset": "tickets", "kind": "clean", "config": {}}
        | {"trigger": "cron", "cron": "0 3 * * *", "timezone": "Asia/Seoul", "missed": "once", "priority": 3}
        | {"enabled": True, "next_at": MOMENT, "created_at": MOMENT, "updated_at": MOMENT},
        "firings": {"id": "f", "schedule_id": "s", "due_at": MOMENT, "outcome": "started", "detail": {"한": 1}} | run,
        "watched_files": {"schedule_id": "s", "path": "/in/가.jsonl", "size_bytes": 2**40, "mtime_ns": 2**60},
        "requests": {"id": "q", "dataset": "tickets", "kind": "clean", "config": {}, "after_run_id": world.run_id}
        | {"priority": 0, "state": "waiting", "created_at": MOMENT},
        "webhooks": {"id": "w", "url": "https://example.org/hook", "events": ["run.done"], "secret": "s"}
        | {"enabled": True, "created_at": MOMENT},
        "deliveries": {"id": "d", "webhook_id": "w", "event_id": "e", "event": "run.done", "payload": {}}
        | {"state": "waiting", "attempts": 2, "next_at": MOMENT, "created_at": MOMENT},
    }  # fmt: skip


@pytest.fixture
def rows(tmp_path: Path) -> dict[str, list[dict[str, Any]]]:
    """What an installation that has lived holds, table by table."""
    catalog = Catalog(Settings(home=tmp_path / "full"))
    catalog.settings.home.mkdir()
    with catalog.write() as session:
        metadata.create_all(session.connection())
    world = _world(catalog)
    answer(world, catalog, "first")
    found = rows_of(catalog)
    for one in found["users"]:
        one["role"] = {"owner": "admin", "reviewer": "annotator"}.get(one["role"], one["role"])
    found["units"][0]["id"] = "u1"
    for name, row in rest(world).items():
        found[name] = [row]
    catalog.close()
    return found


def tables_at(catalog: Catalog, revision: str) -> dict[str, Table]:
    """Bring the database to a revision and read back what tables it then has."""
    with catalog.write() as session:
        config = migrate.alembic_config()
        config.attributes["connection"] = session.connection()
        command.upgrade(config, revision)
        there = MetaData()
        there.reflect(session.connection())
    return {table.name: table for table in there.sorted_tables if table.name != "alembic_version"}


@pytest.fixture(params=["sqlite", "postgresql"])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalog]:
    """A database without any table, in a home that ``winnow init`` will be given."""
    url = request.getfixturevalue("new_empty_postgres") if request.param == "postgresql" else ""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    catalog = Catalog(Settings(home=home, database_url=url))
    yield catalog
    catalog.close()


@pytest.mark.parametrize("revision", ["0005", "0008"])
def test_every_row_of_an_earlier_release_is_there_after_init(
    revision: str, old: Catalog, rows: dict[str, list[dict[str, Any]]]
) -> None:
    tables = tables_at(old, revision)
    written: dict[str, list[dict[str, Any]]] = {}
    with old.write() as session:
        for name, table in tables.items():
            # By the declared types, through the columns that there were: SQL as that release sent it.
            columns = [metadata.tables[name].columns[column] for column in table.columns.keys()]  # noqa: SIM118
            then = Table(name, MetaData(), *(_bare(column) for column in columns))
            written[name] = [{column.name: row.get(column.name) for column in columns} for row in rows[name]]
            session.execute(insert(then), written[name])
    assert all(written.values()), [name for name, found in written.items() if not found]
    with pytest.raises(ConfigError, match=f"the database is at revision {revision}, this release needs"):
        migrate.check_revision(old)
    old.close()

    told = Winnow(old.settings.home, database_url=old.settings.database_url).ok("init")
    assert (told["migrated"], told["token"]) == (True, None)
    migrate.check_revision(old)
    now = rows_of(old)
    for name, before in written.items():
        columns = before[0].keys()
        after = [{column: row[column] for column in columns} for row in now[name]]
        assert sorted(after, key=repr) == sorted(before, key=repr), name
    assert [one["name"] for one in now["datasets"]] == ["tickets 고객"]


def _bare(column: Any) -> Any:
    # Nothing of today's defaults and keys.
    return Column(column.name, column.type)


def revisions() -> list[Any]:
    """Every revision, oldest first."""
    return list(reversed(list(ScriptDirectory.from_config(migrate.alembic_config()).walk_revisions())))


@pytest.mark.parametrize("revision", [one.revision for one in revisions() if one.revision >= FIRST_HELD])
def test_programs_of_the_release_before_can_work_on_the_new_schema(revision: str, old: Catalog) -> None:
    script = next(one for one in revisions() if one.revision == revision)
    before = tables_at(old, script.down_revision)
    after = tables_at(old, revision)
    assert not script.module.__dict__.get("contracts") or script.module.contracts < script.down_revision
    if script.module.__dict__.get("contracts"):
        return
    for name, table in before.items():
        assert name in after, f"{revision} drops table {name}"
        for column in table.columns:
            assert column.name in after[name].columns, f"{revision} drops {name}.{column.name}"
            there = after[name].columns[column.name]
            assert str(there.type) == str(column.type), f"{revision} changes the type of {name}.{column.name}"
            assert there.nullable or not column.nullable, f"{revision} forbids null in {name}.{column.name}"
        for column in after[name].columns:
            fine = column.name in table.columns or column.nullable or column.server_default is not None
            assert fine, f"{revision} adds {name}.{column.name}, which the release before does not write"


def test_a_worker_and_the_service_of_this_release_refuse_a_newer_schema(tmp_path: Path) -> None:
    catalog = Catalog(Settings(home=tmp_path))
    migrate.upgrade(catalog)
    with catalog.write() as session:
        session.connection().exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    ended = run_worker(tmp_path, "--name", "w")
    assert ended.returncode == 2
    assert "the database is at revision 9999, from a newer release than this one; install that release" in ended.stderr
    refused = Winnow(tmp_path)("up", "--port", "0")
    assert refused.code == 2
    assert "from a newer release" in refused.err
    with pytest.raises(ConfigError, match="newer release"):
        migrate.upgrade(catalog)
    with catalog.read() as session:
        assert session.scalar(select(metadata.tables["users"].c.id)) is None
    catalog.close()
