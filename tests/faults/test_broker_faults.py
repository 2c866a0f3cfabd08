"""Messages that come five times, never, or cannot be sent: the database knows what is to be done, once."""

import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from redis import Redis
from sqlalchemy import delete, select

from catalog.tables.engine import Outbox, Unit
from tests.faults.conftest import BROKERS, NUM_BROKEN, NUM_FILES, NUM_RECORDS, PLACES, purge
from tests.faults.world import World
from tests.servers import RabbitServer, RedisServer, rabbitmq_server
from workers import hearing, outbox, runs
from workers.app import BrokerAwayError, deliver, make_app

TIMES = 5
RESTORED_SECONDS = 60.0


def check(world: World, undisturbed: dict[str, Any]) -> None:
    world.check(NUM_FILES * NUM_RECORDS, NUM_FILES * NUM_BROKEN)
    assert world.outcome() == undisturbed


def claims(world: World) -> set[tuple[int, int]]:
    """How often units were claimed and tried."""
    with world.catalog.read() as session:
        return {tuple(row) for row in session.execute(select(Unit.epoch, Unit.attempts))}


@pytest.mark.parametrize("place", BROKERS)
def test_each_message_five_times_to_three_workers(
    new_world: Callable[..., World], corpus: list[str], undisturbed: dict[str, Any], place: str
) -> None:
    # Nobody's lease must run out on a machine that has much else to do.
    world = new_world(place, lease_seconds=30.0)
    app = make_app(world.settings)
    ended = threading.Event()

    def repeat() -> None:
        """Send everything that is ready again and again, beside those who send it once."""
        sent: dict[str, int] = {}
        while not ended.wait(0.01):
            with world.catalog.read() as session:
                for unit_id in session.scalars(select(Unit.id).where(Unit.state.in_(("ready", "running")))):
                    if sent.get(unit_id, 0) < TIMES - 1:
                        app.send_task("engine.run_unit", args=[unit_id])
                        sent[unit_id] = sent.get(unit_id, 0) + 1
        repeated.update(sent)

    repeated: dict[str, int] = {}
    thread = threading.Thread(target=repeat)
    with world.workers(3):
        thread.start()
        try:
            world.work(corpus)
        finally:
            ended.set()
            thread.join()
    assert max(repeated.values()) == TIMES - 1
    assert claims(world) == {(1, 1)}
    check(world, undisturbed)


def forget_everything(world: World) -> int:
    """Delete every message that is in the broker; how many there were."""
    if world.settings.broker_url.startswith("amqp"):
        return purge(world.settings.broker_url)
    if world.settings.broker_url:
        with Redis.from_url(world.settings.broker_url) as redis:
            found = redis.llen("winnow.cpu")
            redis.flushall()
            return int(found)
    path = world.home / "broker.db"
    if not path.exists():
        return 0
    with sqlite3.connect(path, timeout=30) as messages:
        try:
            return messages.execute("DELETE FROM messages").rowcount
        finally:
            messages.commit()


@pytest.mark.parametrize("place", BROKERS)
def test_broker_wiped_again_and_again(
    new_world: Callable[..., World], corpus: list[str], undisturbed: dict[str, Any], place: str
) -> None:
    world = new_world(place)
    run_id = world.ask_ingest(corpus)
    world.relay()
    assert forget_everything(world) == NUM_FILES
    assert world.num_unsent() == 0
    began = time.monotonic()
    with world.workers():
        world.wait_for(run_id)
        judge = world.ask_judge()
        with world.catalog.write() as session:
            session.execute(delete(Outbox))
        world.wait_for(judge)
        forget_everything(world)
    assert time.monotonic() - began < RESTORED_SECONDS
    check(world, undisturbed)


def test_file_of_the_embedded_broker_deleted_under_its_workers(
    new_world: Callable[..., World], corpus: list[str], undisturbed: dict[str, Any]
) -> None:
    world = new_world(PLACES[0])
    with world.workers(2):
        world.wait_for(self_made := world.ask_ingest(corpus))
        for path in world.home.glob("broker.db*"):
            path.unlink()
        began = time.monotonic()
        judge = world.ask_judge()
        world.relay()
        world.wait_for(judge)
        assert time.monotonic() - began < RESTORED_SECONDS
    assert self_made != judge
    check(world, undisturbed)


@pytest.fixture(params=["redis", "rabbitmq"])
def own_broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisServer | RabbitServer]:
    """A broker that the test may kill: Redis forgets all by it, RabbitMQ keeps its queue."""
    if request.param == "rabbitmq":
        with rabbitmq_server() as server:
            yield server
        return
    folder = tmp_path / "redis"
    folder.mkdir()
    server = RedisServer(folder)
    server.start()
    yield server
    server.stop()


def test_broker_killed_and_started_again_in_the_middle(
    new_world: Callable[..., World],
    corpus: list[str],
    undisturbed: dict[str, Any],
    own_broker: RedisServer | RabbitServer,
) -> None:
    world = new_world("sqlite+embedded", broker_url=own_broker.url)
    began = time.monotonic()
    with world.workers(2, spec="work.after=stall:0.5@1"):
        run_id = world.ask_ingest(corpus)
        world.relay()
        world.wait_until(lambda: world.struck())
        own_broker.stop(signal.SIGKILL)
        with pytest.raises(BrokerAwayError, match="does not answer"):
            with world.catalog.write() as session:
                outbox.announce(session, "0" * 36, world.catalog.now(session), "cpu")
            deliver(world.catalog, make_app(world.settings))
        own_broker.start()
        world.wait_for(run_id)
        judge = world.ask_judge()
        world.relay()
        world.wait_for(judge)
        world.wait_until(lambda: world.num_unsent() == 0)
    assert time.monotonic() - began < RESTORED_SECONDS
    check(world, undisturbed)


@pytest.mark.parametrize("own_broker", ["redis"], indirect=True)
def test_redis_that_dies_with_a_message_on_the_way_is_listened_to_again(
    new_world: Callable[..., World], corpus: list[str], undisturbed: dict[str, Any], own_broker: RedisServer
) -> None:
    world = new_world("sqlite+embedded", broker_url=own_broker.url)
    name = f"{world.folder} w0"
    world.start(name, "cut_worker", "--name", "w0", str(own_broker.pid))
    world.wait_until(lambda: runs.num_workers_alive(world.catalog))
    # Beyond what it asks the server at its start, and before it does so again, after ten seconds.
    time.sleep(3.0)
    run_id = world.ask_ingest(corpus)
    world.relay()

    def is_done() -> bool:
        with world.catalog.read() as session:
            return session.scalar(select(Unit.id).where(Unit.state == "done").limit(1)) is not None

    world.wait_until(is_done)
    # What follows a unit's end, an acknowledgement for one, must find nobody there.
    time.sleep(1.0)
    assert psutil.Process(own_broker.pid).status() == psutil.STATUS_ZOMBIE
    own_broker.stop()
    own_broker.start()
    began = time.monotonic()
    world.wait_for(run_id)
    judge = world.ask_judge()
    world.relay()
    world.wait_for(judge)
    assert time.monotonic() - began < RESTORED_SECONDS
    world.nursery.order(stop=name)
    world.nursery.ends(name)
    check(world, undisturbed)


@pytest.mark.parametrize("place", BROKERS)
def test_idle_worker_is_deaf_when_messages_wait_and_none_comes(
    new_world: Callable[..., World], corpus: list[str], place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hearing, "DEAF_SECONDS", 0.0)
    world = new_world(place)
    listener = hearing.Hearing(make_app(world.settings), ["cpu", "train"])
    assert not any(listener.is_lost(idle=True) for _ in range(2 * hearing.DEAF_SWEEPS))
    world.ask_ingest(corpus)
    world.relay()
    several = range(hearing.DEAF_SWEEPS)
    assert not any(listener.is_lost(idle=False) for _ in (*several, *several))
    assert not any(listener.is_lost(idle=True) for _ in several)
    listener.note()
    assert not any(listener.is_lost(idle=True) for _ in (0, *several))
    assert listener.is_lost(idle=True)
    assert forget_everything(world) == NUM_FILES
    assert not listener.is_lost(idle=True)


def test_worker_that_no_message_reaches_any_more_starts_itself_anew(
    new_world: Callable[..., World], corpus: list[str], undisturbed: dict[str, Any]
) -> None:
    world = new_world(PLACES[0])
    name = f"{world.folder} w0"
    world.start(name, "deaf_worker", "--name", "w0")
    world.wait_for(world.ask_ingest(corpus))
    # The same process: whoever started it has lost nobody.
    world.nursery.order(stop=name)
    assert world.nursery.ends(name) == [-signal.SIGKILL]
    assert "starts itself anew" in (world.folder / "deaf_worker.log").read_text()
    with world.workers():
        world.wait_for(world.ask_judge())
    check(world, undisturbed)


def test_message_that_the_locked_broker_does_not_take_stays_in_the_outbox(
    new_world: Callable[..., World], corpus: list[str], undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = new_world(PLACES[0])
    run_id = world.ask_ingest(corpus)
    with sqlite3.connect(world.home / "broker.db") as messages:
        messages.execute("PRAGMA journal_mode=WAL")
    real = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *given, **options: real(*given, **options | {"timeout": 0.2}))
    holder = real(world.home / "broker.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(BrokerAwayError, match="locked"):
        deliver(world.catalog, make_app(world.settings))
    assert world.num_unsent() == NUM_FILES
    holder.execute("ROLLBACK")
    holder.close()
    with world.workers():
        world.wait_for(run_id)
        judge = world.ask_judge()
        world.wait_for(judge)
    check(world, undisturbed)
