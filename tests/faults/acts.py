"""What forked processes of these tests do that no program of ours does alone."""

import os
import signal
import socket
import sys
from typing import Any

from sqlalchemy import event

from catalog import migrate as migrations
from catalog.database import Catalog
from catalog.faults import arm_from_environment
from catalog.settings import load_settings
from service import serve as service
from workers import engine


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


def serve() -> None:
    """``serve PORT``: the web service on a port of this machine."""
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    sys.argv[1:] = ["--fd", str(listener.fileno())]
    service.main()
