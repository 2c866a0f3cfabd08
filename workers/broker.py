"""The embedded broker: a Celery transport in one SQLite file, for machines where nobody wants to install a server.

kombu's file transport can hand out half-written messages and its SQL one loses the message in flight when a worker is
killed. Here a message is one row, taken by one atomic ``DELETE … RETURNING``. It too is gone when its taker is killed,
and that is enough: a message is only a hint, and the sweeper re-sends whatever the database still calls ready.
"""

import sqlite3
import time
from pathlib import Path
from queue import Empty
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, virtual
from kombu.utils.json import dumps, loads

SCHEME = "sqlq"
DAMAGED = "stop `winnow up` and delete {}*: nothing but messages is in it, and they are sent again"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL, due REAL NOT NULL, body TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS ix_messages_queue ON messages (queue, id);
"""
_TAKE = """
DELETE FROM messages WHERE id = (SELECT id FROM messages WHERE queue = ? ORDER BY id LIMIT 1) RETURNING body
"""


class Channel(virtual.Channel):  # type: ignore[misc]
    """One connection to the message file."""

    supports_fanout = False
    do_restore = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._database: sqlite3.Connection | None = None

    @property
    def _messages(self) -> sqlite3.Connection:
        if self._database is None:
            path = Path("/" + self.connection.client.virtual_host.lstrip("/"))
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=30.0, isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.executescript(_SCHEMA)
        return self._database

    def _put(self, queue: str, message: dict[str, Any], **_: Any) -> None:
        self._messages.execute(
            "INSERT INTO messages (queue, due, body) VALUES (?, ?, ?)", (queue, time.time(), dumps(message))
        )

    def _get(self, queue: str, timeout: float | None = None) -> Any:  # noqa: ARG002 - kombu's signature
        # A read first: an idle worker must not take the write lock fifty times a second.
        waiting = self._messages.execute("SELECT 1 FROM messages WHERE queue = ? LIMIT 1", (queue,)).fetchone()
        rows = self._messages.execute(_TAKE, (queue,)).fetchall() if waiting else []
        if not rows:
            raise Empty
        return loads(rows[0][0])

    def _size(self, queue: str) -> int:
        count: int = self._messages.execute("SELECT count(*) FROM messages WHERE queue = ?", (queue,)).fetchone()[0]
        return count

    def _purge(self, queue: str) -> int:
        return self._messages.execute("DELETE FROM messages WHERE queue = ?", (queue,)).rowcount

    def _delete(self, queue: str, *_: Any, **__: Any) -> None:
        self._purge(queue)

    def _new_queue(self, queue: str, **_: Any) -> None:
        """A queue is nothing but its messages."""

    def close(self) -> None:
        """Close the file."""
        super().close()
        if self._database is not None:
            self._database.close()
            self._database = None


class Transport(virtual.Transport):  # type: ignore[misc]
    """kombu's view of the broker."""

    Channel = Channel
    driver_type = "sqlite"
    driver_name = "sqlite3"
    default_port = 0
    connection_errors = (*virtual.Transport.connection_errors, sqlite3.OperationalError)
    channel_errors = (*virtual.Transport.channel_errors, sqlite3.DatabaseError)
    implements = virtual.Transport.implements.extend(asynchronous=False, exchange_type=frozenset(["direct"]))

    @property
    def default_connection_params(self) -> dict[str, Any]:
        """None: a file has no host, and kombu would warn that it takes ``localhost``."""
        return {}

    def driver_version(self) -> str:
        """The SQLite library's version."""
        return sqlite3.sqlite_version


def is_damaged(error: BaseException) -> bool:
    """Whether the message file itself is broken, rather than locked, full or out of reach."""
    cause = error.__cause__
    return isinstance(cause, sqlite3.DatabaseError) and not isinstance(cause, sqlite3.OperationalError)


def register() -> None:
    """Make ``sqlq://`` URLs known to kombu. Safe to call again."""
    TRANSPORT_ALIASES[SCHEME] = "workers.broker:Transport"
