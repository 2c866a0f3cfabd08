"""The embedded broker hands every message to one taker, in order, whole."""

import multiprocessing
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from kombu import Connection, Exchange, Queue

from workers import broker

QUEUE = Queue("q", Exchange("q", type="direct"), routing_key="q")


def connect(path: Path) -> Connection:
    broker.register()
    return Connection(f"sqlq:///{path}", transport_options={"polling_interval": 0.005})


def publish(connection: Connection, bodies: list[Any]) -> None:
    with connection.Producer() as producer:
        for body in bodies:
            producer.publish(body, exchange=QUEUE.exchange, routing_key="q", declare=[QUEUE], serializer="json")


def take_all(connection: Connection) -> list[Any]:
    taken = []
    channel = connection.channel()
    bound = QUEUE(channel)
    bound.declare()
    while (message := bound.get(no_ack=True)) is not None:
        taken.append(message.payload)
    return taken


def test_messages_come_back_in_order_and_once(tmp_path: Path) -> None:
    with connect(tmp_path / "b.db") as connection:
        bodies = [{"n": n, "text": "한국어 🎉" * 1000} for n in range(20)]
        publish(connection, bodies)
        with connect(tmp_path / "b.db") as other:
            assert take_all(other) == bodies
        assert take_all(connection) == []


def test_size_and_purge(tmp_path: Path) -> None:
    with connect(tmp_path / "b.db") as connection:
        publish(connection, [1, 2, 3])
        channel = connection.channel()
        assert channel._size("q") == 3
        assert channel.queue_purge("q") == 3
        assert channel._size("q") == 0
        with pytest.raises(Empty):
            channel._get("q")
        publish(connection, [4])
        channel.queue_delete("q")
        assert channel._size("q") == 0
        assert connection.transport.driver_version().startswith("3.")


def _take(path: str, results: Any) -> None:
    import time

    taken, idle_since = [], time.monotonic()
    with connect(Path(path)) as connection:
        while time.monotonic() - idle_since < 1.0:
            found = take_all(connection)
            if found:
                taken += found
                idle_since = time.monotonic()
    results.put(taken)


def _give(path: str, start: int) -> None:
    with connect(Path(path)) as connection:
        publish(connection, [{"n": start + n, "pad": "x" * 50_000} for n in range(200)])


def test_many_producers_and_takers_lose_and_double_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    path = str(tmp_path / "b.db")
    with connect(tmp_path / "b.db") as connection:
        publish(connection, [])
    takers = [context.Process(target=_take, args=(path, results)) for _ in range(3)]
    givers = [context.Process(target=_give, args=(path, 1000 * n)) for n in range(2)]
    for process in [*takers, *givers]:
        process.start()
    numbers = sorted(body["n"] for _ in takers for body in results.get(timeout=120))
    for process in [*takers, *givers]:
        process.join()
        assert process.exitcode == 0
    assert numbers == sorted([*range(200), *range(1000, 1200)])
