"""The same input gives byte-equal manifests and verdicts: any worker count, file order, broker, kill or repetition."""

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from catalog import migrate
from catalog.database import Catalog
from catalog.settings import Settings
from catalog.store import Store
from catalog.tables.curation import DuplicatePair, Verdict
from catalog.tables.datasets import Version
from catalog.tables.engine import Run, Unit
from curation.recipe import load_recipe
from tests.faults.world import Nursery
from tests.servers import S3Server
from tests.workers.building import drain
from tests.workers.corpus import RECIPE, write_files
from workers import manifests, outbox, process_names, runs
from workers.app import make_app, queue_of, relay
from workers.pipelines.clean import submit_clean
from workers.pipelines.ingest import submit_ingest

NUM_FILES, NUM_RECORDS = 3, 40
FINISH_SECONDS = 200.0


def make_catalog(home: Path, **options: Any) -> Catalog:
    """A migrated home with tiny shards, so that a small corpus is many units."""
    home.mkdir(parents=True, exist_ok=True)
    small: dict[str, Any] = {"shard_rows": 20, "lease_seconds": 4.0, "heartbeat_seconds": 1.0, "sweep_seconds": 0.5}
    settings = Settings(home=home, **{**small, "max_attempts": 20, **options})
    catalog = Catalog(settings)
    migrate.upgrade(catalog)
    Store.of(settings).create()
    return catalog


def ask_ingest(catalog: Catalog, paths: list[str]) -> str:
    run_id = submit_ingest(catalog, dataset="tickets", paths=paths, text_column="body", label_column="queue").run_id
    assert run_id is not None
    return run_id


def ask_clean(catalog: Catalog, folder: Path) -> str:
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE)
    run_id, _ = submit_clean(catalog, dataset="tickets", recipe=load_recipe(str(recipe)))
    return run_id


def outcome(catalog: Catalog) -> dict[str, Any]:
    """Everything that must not differ between two ways of doing the same work."""
    store = Store.of(catalog.settings)
    with catalog.read() as session:
        run = session.scalars(select(Run).where(Run.kind == "clean")).one()
        assert run.state == "done", run.reason
        verdicts = session.scalars(select(Verdict).where(Verdict.run_id == run.id).order_by(Verdict.record_id))
        pairs = session.scalars(
            select(DuplicatePair)
            .where(DuplicatePair.run_id == run.id)
            .order_by(DuplicatePair.record_id, DuplicatePair.keeper_id)
        )
        return {
            "manifests": [
                (one.kind, one.manifest_sha256, one.num_records)
                for one in session.scalars(select(Version).order_by(Version.number))
            ],
            "verdicts": [
                (
                    one.record_id,
                    one.kept,
                    one.reason,
                    one.failed,
                    json.dumps([one.measured, one.scores], sort_keys=True),
                )
                for one in verdicts
            ],
            "pairs": [(one.record_id, one.keeper_id, one.kind, one.jaccard, one.accepted) for one in pairs],
            "measured": sorted(
                row for file in manifests.run_files(session, run.id, "pairs") for row in store.read_frame(file).rows()
            ),
        }


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_files(tmp_path_factory.mktemp("corpus"), NUM_FILES, NUM_RECORDS)


@pytest.fixture(scope="module")
def undisturbed(paths: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One process, every message once, files in order."""
    folder = tmp_path_factory.mktemp("undisturbed")
    catalog = make_catalog(folder / "home")
    ask_ingest(catalog, paths)
    drain(catalog)
    ask_clean(catalog, folder)
    drain(catalog)
    found = outcome(catalog)
    catalog.close()
    assert len(found["verdicts"]) == NUM_FILES * (NUM_RECORDS + 5)
    reasons = {reason for _, _, reason, _, _ in found["verdicts"]}
    assert reasons >= {None, "char_count", "exact_duplicate", "near_duplicate"}
    return found


@pytest.mark.no_cover
@pytest.mark.parametrize("dedup_rows", [9, 100])
def test_size_of_the_units_changes_nothing(
    paths: list[str], undisturbed: dict[str, Any], tmp_path: Path, dedup_rows: int
) -> None:
    catalog = make_catalog(tmp_path / "home", dedup_rows=dedup_rows)
    ask_ingest(catalog, paths)
    drain(catalog)
    ask_clean(catalog, tmp_path)
    drain(catalog)
    assert outcome(catalog) == undisturbed
    with catalog.read() as session:
        names = session.scalars(select(Unit.stage_name).join(Run).where(Run.kind == "clean")).all()
    # So small that every stage has several units.
    assert min(names.count(stage) for stage in ("sign", "exact", "bucket", "route", "verify", "settle")) > 1 or (
        dedup_rows == 100
    )
    catalog.close()


@pytest.mark.no_cover
def test_file_order_and_repeated_messages_change_nothing(
    paths: list[str], undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    catalog = make_catalog(tmp_path / "home")
    ask_ingest(catalog, list(reversed(paths)))
    drain(catalog, times=3)
    ask_clean(catalog, tmp_path)
    drain(catalog, times=3)
    assert outcome(catalog) == undisturbed
    catalog.close()


@pytest.mark.no_cover
@pytest.mark.parametrize("place", [0, 1, NUM_FILES])
def test_equal_files_under_other_names_change_nothing_wherever_they_stand(
    paths: list[str], undisturbed: dict[str, Any], tmp_path: Path, place: int
) -> None:
    copy = Path(paths[0]).with_name("part-9.jsonl")
    copy.write_bytes(Path(paths[0]).read_bytes())
    catalog = make_catalog(tmp_path / "home")
    ask_ingest(catalog, [*paths[:place], str(copy), *paths[place:]])
    drain(catalog)
    ask_clean(catalog, tmp_path)
    drain(catalog)
    assert outcome(catalog) == undisturbed
    catalog.close()


@pytest.mark.no_cover
def test_postgresql_gives_the_same_as_sqlite(
    paths: list[str], undisturbed: dict[str, Any], tmp_path: Path, new_empty_postgres: str
) -> None:
    catalog = make_catalog(tmp_path / "home", database_url=new_empty_postgres)
    ask_ingest(catalog, paths)
    drain(catalog)
    ask_clean(catalog, tmp_path)
    drain(catalog)
    assert outcome(catalog) == undisturbed
    catalog.close()


def settings_in_environment(catalog: Catalog) -> dict[str, str]:
    return {
        f"WINNOW_{key.upper()}": str(value)
        for key, value in catalog.settings.model_dump().items()
        if value != "" and not isinstance(value, bool)
    }


@contextmanager
def worker_processes(nursery: Nursery, catalog: Catalog, count: int, *, first: int = 0) -> Iterator[None]:
    """Workers that are started again whenever they end, and asked to stop at the end."""
    home = catalog.settings.home
    environment = settings_in_environment(catalog) | {
        name: value for name, value in os.environ.items() if name.startswith("AWS_")
    }
    names = {f"{home} w{first + number}": f"w{first + number}" for number in range(count)}
    for name, short in names.items():
        log = str(home / f"{short}.log")
        order = {"program": "worker", "arguments": ["--name", short], "environment": environment, "log": log}
        nursery.order(start=name, keep=True, **order)
    try:
        yield
    finally:
        for name in names:
            nursery.order(stop=name, number=signal.SIGTERM)
        for name in names:
            nursery.ends(name)


def send_times(catalog: Catalog, times: int) -> None:
    """Publish every message of the outbox several times, as a broker that repeats itself would."""
    app = make_app(catalog.settings)
    for _id, task, args, needs in outbox.unsent(catalog):
        for _ in range(times - 1):
            app.send_task(task, args=args, queue=queue_of(needs))
    relay(catalog, app)


def wait_for(catalog: Catalog, run_id: str) -> None:
    deadline = time.monotonic() + FINISH_SECONDS
    while time.monotonic() < deadline:
        with catalog.read() as session:
            seen = runs.run_progress(session, run_id, catalog.now(session))
        if seen.state != "running":
            assert seen.state == "done", seen.reason
            return
        time.sleep(0.05)
    logs = "\n".join(path.read_text()[-1500:] for path in catalog.settings.home.glob("*.log"))
    raise AssertionError(f"not finished after {FINISH_SECONDS} s: {seen}\n{logs}")


@pytest.mark.no_cover
def test_three_worker_processes_on_every_broker_with_repeated_messages(
    paths: list[str], undisturbed: dict[str, Any], tmp_path: Path, nursery: Nursery, broker_url: str
) -> None:
    catalog = make_catalog(tmp_path / "home", broker_url=broker_url)
    with worker_processes(nursery, catalog, 3):
        run_id = ask_ingest(catalog, paths)
        send_times(catalog, 3)
        wait_for(catalog, run_id)
        run_id = ask_clean(catalog, tmp_path)
        send_times(catalog, 3)
        wait_for(catalog, run_id)
    assert outcome(catalog) == undisturbed
    catalog.close()


@pytest.mark.no_cover
def test_two_machines_that_share_the_store_the_database_and_the_broker_alone(
    paths: list[str],
    undisturbed: dict[str, Any],
    tmp_path: Path,
    nursery: Nursery,
    new_empty_postgres: str,
    redis_url: str,
) -> None:
    shared = {"database_url": new_empty_postgres, "broker_url": redis_url, "store_url": str(tmp_path / "store")}
    catalog = make_catalog(tmp_path / "asking", dedup_rows=20, **shared)
    machines = [make_catalog(tmp_path / f"machine-{number}", dedup_rows=20, **shared) for number in range(2)]
    ask_ingest(catalog, paths)
    drain(catalog)
    with ExitStack() as stack:
        for number, machine in enumerate(machines):
            stack.enter_context(worker_processes(nursery, machine, 1, first=number))
        run_id = ask_clean(catalog, tmp_path)
        relay(catalog, make_app(catalog.settings))
        wait_for(catalog, run_id)
    assert outcome(catalog) == undisturbed
    with catalog.read() as session:
        stages = session.execute(select(Unit.stage_name, Unit.owner).where(Unit.run_id == run_id)).all()
    owners = {owner for _, owner in stages}
    assert len(owners) == 2, "one of the two did nothing"
    # Nothing of one machine's own folder is of use to the other, and none has a database or a store there.
    for machine in machines:
        assert not machine.settings.home.joinpath("store").exists()
        assert not machine.settings.home.joinpath("winnow.db").exists()
        machine.close()
    catalog.close()


@pytest.mark.no_cover
def test_two_machines_on_postgresql_redis_and_s3_whose_store_is_away_for_a_while(
    paths: list[str],
    undisturbed: dict[str, Any],
    tmp_path: Path,
    nursery: Nursery,
    new_empty_postgres: str,
    redis_url: str,
    s3_bucket: str,
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Without the driver's own patience, so that units notice.
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    shared = {"database_url": new_empty_postgres, "broker_url": redis_url, "store_url": f"{s3_bucket}/winnow"}
    catalog = make_catalog(tmp_path / "asking", max_attempts=2, **shared)
    machines = [make_catalog(tmp_path / f"machine-{number}", max_attempts=2, **shared) for number in range(2)]
    app = make_app(catalog.settings)
    with ExitStack() as stack:
        for number, machine in enumerate(machines):
            stack.enter_context(worker_processes(nursery, machine, 1, first=number))
        run_id = ask_ingest(catalog, paths)
        relay(catalog, app)
        wait_for(catalog, run_id)
        run_id = ask_clean(catalog, tmp_path)
        relay(catalog, app)
        # Not at once: some units are to be done already.
        while num_units(catalog, run_id, "done") < 5:
            time.sleep(0.01)
        s3_server.stop()
        time.sleep(3)
        assert num_units(catalog, run_id, "poisoned") == 0
        s3_server.start()
        wait_for(catalog, run_id)
    logs = "".join(path.read_text() for machine in machines for path in machine.settings.home.glob("w*.log"))
    assert "goes back: store s3://" in logs
    assert outcome(catalog) == undisturbed
    with catalog.read() as session:
        owners = set(session.scalars(select(Unit.owner).where(Unit.run_id == run_id)))
    assert len(owners) == 2, "one of the two did nothing"
    for machine in machines:
        assert not machine.settings.home.joinpath("store").exists()
        machine.close()
    catalog.close()


def num_units(catalog: Catalog, run_id: str, state: str) -> int:
    with catalog.read() as session:
        return session.scalar(select(func.count()).where(Unit.run_id == run_id, Unit.state == state)) or 0


@pytest.mark.no_cover
@pytest.mark.parametrize(("database_name", "broker_name"), [("sqlite", "embedded"), ("postgresql", "redis")])
def test_workers_killed_in_the_middle_leave_exactly_one_verdict_a_record(
    paths: list[str],
    undisturbed: dict[str, Any],
    tmp_path: Path,
    nursery: Nursery,
    database_name: str,
    broker_name: str,
    request: pytest.FixtureRequest,
) -> None:
    database_url = request.getfixturevalue("new_empty_postgres") if database_name == "postgresql" else ""
    broker_url = request.getfixturevalue("redis_url") if broker_name == "redis" else ""
    catalog = make_catalog(tmp_path / "home", database_url=database_url, broker_url=broker_url)
    ask_ingest(catalog, paths)
    drain(catalog)
    run_id = ask_clean(catalog, tmp_path)
    rng = random.Random(5)
    kills = 0
    with worker_processes(nursery, catalog, 2):
        relay(catalog, make_app(catalog.settings))
        deadline = time.monotonic() + FINISH_SECONDS
        while kills < 3 and time.monotonic() < deadline:
            with catalog.read() as session:
                owner = session.scalars(
                    select(Unit.owner).where(Unit.run_id == run_id, Unit.state == "running").limit(1)
                ).one_or_none()
                if session.get_one(Run, run_id).state != "running":
                    break
            # Until its lease runs out a unit is that of a worker that was killed before.
            if owner is None or process_names.is_gone(owner):
                time.sleep(0.002)
                continue
            os.kill(int(owner.split("/")[2]), signal.SIGKILL)
            kills += 1
            time.sleep(rng.random())
        wait_for(catalog, run_id)
    assert kills >= 1
    with catalog.read() as session:
        num_verdicts = session.scalar(select(func.count()).where(Verdict.run_id == run_id))
        max_attempts = session.scalar(select(func.max(Unit.attempts)).where(Unit.run_id == run_id))
    assert num_verdicts == NUM_FILES * (NUM_RECORDS + 5)
    assert max_attempts is not None
    assert max_attempts >= 2
    assert outcome(catalog) == undisturbed
    catalog.close()
