"""Laws of every schedule, and the shape that each one promises."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.errors import ConfigError
from training.schedules import SCHEDULES

NAMES = sorted(SCHEDULES.load())


def rates(name: str, total_steps: int, **options: float) -> list[float]:
    schedule = SCHEDULES[name]
    config = schedule.configured(options)
    return [schedule.member(step, total_steps, config) for step in range(total_steps)]


@pytest.mark.parametrize("name", NAMES)
@given(total_steps=st.integers(1, 300))
def test_rate_is_a_share_of_its_peak_and_every_step_learns(name: str, total_steps: int) -> None:
    assert all(0 < rate <= 1 for rate in rates(name, total_steps))


def test_constant_rises_then_stays_at_its_peak() -> None:
    found = rates("constant", 100, warmup=0.1)
    assert found[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert found[10:] == [1.0] * 90
    assert rates("constant", 5, warmup=0.0) == [1.0] * 5


def test_wsd_rises_stays_and_falls_to_almost_nothing() -> None:
    found = rates("wsd", 100, warmup=0.1, decay=0.2)
    assert found[:10] == sorted(found[:10])
    assert found[10:80] == [1.0] * 70
    assert found[80:] == pytest.approx([(100 - step) / 21 for step in range(80, 100)])


@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_cosine_and_linear_rise_then_fall_to_their_share(name: str) -> None:
    found = rates(name, 100, warmup=0.1, final=0.2)
    assert found[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert found[10] == 1.0
    assert found[10:] == sorted(found[10:], reverse=True)
    assert found[55] == pytest.approx(0.6)  # half way, both
    assert found[-1] == pytest.approx(0.2, abs=0.01)
    # A quarter of the way the cosine has lost less.
    quarter = {"cosine": 0.2 + 0.8 * (1 + math.sqrt(0.5)) / 2, "linear": 0.8}[name]
    assert found[32] == pytest.approx(quarter, abs=0.01)
    assert rates(name, 5, warmup=0.0, final=1.0) == [1.0] * 5


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("constant", {"warmup": 1.5}, "warmup=1.5 must lie in"),
        ("wsd", {"decay": -0.1}, "decay=-0.1 must lie in"),
        ("wsd", {"warmup": 0.7, "decay": 0.6}, "must be at most 1; shorten one"),
        ("cosine", {"final": 1.5}, "final=1.5 must lie in"),
        ("linear", {"warmup": -1.0}, "warmup=-1.0 must lie in"),
        ("wsd", {"warmpu": 0.1}, "did you mean 'warmup'"),
    ],
)
def test_impossible_shapes_are_refused(name: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SCHEDULES[name].configured(options)
