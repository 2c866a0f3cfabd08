"""Backups are of one moment, whole or not there, and give back everything, in either kind of database."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from alembic import command
from sqlalchemy import MetaData, func, select, update

from catalog import migrate
from catalog.database import Catalog
from catalog.errors import ConfigError, ConflictError, CorruptionError, NotFoundError
from catalog.settings import Settings
from catalog.snapshot import sha256_of
from catalog.store import Store
from catalog.tables import metadata
from catalog.tables.access import User
from catalog.tables.datasets import Version
from catalog.tables.engine import Outbox, Run, Unit, Worker
from catalog.tables.labeling import LabelEvent
from labeling import queue
from service.auth import authenticate
from tests.cli.command import Winnow
from tests.faults.world import Nursery
from tests.service.conftest import World, _world
from tests.workers.building import drain
from tests.workers.corpus import sentences, write_files
from tests.workers.test_determinism import (
    ask_clean,
    ask_ingest,
    make_catalog,
    outcome,
    relay,
    worker_processes,
)
from tests.workers.test_pipelines import write_rows
from workers import backup as backups
from workers import engine, outbox, process_names
from workers.app import make_app
from workers.backup import list_backups, mend_files, restore, take_backup
from workers.garbage import collect


def settings_of(folder: Path, kind: str, request: pytest.FixtureRequest, **options: Any) -> dict[str, Any]:
    url = request.getfixturevalue("new_empty_postgres") if kind == "postgresql" else ""
    return {"home": folder, "database_url": url} | options


def reopen(like: Catalog, **changed: Any) -> Catalog:
    return Catalog(like.settings.model_copy(update=changed))


def rows_of(catalog: Catalog) -> dict[str, list[dict[str, Any]]]:
    """Everything in every table, as Python values."""
    with catalog.read() as session:
        return {
            table.name: [
                dict(row) for row in session.execute(select(table).order_by(*table.primary_key.columns)).mappings()
            ]
            for table in metadata.sorted_tables
        }


@pytest.mark.parametrize(("kind", "into"), [("sqlite", "postgresql"), ("postgresql", "sqlite")])
def test_a_run_backed_up_while_workers_do_it_ends_alike_elsewhere(
    kind: str, into: str, tmp_path: Path, nursery: Nursery, request: pytest.FixtureRequest
) -> None:
    catalog = make_catalog(**settings_of(tmp_path / "home", kind, request))
    ask_ingest(catalog, write_files(tmp_path / "in", 1, 80))
    drain(catalog)
    run_id = ask_clean(catalog, tmp_path)
    taken = []
    with worker_processes(nursery, catalog, 2 if kind == "sqlite" else 1):
        relay(catalog, make_app(catalog.settings))
        while not taken or not caught_in_the_act(tmp_path / "backups" / taken[-1].name):
            with catalog.read() as session:
                assert session.get_one(Run, run_id).state == "running", "the run was too fast to be caught"
                begun = session.scalar(select(func.count()).where(Unit.run_id == run_id, Unit.state == "done"))
            if not begun:
                time.sleep(0.01)
                continue
            taken.append(take_backup(catalog, tmp_path / "backups"))
    # The workers have given back what they were at. How the run ends does not depend on who does it.
    with catalog.write() as session:
        outbox.announce_ready(session, run_id, catalog.now(session))
    drain(catalog)
    expected = outcome(catalog)
    assert taken[-1].damaged == []

    elsewhere = settings_of(tmp_path / "elsewhere", into, request)
    restored = reopen(catalog, **elsewhere)
    told = restore(restored.settings, tmp_path / "backups")
    assert told.num_woken >= 1
    with restored.read() as session:
        assert session.get_one(Run, run_id).state == "running"
        states = dict(
            session.execute(select(Unit.state, func.count()).where(Unit.run_id == run_id).group_by(Unit.state)).all()
        )
        assert states.keys() == {"ready", "done"}, states
        assert session.scalar(select(func.count()).select_from(Outbox)) == states["ready"]
        assert session.scalar(select(func.count()).select_from(Worker)) == 0
        assert (session.scalar(select(func.max(Unit.attempts)).where(Unit.state == "ready")) or 0) == 0
    drain(restored)
    assert outcome(restored) == expected
    for one in (catalog, restored):
        one.close()


def caught_in_the_act(place: Path) -> bool:
    states = pq.read_table(place / "units.parquet", columns=["state"])["state"].to_pylist()
    return "running" in states


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Users, tokens, a dataset, a cleaning, a queue with texts: a little of everything, on SQLite."""
    catalog = Catalog(Settings(home=tmp_path / "home"))
    catalog.settings.home.mkdir()
    with catalog.write() as session:
        metadata.create_all(session.connection())
    Store.of(catalog.settings).create()
    return _world(catalog)


def answer(world: World, catalog: Catalog, key: str) -> None:
    with catalog.write() as session:
        now = catalog.now(session)
        ann = world.users["annotator"]
        served = queue.next_task(session, now=now, queue_id=world.queue_id, annotator_id=ann)
        assert isinstance(served, queue.Served)
        queue.submit(session, now=now, lease_id=served.lease_id, annotator_id=ann, value="중립", key=key)


def test_every_row_comes_back_from_one_kind_of_database_to_the_other_and_back(
    world: World, tmp_path: Path, new_empty_postgres: str
) -> None:
    answer(world, world.catalog, "first")
    before = rows_of(world.catalog)
    take_backup(world.catalog, tmp_path / "one")
    there = Catalog(Settings(home=tmp_path / "there", database_url=new_empty_postgres))
    restore(there.settings, tmp_path / "one")
    migrate.check_revision(there)
    assert rows_of(there) == before
    # Numbers that the database gives out go on where they were.
    answer(world, there, "second")
    with there.read() as session:
        assert session.scalar(select(func.max(LabelEvent.id))) > max(one["id"] for one in before["label_events"])
        assert authenticate(session, now=there.now(session), token=world.tokens["curator"]).name == "curator"
    after = rows_of(there)
    take_backup(there, tmp_path / "two")
    back = Catalog(Settings(home=tmp_path / "back"))
    restore(back.settings, tmp_path / "two")
    assert rows_of(back) == after
    answer(world, back, "third")
    for one in (world.catalog, there, back):
        one.close()


@pytest.mark.parametrize("into", ["sqlite", "postgresql"])
def test_nothing_refers_to_processes_and_messages_of_elsewhere(
    into: str, world: World, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with world.catalog.write() as session:
        now = world.catalog.now(session)
        for number, state in enumerate(("running", "done")):
            values = {"kind": "clean", "dataset_id": world.dataset_id, "config": {}, "config_hash": "0" * 64}
            session.add(Run(id=f"run-{number}", idempotency_key=f"{number}", state=state, created_at=now, **values))
        session.flush()
        about = {"stage": 0, "stage_name": "measure", "payload": {}, "ready_at": now}
        held = {"state": "running", "owner": "host/ns/1/2.00", "lease_until": now, "epoch": 5, "attempts": 2}
        session.add_all(
            [
                Unit(id="held", run_id="run-0", position=0, **about | held),
                Unit(id="waiting", run_id="run-0", position=1, needs="train", attempts=1, **about),
                Unit(id="over", run_id="run-1", position=0, state="done", **about),
                Outbox(task="engine.run_unit", args=["waiting"], created_at=now),
                Worker(name="host/ns/1/2.00", pid=1, started_at=now, seen_at=now),
            ]
        )
        made = {"dataset_id": world.dataset_id, "kind": "raw", "manifest_name": "m", "manifest_sha256": "0" * 64}
        for number, (name, parent) in enumerate((("z", None), ("a", "z"))):
            counts = {"number": 7 + number, "num_records": 0, "num_shards": 0, "created_at": now}
            # In the order of ids, the child comes before its parent.
            session.add(Version(id=name, parent_id=parent, run_id=f"run-{number}", **made | counts))
            session.flush()
    take_backup(world.catalog, tmp_path / "backups")
    restored = Catalog(Settings(**settings_of(tmp_path / "elsewhere", into, request)))
    assert restore(restored.settings, tmp_path / "backups").num_woken == 1
    with restored.read() as session:
        unit = session.get_one(Unit, "held")
        assert (unit.state, unit.owner, unit.lease_until, unit.epoch, unit.attempts) == ("ready", None, None, 5, 1)
        assert session.scalar(select(func.count()).select_from(Worker)) == 0
        messages = session.execute(select(Outbox.args, Outbox.needs).order_by(Outbox.id)).all()
        assert [tuple(one) for one in messages] == [(["held"], "cpu"), (["waiting"], "train")]
        assert session.get_one(Version, "a").parent_id == "z"
    mine = engine.claim(restored, "held", process_names.this_process())
    assert mine is not None
    assert (mine.epoch, mine.attempts) == (6, 2)
    restored.close()


@pytest.fixture
def ingested(tmp_path: Path) -> Catalog:
    """A home with 60 records in several shards."""
    catalog = make_catalog(tmp_path / "home")
    ask_ingest(catalog, [write_rows(tmp_path / "a.jsonl", sentences(60, seed=1))])
    drain(catalog)
    return catalog


KILLED = """
import os, signal, sys
from pathlib import Path
from catalog.database import Catalog
from catalog.settings import load_settings
from workers.backup import take_backup

def progress(done, total):
    if done == 3:
        os.kill(os.getpid(), signal.SIGKILL)

take_backup(Catalog(load_settings()), Path(sys.argv[1]), progress=progress)
"""


def test_a_killed_backup_is_none_and_the_next_goes_on_from_its_files(ingested: Catalog, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    whole = take_backup(ingested, folder)
    assert whole.num_copied == whole.num_files > 5
    again = take_backup(ingested, folder)
    assert (again.num_copied, again.num_files) == (0, whole.num_files)
    fresh = tmp_path / "fresh"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(fresh)],
        env=os.environ | {"WINNOW_HOME": str(ingested.settings.home), "PYTHONPATH": str(Path.cwd())},
        check=False,
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL
    assert list_backups(fresh) == []
    with pytest.raises(NotFoundError, match="folder /nowhere/at/all is not there"):
        restore(Settings(home=tmp_path / "new"), Path("/nowhere/at/all"))
    with pytest.raises(NotFoundError, match="holds no whole backup"):
        restore(Settings(home=tmp_path / "new"), fresh)
    done = take_backup(ingested, fresh)
    assert done.num_copied == whole.num_files - 3
    assert [one["name"] for one in list_backups(fresh)] == [done.name]
    assert not list(fresh.glob("*.partial"))
    assert not list(fresh.rglob("snapshot.db*"))


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def a_file(place: Path) -> Path:
    return next((place.parent / "files" / "text").rglob("*.parquet"))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a table": lambda place: flip(place / "runs.parquet"),
    "the list": lambda place: flip(place / "files.parquet"),
    "a file": lambda place: flip(a_file(place)),
    "a file gone": lambda place: a_file(place).unlink(),
}


@pytest.mark.parametrize("name", sorted(DAMAGES))
def test_a_damaged_backup_is_refused_and_leaves_no_database(name: str, ingested: Catalog, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    place = folder / take_backup(ingested, folder).name
    shutil.copytree(folder, tmp_path / "good")
    DAMAGES[name](place)
    elsewhere = Settings(home=tmp_path / "elsewhere")
    with pytest.raises(CorruptionError, match=r"use another backup|is damaged|missing or damaged"):
        restore(elsewhere, folder)
    assert not list(elsewhere.home.glob("winnow.db*"))
    restore(elsewhere, tmp_path / "good")
    assert rows_of(Catalog(elsewhere))["shards"] == rows_of(ingested)["shards"]


def test_what_is_not_empty_is_not_restored_into(ingested: Catalog, tmp_path: Path) -> None:
    take_backup(ingested, tmp_path / "backups")
    before = rows_of(ingested)
    with pytest.raises(ConfigError, match="is not empty"):
        restore(ingested.settings, tmp_path / "backups")
    assert rows_of(ingested) == before
    elsewhere = Settings(home=tmp_path / "elsewhere")
    elsewhere.home.mkdir()
    Store.of(elsewhere).create()
    Store.of(elsewhere).write_bytes(b"mine", "models", "bin")
    with pytest.raises(ConfigError, match=r"store .* is not empty"):
        restore(elsewhere, tmp_path / "backups")
    assert not list(elsewhere.home.glob("winnow.db*"))


def test_places_that_would_not_do_are_refused(ingested: Catalog, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="within the home folder"):
        take_backup(ingested, ingested.settings.home / "backups")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("mine")
    with pytest.raises(ConfigError, match="something else than backups"):
        take_backup(ingested, tmp_path / "other")
    with pytest.raises(ConfigError, match="is a file"):
        take_backup(ingested, tmp_path / "other" / "letter.txt")
    with backups._alone_in(tmp_path / "backups"), pytest.raises(ConflictError, match="another backup"):
        take_backup(ingested, tmp_path / "backups")


def test_a_damaged_file_of_the_store_is_told_and_the_rest_is_backed_up(ingested: Catalog, tmp_path: Path) -> None:
    store = ingested.settings.home / "store"
    flip(next((store / "text").rglob("*.parquet")))
    done = take_backup(ingested, tmp_path / "backups")
    assert len(done.damaged) == 1
    told = restore(Settings(home=tmp_path / "elsewhere"), tmp_path / "backups")
    assert told.damaged == done.damaged
    assert told.num_files == done.num_files


def test_files_of_a_home_in_use_are_mended_from_a_backup(ingested: Catalog, tmp_path: Path) -> None:
    take_backup(ingested, tmp_path / "backups")
    store = ingested.settings.home / "store"
    damaged, missing, lost = sorted((store / "text").rglob("*.parquet"))[:3]
    before = [one.read_bytes() for one in (damaged, missing)]
    flip(damaged)
    missing.unlink()
    flip(lost)
    flip(tmp_path / "backups" / "files" / lost.relative_to(store))
    told = mend_files(ingested.settings, tmp_path / "backups")
    assert {Path(one).name for one in told.mended} == {damaged.name, missing.name}
    assert [Path(one).name for one in told.lost] == [lost.name]
    assert [one.read_bytes() for one in (damaged, missing)] == before
    assert mend_files(ingested.settings, tmp_path / "backups").mended == []


def test_a_bucket_is_backed_up_restored_mended_and_swept(s3_bucket: str, tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path / "home", store_url=f"{s3_bucket}/winnow")
    ask_ingest(catalog, [write_rows(tmp_path / "a.jsonl", sentences(30, seed=1))])
    drain(catalog)
    done = take_backup(catalog, tmp_path / "backups")
    assert done.num_copied == done.num_files > 3
    assert take_backup(catalog, tmp_path / "backups").num_copied == 0
    restored = reopen(catalog, home=tmp_path / "elsewhere", store_url=f"{s3_bucket}/another")
    assert restore(restored.settings, tmp_path / "backups").num_files == done.num_files
    wanted = {one.name for one in Store.of(catalog.settings).files()}
    store = Store.of(restored.settings)
    assert {one.name for one in store.files()} == wanted
    name = next(one for one in sorted(wanted) if one.startswith("text/"))
    assert store.remove(name, before=time.time() + 60)
    assert mend_files(restored.settings, tmp_path / "backups").mended == [name]

    orphan = store.write_bytes(b"nobody's", "models", "bin")
    young = collect(restored, delete=True)
    assert (young.orphans, young.num_young) == ([], 1)
    assert store.remove(orphan.name, before=time.time() + 60)
    with restored.write() as session:
        run = session.scalars(select(Run)).one()
        run.state = "running"
    with pytest.raises(ConflictError, match="only while none is"):
        collect(restored, delete=True)
    assert collect(restored).orphans == []
    for one in (catalog, restored):
        one.close()


def as_of_release(place: Path, revision: str, folder: Path) -> dict[str, list[str]]:
    """Make the backup one of an earlier release: only the tables and columns that there were then, which it returns."""
    catalog = Catalog(Settings(home=folder))
    folder.mkdir()
    config = migrate.alembic_config()
    with catalog.write() as session:
        config.attributes["connection"] = session.connection()
        command.upgrade(config, revision)
        there = MetaData()
        there.reflect(session.connection())
    document = json.loads((place / "backup.json").read_text())
    for name in list(document["tables"]):
        path = place / f"{name}.parquet"
        if name not in there.tables:
            path.unlink()
            del document["tables"][name]
            continue
        table = pq.read_table(path).select(list(there.tables[name].columns.keys()))
        pq.write_table(table, path, write_page_checksum=True)
        document["tables"][name]["sha256"] = sha256_of(path)
    document["revision"] = revision
    (place / "backup.json").write_text(json.dumps(document))
    catalog.close()
    return {name: [column.name for column in table.columns] for name, table in there.tables.items()}


@pytest.mark.parametrize("into", ["sqlite", "postgresql"])
def test_a_backup_of_an_earlier_release_opens_and_one_of_a_later_is_refused(
    into: str, world: World, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    answer(world, world.catalog, "first")
    with world.catalog.write() as session:
        # Roles of then.
        session.execute(update(User).where(User.role == "owner").values(role="admin"))
        session.execute(update(User).where(User.role == "reviewer").values(role="annotator"))
    place = tmp_path / "backups" / take_backup(world.catalog, tmp_path / "backups").name
    columns = as_of_release(place, "0007", tmp_path / "old")
    restored = Catalog(Settings(**settings_of(tmp_path / "elsewhere", into, request)))
    restore(restored.settings, tmp_path / "backups")
    migrate.check_revision(restored)
    before, after = rows_of(world.catalog), rows_of(restored)
    for name in ("users", "tokens", "runs", "units", "verdicts", "annotations", "label_events", "audit"):
        kept = [{column: row[column] for column in columns[name]} for row in before[name]]
        assert [{column: row[column] for column in columns[name]} for row in after[name]] == kept, name
    restored.close()
    document = json.loads((place / "backup.json").read_text())
    (place / "backup.json").write_text(json.dumps(document | {"revision": "9999", "release": "9.0"}))
    with pytest.raises(ConfigError, match=r"of release 9\.0 \(revision 9999\), newer than"):
        restore(Settings(home=tmp_path / "third"), tmp_path / "backups")


def test_the_commands_back_up_list_and_restore(tmp_path: Path) -> None:
    winnow = Winnow(tmp_path / "home")
    token = winnow.ok("init")["token"]
    done = winnow.ok("backup", tmp_path / "backups")
    assert (done["copied"], done["damaged"]) == (0, [])
    elsewhere = Winnow(tmp_path / "elsewhere")
    (listed,) = elsewhere.ok("restore", tmp_path / "backups", "--list")
    assert (listed["backup"], listed["database"]) == (done["backup"], "sqlite")
    told = elsewhere("restore", tmp_path / "backups", "--at", done["backup"])
    assert (told.code, told.out) == (0, "")
    assert "every SHA-256 verified" in told.err
    assert "next: `winnow doctor`" in told.err
    catalog = Catalog(Settings(home=elsewhere.home))
    with catalog.read() as session:
        assert authenticate(session, now=catalog.now(session), token=token).role == "admin"
    catalog.close()
    assert elsewhere.ok("restore", tmp_path / "backups", "--files") | {"backup": ""} == {
        "backup": "",
        "files": 0,
        "mended": [],
        "lost": [],
    }
    refused = elsewhere("restore", tmp_path / "backups")
    assert (refused.code, refused.out) == (2, "")
    assert "is not empty" in refused.err
    assert oct((tmp_path / "backups").stat().st_mode)[-3:] == "700"
