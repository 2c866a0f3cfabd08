"""Whether this process was asked to stop. A running unit looks at it and gives its claim back."""

import os
import signal
import threading
import time

STOPPING = threading.Event()
WATCH_SECONDS = 1.0


def watch_parent(parent: int) -> None:
    """Stop this process as if asked to once whoever started it is gone without a word. For a thread of its own."""
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    STOPPING.set()
    os.kill(os.getpid(), signal.SIGTERM)
