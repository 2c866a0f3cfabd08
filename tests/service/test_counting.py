"""Counting a large queue once for all who watch it."""

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from service import counting
from service.counting import Counting

NOW = datetime(2026, 11, 29, tzinfo=UTC)


class Counter:
    """Counts slowly, and how often."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.num_counts = seconds, 0

    def __call__(self, _session: Any, *, now: datetime, queue_id: str) -> Any:
        self.num_counts += 1
        time.sleep(self.seconds)
        return f"{queue_id} {self.num_counts}"


@pytest.mark.parametrize(("fresh_seconds", "num_counts"), [(60.0, 3), (0.02, 1)])
def test_only_what_takes_long_to_count_is_told_again(monkeypatch: Any, fresh_seconds: float, num_counts: int) -> None:
    counter = Counter(0.03)
    monkeypatch.setattr(counting.queue, "progress", counter)
    monkeypatch.setattr(counting, "FRESH_SECONDS", fresh_seconds)
    board = Counting()
    told = [board.progress(None, now=NOW, queue_id="a") for _ in range(3)]
    assert counter.num_counts == num_counts
    assert told[-1] == f"a {num_counts}"
    assert board.progress(None, now=NOW, queue_id="b") == f"b {num_counts + 1}"


def test_figures_are_counted_anew_once_they_are_old(monkeypatch: Any) -> None:
    monkeypatch.setattr(counting.queue, "progress", Counter(0.03))
    later = time.monotonic() + 3600.0
    board = Counting()
    assert board.progress(None, now=NOW, queue_id="a") == "a 1"
    monkeypatch.setattr(counting.time, "monotonic", lambda: later)
    assert board.progress(None, now=NOW, queue_id="a") == "a 2"
