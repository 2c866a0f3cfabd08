"""A broker that goes away costs time and nothing else: no message, no worker, no run."""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog.database import Catalog, database_now
from catalog.errors import ConfigError
from catalog.settings import Settings
from catalog.tables.base import new_id
from catalog.tables.engine import Outbox, Worker
from tests.faults.world import Nursery
from tests.servers import RedisServer
from tests.workers.corpus import write_files
from tests.workers.test_determinism import ask_ingest, make_catalog, wait_for, worker_processes
from workers import outbox
from workers.app import BrokerAwayError, broker_name, deliver, make_app, relay
from workers.main import Sweeper
from workers.stopping import STOPPING


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis server of this test alone, not yet started."""
    (tmp_path / "redis").mkdir()
    server = RedisServer(tmp_path / "redis")
    yield server
    server.stop()


def add_message(catalog: Catalog) -> None:
    with catalog.write() as session:
        outbox.announce(session, new_id(), catalog.now(session), "cpu")


def num_messages(catalog: Catalog) -> int:
    return len(outbox.unsent(catalog))


def test_messages_stay_in_the_outbox_until_the_broker_is_back(database: Catalog, redis: RedisServer) -> None:
    settings = database.settings.model_copy(update={"broker_url": redis.url.replace("//", "//:hidden@")})
    catalog = Catalog(settings)
    add_message(catalog)
    app = make_app(settings)
    assert relay(catalog, app) == 0
    with pytest.raises(BrokerAwayError, match=r"the broker at redis://:\*\*@127.0.0.1:\d+/0 does not answer") as caught:
        deliver(catalog, app)
    assert "hidden" not in str(caught.value)
    assert num_messages(catalog) == 1
    catalog.close()
    catalog = Catalog(database.settings.model_copy(update={"broker_url": redis.url}))
    redis.start()
    assert relay(catalog, make_app(catalog.settings)) == 1
    assert num_messages(catalog) == 0
    catalog.close()


def test_a_damaged_message_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path)
    add_message(catalog)
    file = tmp_path / "broker.db"
    file.write_text("this is a letter to my aunt, not a database of any kind " * 40)
    with pytest.raises(BrokerAwayError, match=rf"not a database\); stop `winnow up` and delete {file}\*"):
        deliver(catalog, make_app(catalog.settings))
    file.unlink()
    assert relay(catalog, make_app(catalog.settings)) == 1
    catalog.close()


def test_a_broker_that_nobody_knows_is_refused_without_its_password(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, broker_url="reddis://me:hidden@queue/0")
    with pytest.raises(ConfigError, match=r"broker reddis://me:\*\*@queue/0 cannot be used .*redis://HOST:6379/0"):
        make_app(settings)
    several = Settings(home=tmp_path, broker_url="amqp://me:hidden@a//;amqp://me:hidden@b//")
    assert broker_name(several) == "amqp://me:**@a//;amqp://me:**@b//"


def signs_of_life(catalog: Catalog) -> list[datetime]:
    with catalog.read() as session:
        return list(session.scalars(select(Worker.seen_at).order_by(Worker.name)))


def wait_for_life(catalog: Catalog, *, since: list[datetime]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        seen = signs_of_life(catalog)
        if len(seen) == len(since) and all(later > earlier for earlier, later in zip(since, seen, strict=True)):
            return
        time.sleep(0.05)
    logs = "\n".join(path.read_text()[-1500:] for path in catalog.settings.home.glob("*.log"))
    raise AssertionError(f"a worker shows no life any more\n{logs}")


def test_a_run_is_finished_once_the_broker_is_back(tmp_path: Path, nursery: Nursery, redis: RedisServer) -> None:
    redis.start()
    catalog = make_catalog(tmp_path / "home", broker_url=redis.url)
    with worker_processes(nursery, catalog, 2):
        wait_for_life(catalog, since=[datetime.min.replace(tzinfo=UTC)] * 2)
        redis.stop()
        run_id = ask_ingest(catalog, write_files(tmp_path / "files", 2, 40))
        for _ in range(3):
            # A sweep ends with the sending: whoever shows life again has failed to send, and goes on.
            wait_for_life(catalog, since=signs_of_life(catalog))
        assert num_messages(catalog) > 0
        redis.start()
        wait_for(catalog, run_id)
    catalog.close()


class FaultyClock:
    """The database's clock, which breaks a few times in the thread of one name."""

    def __init__(self, thread: str) -> None:
        self.thread = thread
        self.left = 2

    def __call__(self, session: Session) -> datetime:
        if threading.current_thread().name == self.thread and self.left > 0:
            self.left -= 1
            raise RuntimeError("nobody foresaw this")
        return database_now(session)


def test_a_sweeper_outlives_what_nobody_foresaw(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path)
    catalog.clock = FaultyClock("sweeper")
    add_message(catalog)
    sweeper = Sweeper(catalog)
    try:
        sweeper.start()
        deadline = time.monotonic() + 30
        while num_messages(catalog) and time.monotonic() < deadline:
            time.sleep(0.05)
        with catalog.read() as session:
            assert session.scalars(select(Outbox.id)).all() == []
    finally:
        STOPPING.set()
        sweeper.join()
        STOPPING.clear()
    assert len(signs_of_life(catalog)) == 1
    catalog.close()
