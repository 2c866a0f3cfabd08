"""Learning curves: what a strategy's labels were worth, against random selection."""

from dataclasses import dataclass
from itertools import pairwise
from math import ceil

from catalog.errors import DataError


@dataclass(frozen=True, kw_only=True, slots=True)
class CurvePoint:
    """Accuracy of a model fitted on ``num_labels`` labels, with its interval."""

    num_labels: int
    accuracy: float
    macro_f1: float
    low: float
    high: float
    seconds: float = 0.0
    """Fitting, scoring and choosing."""


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """Points in order of labels spent.

    Raises
    ------
    DataError : no points, or label counts that do not rise.
    """

    points: tuple[CurvePoint, ...]

    def __post_init__(self) -> None:
        counts = [point.num_labels for point in self.points]
        if not counts or any(later <= earlier for earlier, later in pairwise(counts)):
            raise DataError(f"a learning curve needs points with rising label counts, got {counts}")

    @property
    def final(self) -> CurvePoint:
        """The point with the most labels."""
        return self.points[-1]


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelsSaved:
    """What a strategy spent, and what random selection needs for the same accuracy."""

    spent: int
    random_needs: int | None
    """None when the random curve never reaches that accuracy."""

    @property
    def saved(self) -> int | None:
        """Labels saved against random; negative when random was better."""
        return None if self.random_needs is None else self.random_needs - self.spent


def area_under_curve(curve: LearningCurve) -> float:
    """Mean accuracy over the labels spent: the trapezoid area divided by the range of label counts.

    Returns
    -------
    float in [0, 1]; of a single point, its accuracy.
    """
    first, last = curve.points[0], curve.final
    if first is last:
        return first.accuracy
    area = sum((a.accuracy + b.accuracy) / 2 * (b.num_labels - a.num_labels) for a, b in pairwise(curve.points))
    return area / (last.num_labels - first.num_labels)


def labels_to_reach(curve: LearningCurve, accuracy: float) -> int | None:
    """Fewest labels at which the curve first reaches an accuracy, interpolated between points, rounded up.

    Returns
    -------
    int, or None when the curve never gets there.
    """
    if curve.points[0].accuracy >= accuracy:
        return curve.points[0].num_labels
    for a, b in pairwise(curve.points):
        if b.accuracy >= accuracy:
            share = (accuracy - a.accuracy) / (b.accuracy - a.accuracy)
            return ceil(a.num_labels + share * (b.num_labels - a.num_labels) - 1e-9)
    return None


def labels_saved(curve: LearningCurve, random_curve: LearningCurve) -> LabelsSaved:
    """How many labels random selection needs to reach the strategy's final accuracy.

    Parameters
    ----------
    curve : of the strategy.
    random_curve : of random selection, measured on the same held-out records.
    """
    return LabelsSaved(spent=curve.final.num_labels, random_needs=labels_to_reach(random_curve, curve.final.accuracy))
