"""Learning curves: their area, and what a strategy saved."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.errors import DataError
from labeling.simulation import CurvePoint, LabelsSaved, LearningCurve, area_under_curve, labels_saved, labels_to_reach


def curve(*points: tuple[int, float]) -> LearningCurve:
    return LearningCurve(tuple(CurvePoint(num_labels=n, accuracy=a, macro_f1=a, low=a, high=a) for n, a in points))


def test_area_is_the_mean_accuracy_over_the_labels_spent() -> None:
    assert area_under_curve(curve((0, 0.5), (100, 0.7), (400, 0.9))) == pytest.approx((0.6 * 100 + 0.8 * 300) / 400)
    assert area_under_curve(curve((50, 0.8))) == 0.8


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_area_lies_between_the_worst_and_the_best_accuracy(accuracies: list[float]) -> None:
    area = area_under_curve(curve(*((10 * (n + 1), a) for n, a in enumerate(accuracies))))
    assert min(accuracies) - 1e-9 <= area <= max(accuracies) + 1e-9


def test_labels_to_reach_interpolates_and_rounds_up() -> None:
    rising = curve((50, 0.6), (100, 0.7), (200, 0.8))
    assert labels_to_reach(rising, 0.5) == 50
    assert labels_to_reach(rising, 0.65) == 75
    assert labels_to_reach(rising, 0.7) == 100
    assert labels_to_reach(rising, 0.7001) == 101
    assert labels_to_reach(rising, 0.81) is None


def test_labels_to_reach_counts_the_first_time() -> None:
    assert labels_to_reach(curve((50, 0.6), (100, 0.9), (150, 0.5), (200, 0.95)), 0.9) == 100


def test_labels_saved_compares_at_the_final_accuracy() -> None:
    strategy = curve((50, 0.6), (100, 0.8))
    assert labels_saved(strategy, curve((50, 0.6), (100, 0.7), (200, 0.8))) == LabelsSaved(spent=100, random_needs=200)
    assert labels_saved(strategy, curve((50, 0.6), (200, 0.8))).saved == 100
    assert labels_saved(strategy, curve((50, 0.85))).saved == -50
    assert labels_saved(strategy, curve((50, 0.6), (100, 0.7))) == LabelsSaved(spent=100, random_needs=None)
    assert labels_saved(strategy, curve((50, 0.6))).saved is None


@pytest.mark.parametrize("counts", [(), (50, 50), (100, 50)])
def test_curve_needs_rising_label_counts(counts: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="rising"):
        curve(*((n, 0.5) for n in counts))
