"""Looks after queues once answers have come in, so that nobody waits for it: not even for the next task, which the
browser asks for on the connection of the answer.
"""

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from catalog.database import Catalog
from catalog.errors import ServiceError

PAUSE_SECONDS = 0.25
"""Between two looks at one queue."""
LONGEST_PAUSE_SECONDS = 5.0
SHARE_OF_TIME = 0.05
"""At most, for looking: where it takes long, the pauses are longer."""

log = logging.getLogger(__name__)


class Refresher:
    """Asks for a queue's next generation when it is due: one queue after the other, each once however often named."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="refresher")
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._waiting: set[str] = set()
        self._not_before: dict[str, float] = {}

    def look_after(self, queue_id: str) -> None:
        """Soon, in a thread of its own. What is lost with the process comes again with the next answer."""
        with self._lock:
            if queue_id in self._waiting:
                return
            self._waiting.add(queue_id)
        self._executor.submit(self._refresh, queue_id)

    def close(self) -> None:
        """End: what was still to be looked after comes again with the next answer."""
        self._closed.set()
        self._executor.shutdown(cancel_futures=True)

    def _refresh(self, queue_id: str) -> None:
        from workers.labeling import refresh_if_due

        if self._closed.wait(max(0.0, self._not_before.get(queue_id, 0.0) - time.monotonic())):
            return
        began = time.monotonic()
        with self._lock:
            # Before looking: an answer that comes from now on may be the one that makes it due.
            self._waiting.discard(queue_id)
        try:
            refresh_if_due(self._catalog, queue_id)
        except ServiceError as error:
            log.warning("queue %s was not looked after, the next answer does so again: %s", queue_id, error)
        except Exception:
            log.exception("looking after queue %s failed", queue_id)
        ended = time.monotonic()
        pause = min(max((ended - began) / SHARE_OF_TIME, PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
        self._not_before[queue_id] = ended + pause
