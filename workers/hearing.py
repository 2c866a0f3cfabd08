"""Whether the broker's messages still reach this worker: one that is deaf sweeps, looks alive, and does no work."""

import logging
import os
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

from celery import Celery
from kombu.exceptions import OperationalError

from workers.app import queue_of

DEAF_SECONDS = 60.0
"""How long messages may wait and none come before a worker starts itself anew."""

DEAF_SWEEPS = 12
"""And in so many sweeps at least: one that was suspended has missed nothing."""

log = logging.getLogger(__name__)


class Hearing:
    """Counts the sweeps in which this worker had nothing to do although messages waited for it.

    A client that still believes in a connection that is gone waits on it for ever, and no timeout of its own ends that.
    Whatever the cause: a worker that listens and has nothing to do takes what waits at once.
    """

    def __init__(self, app: Celery, serves: Sequence[str]) -> None:
        self.app = app
        self.queues = [queue_of(needs) for needs in serves]
        self.num_heard = 0
        self._heard_before = 0
        self._num_unheard = 0
        self._since = 0.0
        # Celery writes into it what it would not read again.
        self._environment = dict(os.environ)

    def note(self) -> None:
        """A message has come."""
        self.num_heard += 1

    def is_lost(self, *, idle: bool) -> bool:
        """Look once, after a sweep; whether the messages have passed this worker by for too long."""
        if not idle or self.num_heard != self._heard_before or not self._messages_wait():
            self._heard_before = self.num_heard
            self._num_unheard = 0
            return False
        if not self._num_unheard:
            self._since = time.monotonic()
        self._num_unheard += 1
        return self._num_unheard > DEAF_SWEEPS and time.monotonic() - self._since > DEAF_SECONDS

    def _messages_wait(self) -> bool:
        with self.app.pool.acquire(block=True) as connection:
            try:
                return any(self._num_waiting(connection, queue) for queue in self.queues)
            except (OperationalError, *connection.connection_errors, OSError):
                # A broker that is away is heard by nobody; Celery itself waits until it is back.
                return False

    @staticmethod
    def _num_waiting(connection: object, queue: str) -> int:
        with connection.channel() as channel:  # type: ignore[attr-defined]
            try:
                return int(channel.queue_declare(queue, passive=True).message_count)
            except connection.channel_errors:  # type: ignore[attr-defined]
                # Nothing was ever sent there.
                return 0

    def start_anew(self) -> NoReturn:
        """Replace this process by a fresh one of the same command line, under the same process id."""
        log.error("messages have waited for %.0f s and none came here; this worker starts itself anew", DEAF_SECONDS)
        logging.shutdown()
        command = [sys.executable, "-m", "workers.main", *sys.argv[1:]]
        os.execve(sys.executable, command, self._environment)  # noqa: S606 - this very program, no shell
