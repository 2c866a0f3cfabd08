"""Laws of every pacing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.pacing import PACING

NAMES = sorted(PACING.load())


def test_the_promised_pacings_exist() -> None:
    assert {"random", "linear", "root", "warmup_then_random", "anti", "same_pacing_random"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
@given(progress=st.lists(st.floats(0, 1), min_size=2, max_size=2))
def test_pool_lies_in_range_and_never_shrinks(name: str, progress: list[float]) -> None:
    pacing = PACING[name]
    early, late = (pacing.member(one, pacing.configured()).fraction for one in sorted(progress))
    assert 0 < early <= late <= 1


@pytest.mark.parametrize("name", NAMES)
def test_every_record_is_available_in_the_end(name: str) -> None:
    pacing = PACING[name]
    assert pacing.member(1.0, pacing.configured()).fraction == 1.0


@pytest.mark.parametrize("name", NAMES)
def test_the_end_that_is_drawn_from_never_changes_midway(name: str) -> None:
    pacing = PACING[name]
    assert len({pacing.member(step / 20, pacing.configured()).first for step in range(21)}) == 1
