"""Laws of every pacing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.errors import ConfigError
from training.pacing import PACING, Online

NAMES = sorted(PACING.load())
ONLINE = [name for name in NAMES if isinstance(PACING[name].configured(), Online)]


def test_the_promised_pacings_exist() -> None:
    promised = "random linear root step competence warmup_then_random anti same_pacing_random mixture"
    assert set(promised.split()) <= set(NAMES)
    assert {"self_paced", "low_loss", "high_loss"} == set(ONLINE)


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


@pytest.mark.parametrize("name", ONLINE)
@given(data=st.data(), progress=st.floats(0.01, 0.99), at_least=st.integers(1, 10))
def test_new_weights_leave_a_batch_and_never_bring_back_what_has_none(
    name: str, data: st.DataObject, progress: float, at_least: int
) -> None:
    losses = st.lists(st.floats(0, 20) | st.just(float("nan")), min_size=12, max_size=40)
    loss = np.array(data.draw(losses))
    weight = np.array([0.0, 2.0, *[1.0] * (len(loss) - 2)])
    new = PACING[name].configured().reweighted(weight, loss, progress, at_least)
    assert np.isfinite(new).all()
    assert (new >= 0).all()
    assert new[0] == 0
    assert (new > 0).sum() >= at_least
    again = PACING[name].configured().reweighted(weight, loss.copy(), progress, at_least)
    assert new.tolist() == again.tolist()


def test_self_paced_keeps_the_smallest_losses_and_more_of_them_with_time() -> None:
    pacing = PACING["self_paced"].configured({"start": 0.5, "full_at": 1.0, "end": 0.8})
    loss, weight = np.array([3.0, 1.0, 2.0, 4.0, np.nan, 0.5, 9.0, 8.0, 7.0, 6.0, 5.0]), np.ones(11)
    kept = [np.flatnonzero(pacing.reweighted(weight, loss, progress, 1)).tolist() for progress in (0.0, 0.5, 1.0)]
    assert kept[0] == [0, 1, 2, 3, 4, 5]
    assert kept[1] == [0, 1, 2, 3, 4, 5, 9, 10]
    assert kept[2] == [0, 1, 2, 3, 4, 5, 8, 9, 10]


def test_by_loss_draws_one_end_of_the_ranking_as_often_as_it_is_told() -> None:
    loss, weight = np.array([3.0, 1.0, np.nan, 2.0]), np.array([1.0, 1.0, 1.0, 2.0])
    low = PACING["low_loss"].configured({"pressure": 4.0}).reweighted(weight, loss, 0.5, 1)
    high = PACING["high_loss"].configured({"pressure": 4.0}).reweighted(weight, loss, 0.5, 1)
    assert low.tolist() == [1.0, 4.0, 2.0, 4.0]
    assert high.tolist() == [4.0, 1.0, 2.0, 4.0]


@pytest.mark.parametrize("of", ["linear", "root", "step", "competence", "warmup_then_random"])
@pytest.mark.parametrize(("name", "first"), [("anti", "hardest"), ("same_pacing_random", "any")])
@given(progress=st.floats(0, 1))
def test_a_control_has_the_growth_of_the_pacing_that_it_is_named_for(
    of: str, name: str, first: str, progress: float
) -> None:
    config = PACING[name].configured({"of": of, "options": {"full_at": 0.9} if of != "warmup_then_random" else {}})
    pool = PACING[name].member(progress, config)
    original = PACING[of].configured(config.options)
    assert pool.fraction == PACING[of].member(progress, original).fraction
    assert pool.first == first


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("anti", {"of": "same_pacing_random"}, "is a control itself"),
        ("anti", {"of": "root", "start": 0.1}, "have no effect beside of and options"),
        ("anti", {"of": "root", "options": {"strat": 0.1}}, "did you mean 'start'"),
        ("anti", {"start": 2.0}, "start=2.0 must lie in"),
        ("step", {"num_stages": 1}, "num_stages=1 must be at least 2"),
        ("competence", {"root": 0.5}, r"root=0.5 must lie in \[1, 100\]"),
        ("mixture", {"final": {"a": 1}}, "final is given without shares"),
        ("mixture", {"shares": {"a": 0}}, "every share is 0"),
        ("mixture", {"shares": {"a": "much"}}, "a='much' must be a number"),
        ("mixture", {"shares": 3}, "shares=3 must be a mapping"),
        ("self_paced", {"every": 0}, "every=0 must be at least 1"),
        ("self_paced", {"end": 0.1}, r"end=0.1 must lie in \[start=0.5, 1\]"),
        ("low_loss", {"pressure": 0.5}, "pressure=0.5 must lie in"),
    ],
)
def test_options_out_of_range_or_without_effect_are_refused(
    name: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        PACING[name].configured(options)


def test_step_stays_for_a_while_and_jumps() -> None:
    config = PACING["step"].configured({"start": 0.4, "num_stages": 3, "full_at": 0.5})
    fractions = [PACING["step"].member(progress, config).fraction for progress in (0, 0.24, 0.25, 0.49, 0.5, 1)]
    assert fractions == pytest.approx([0.4, 0.4, 0.7, 0.7, 1, 1])


def test_competence_is_the_root_pacing_at_root_two() -> None:
    square = PACING["competence"].configured({"initial": 0.2})
    for progress in np.linspace(0, 1, 11):
        expected = PACING["root"].member(progress, PACING["root"].configured()).fraction
        assert PACING["competence"].member(progress, square).fraction == pytest.approx(expected)
