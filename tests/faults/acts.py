"""What forked processes of these tests do that no program of ours does alone."""

import os
import signal
import socket
import sys
import time
from queue import Empty
from typing import Any

from kombu.messaging import Consumer
from sqlalchemy import event

from catalog import migrate as migrations
from catalog.database import Catalog
from catalog.faults import arm_from_environment
from catalog.settings import load_settings
from service import serve as service
from workers import broker, engine, hearing
from workers import main as worker


def migrate() -> None:
    """``migrate [N]``: bring the database to the newest schema, as ``winnow init``; die before the Nth statement."""
    arm_from_environment()
    catalog = Catalog(load_settings())
    left = int(sys.argv[1]) if len(sys.argv) > 1 else -1

    def count(*_: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(catalog.engine, "before_cursor_execute", count)
    migrations.upgrade(catalog)
    catalog.close()


def take_back() -> None:
    """``take_back OWNER``: give back what a worker held, as its supervisor does that killed it."""
    arm_from_environment()
    catalog = Catalog(load_settings())
    engine.take_back(catalog, sys.argv[1])
    catalog.close()


def cut_worker() -> None:
    """``cut_worker --name NAME PID``: a worker whose Redis, process PID, dies as it hands out its first message."""
    pid = int(sys.argv.pop())
    receive = Consumer._receive_callback

    def receive_and_die(consumer: Consumer, message: Any) -> None:
        nonlocal pid
        if pid:
            os.kill(pid, signal.SIGKILL)
            pid = 0
            time.sleep(0.2)
        receive(consumer, message)

    Consumer._receive_callback = receive_and_die
    # One message under way, as on a machine with one core: then a single acknowledgement that fails is one too many.
    arguments = worker.worker_arguments
    worker.worker_arguments = lambda *given: [*arguments(*given), "--concurrency=1"]
    worker.main()


def deaf_worker() -> None:
    """``deaf_worker --name NAME``: a worker whose client says after the first message that nothing waits, for ever."""
    get = broker.Channel._get
    num_got = 0

    def get_once(channel: broker.Channel, queue: str, timeout: float | None = None) -> Any:
        nonlocal num_got
        if num_got:
            raise Empty
        message = get(channel, queue, timeout)
        num_got += 1
        return message

    broker.Channel._get = get_once
    hearing.DEAF_SECONDS = 1.0
    worker.main()


def serve() -> None:
    """``serve PORT``: the web service on a port of this machine."""
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    sys.argv[1:] = ["--fd", str(listener.fileno())]
    service.main()
