"""100 annotators and a cleaning run in one SQLite file: every answer is kept once, and the run ends."""

from pathlib import Path

import pytest

from benchmarks.annotators import NUM_ANNOTATORS, Plan, rehearse


@pytest.mark.slow
def test_hundred_annotators_beside_a_cleaning_lose_and_double_nothing(tmp_path: Path) -> None:
    # Leases so short that many answers come late, and every second one is sent again.
    plan = Plan(num_tasks=200, num_records=2_000, think_seconds=1.0, lease_seconds=2.0, repeat_ratio=0.5)
    figures = rehearse(tmp_path, plan)
    assert plan.num_annotators == NUM_ANNOTATORS == 100
    assert (figures["lost"], figures["doubled"], figures["refused"]) == (0, 0, {})
    assert figures["answers"] == plan.num_tasks + figures["late"]
