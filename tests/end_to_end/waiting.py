"""Processes and what becomes of them."""

import time
from collections.abc import Callable

PATIENCE_SECONDS = 120.0
"""For what has no bound of its own: the machine may be busy."""


def wait_until(holds: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> bool:
    """Whether something came to hold in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.05)
    return bool(holds())
