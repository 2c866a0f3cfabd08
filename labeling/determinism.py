"""Results that do not depend on how many threads computed them."""

import importlib
from contextlib import AbstractContextManager
from typing import Any


def one_thread() -> AbstractContextManager[Any]:
    """A block in which numeric libraries use one thread: sums of parts depend on how many threads made the parts."""
    limits: AbstractContextManager[Any] = importlib.import_module("threadpoolctl").threadpool_limits(limits=1)
    return limits
