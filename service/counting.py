"""A queue's progress for everybody who watches it: counting a large queue takes long, and all ask for the same."""

import threading
import time
from datetime import datetime

from sqlalchemy.orm import Session

from labeling import queue

SHARE_OF_TIME = 0.05
"""At most, for counting: what took long to count is told again for as much longer."""
FRESH_SECONDS = 0.02
"""What takes less than this is counted whenever somebody asks."""


class Counting:
    """One of each web service."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told: dict[str, tuple[float, queue.Progress]] = {}

    def progress(self, session: Session, *, now: datetime, queue_id: str) -> queue.Progress:
        """``labeling.queue.progress``, of a large queue as it was some moments ago.

        Raises
        ------
        NotFoundError : no such queue.
        """
        with self._lock:
            until, told = self._told.get(queue_id, (0.0, None))
            began = time.monotonic()
            if told is not None and began < until:
                return told
            if told is not None:
                # One counts; whoever asks meanwhile is told the old figures.
                self._told[queue_id] = (began + 1.0, told)
        found = queue.progress(session, now=now, queue_id=queue_id)
        ended = time.monotonic()
        fresh = 0.0 if ended - began < FRESH_SECONDS else (ended - began) / SHARE_OF_TIME
        with self._lock:
            if fresh:
                self._told[queue_id] = (ended + fresh, found)
            else:
                self._told.pop(queue_id, None)
        return found
