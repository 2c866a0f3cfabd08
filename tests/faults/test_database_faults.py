"""Databases that are cut off, locked, or whose clients were stopped in the middle: nothing half done, nothing twice."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

import pytest
from psycopg import conninfo
from sqlalchemy import make_url, select, text, update

from catalog import database as database_module
from catalog.database import Catalog
from catalog.errors import TransientError
from catalog.settings import Settings
from catalog.tables.datasets import Dataset
from catalog.tables.engine import Unit
from catalog.tables.labeling import Annotation
from tests.faults.postgres_proxy import Proxy
from tests.faults.toys import Toys
from tests.service.conftest import World as Service
from tests.workers.building import ME, add_dataset
from workers import outbox, sweeping
from workers.execution import execute

NUM_CUTS = {"cut": 15, "deafen": 20, "terminate": 15}
CUT_EVERY = 40
"""A connection is cut about once in so many things that clients send."""


@pytest.fixture
def toys(database: Catalog) -> Iterator[Toys]:
    made = Toys(database)
    yield made
    made.close()


def work_until_ended(toys: Toys, run_id: str) -> None:
    """Deliver and sweep until the run has ended, whatever the database does meanwhile."""
    deadline = time.monotonic() + 60
    while True:
        assert time.monotonic() < deadline
        try:
            for message_id, _task, (unit_id,), _needs in outbox.unsent(toys.catalog):
                execute(toys.catalog, unit_id, ME())
                outbox.mark_sent(toys.catalog, message_id)
            sweeping.sweep(toys.catalog, idle=True)
            if toys.state(run_id) != "running":
                return
        except TransientError:
            continue


@pytest.mark.parametrize("how", NUM_CUTS)
def test_database_cut_off_in_the_middle(
    new_postgres: Callable[[], str], tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = make_url(new_postgres())
    direct = Catalog(Settings(home=tmp_path, database_url=url.render_as_string(hide_password=False)))
    rng = random.Random(13)
    struck = 0
    calm = threading.Event()

    def decide() -> str:
        nonlocal struck
        # A commit is one in ten of what is sent.
        if calm.is_set() or rng.random() > (10 if how == "deafen" else 1) / CUT_EVERY:
            return "pass"
        if how != "terminate":
            return how
        with direct.engine.connect() as connection:
            ended = connection.execute(
                text(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() "
                    "AND pid <> pg_backend_pid() AND state <> 'idle'"
                )
            ).scalar_one()
        struck += ended
        return "pass"

    folder = Path(str(url.query["host"]))
    proxy = Proxy(folder / ".s.PGSQL.5432", decide)
    through = url.set(host="127.0.0.1", port=proxy.port, query={})
    assert conninfo.make_conninfo(through.set(drivername="postgresql").render_as_string()) != ""
    settings = Settings(
        home=tmp_path,
        database_url=through.render_as_string(),
        max_attempts=1000,
        lease_seconds=0.5,
        heartbeat_seconds=0.2,
        sweep_seconds=0.01,
    )
    catalog = Catalog(settings)
    toys = Toys(catalog)
    run_ids: set[str] = set()
    try:
        while struck + proxy.num_cut + proxy.num_deafened < NUM_CUTS[how]:
            key = f"run {len(run_ids)}"
            calm.clear()
            while True:
                try:
                    run_id = toys.ask(key)
                    break
                except TransientError:
                    continue
            work_until_ended(toys, run_id)
            calm.set()
            assert run_id not in run_ids
            run_ids.add(run_id)
            toys.check_done(run_id)
    finally:
        calm.set()
        toys.close()
        catalog.close()
        proxy.close()
    with direct.read() as session:
        assert len(session.scalars(select(Unit.run_id).distinct()).all()) == len(run_ids)
    direct.close()


def test_transaction_of_a_client_that_was_stopped_does_not_hold_up_the_others(
    new_postgres: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "IDLE_SECONDS", 0.3)
    settings = Settings(home=tmp_path, database_url=new_postgres())
    stopped, other = Catalog(settings), Catalog(settings)
    with stopped.write() as session:
        dataset_id = add_dataset(session).id
    rename = update(Dataset).where(Dataset.id == dataset_id)
    with pytest.raises(TransientError, match="idle"), stopped.write() as session:
        session.execute(rename.values(name="of the one that was stopped"))
        began = time.monotonic()
        with other.write() as another:
            another.execute(rename.values(name="of the other"))
        assert 0.1 < time.monotonic() - began < 10
        session.execute(rename.values(name="of the one that wakes up"))
    with other.read() as session:
        assert session.get_one(Dataset, dataset_id).name == "of the other"
    stopped.close()
    other.close()


@pytest.fixture
def service(database: Catalog) -> Iterator[Service]:
    made = Service(database)
    made.add_user("annotator", "annotator")
    made.fill()
    yield made
    made.close()


def test_answer_waits_for_a_locked_database_and_is_then_refused_whole(
    database: Catalog, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "BUSY_SECONDS", 1.0)
    holder = Catalog(database.settings)
    client = service.client("annotator")
    task = client.post(f"/api/v1/queues/{service.queue_id}/next").json()["task"]
    path = f"/api/v1/leases/{task['lease_id']}/annotation"
    answer = {"key": "key-of-the-answer", "value": "긍정"}

    def kept() -> list[str]:
        with database.read() as session:
            return list(session.scalars(select(Annotation.key)))

    @contextmanager
    def held() -> Iterator[threading.Event]:
        """Another writer is at the same rows until told to go on."""
        locked, go_on = threading.Event(), threading.Event()

        def run() -> None:
            with holder.write() as session:
                if not holder.is_sqlite:
                    session.execute(text("LOCK TABLE annotations, label_assignments IN ACCESS EXCLUSIVE MODE"))
                locked.set()
                go_on.wait(60)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            assert locked.wait(60)
            yield go_on
        finally:
            go_on.set()
            thread.join()

    with held():
        began = time.monotonic()
        refused = client.put(path, json=answer)
        assert time.monotonic() - began > 0.9
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1"), refused.text
    assert refused.json()["code"] == "transient"
    assert "stayed locked for 1 s" in refused.json()["message"]
    assert kept() == []
    # So patient that no machine is too busy to let the other go first.
    monkeypatch.setattr(database_module, "BUSY_SECONDS", 60.0)
    # Connections keep what they were opened with.
    service.app.state.catalog.close()
    with held() as go_on, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.put, path, json=answer)
        assert wait([waiting], timeout=0.3).not_done
        go_on.set()
        assert waiting.result(60).status_code == 200
    assert kept() == [answer["key"]]
    holder.close()
