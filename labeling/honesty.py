"""What the labels are worth, by the tasks that chance drew: accuracy, labels saved, and the gain of asking on.

The strategy asks where the model is weak, so neither those answers nor a model's confidence say how good it is. Tasks
drawn at random do. Every figure comes with an interval, and none where the sample is too small for one.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from labeling.learner import Learner, wilson_interval

MIN_RANDOM = 30
"""Fewer random answers say nothing about a curve."""
NUM_FOLDS = 5
NUM_BOOTSTRAPS = 400
NUM_DRAWS = 4
SHARES = (0.25, 0.5, 0.75, 1.0)
NEXT_LABELS = 100
MAX_TIMES = 50.0
"""A curve is not followed further than so many times the labels that there are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A figure with its interval at 95 %, from the bootstrap over random answers.

    ``value`` and ``high`` are None where they lie further than the curve is followed; ``low`` is then "at least".
    """

    value: float | None
    low: float
    high: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Worth:
    """What a model's labels are worth.

    Parameters
    ----------
    num_labels : that the model is fitted on.
    num_random : of those, drawn by chance: what is measured on.
    accuracy : of the model on records that nobody has been asked about, each random answer held out once.
    labels_for_same : random labels that would be needed for this accuracy, by a power law through the accuracies of
        models fitted on random labels alone.
    labels_saved : of those, how many were not needed; below 0 where the strategy costs more than chance.
    next_gain : accuracy that the next 100 labels are expected to bring.
    """

    num_labels: int
    num_random: int
    accuracy: Estimate
    labels_for_same: Estimate
    labels_saved: Estimate
    next_gain: Estimate

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def worth(
    embeddings: npt.NDArray[np.float32],
    labels: Sequence[str],
    is_random: npt.NDArray[np.bool_],
    classes: Sequence[str],
    seed: int,
) -> Worth | None:
    """Estimate what the labels are worth; None while fewer than 30 of them were drawn by chance.

    Parameters
    ----------
    embeddings : (n, dim) float32, in the order in which the labels came.
    labels : (n,) names, each in ``classes``.
    is_random : (n,) drawn by chance.

    References
    ----------
    Power laws of learning curves: Hestness et al. (2017), Deep Learning Scaling is Predictable, Empirically.
    """
    sample = np.flatnonzero(is_random)
    if len(sample) < MIN_RANDOM or len(set(labels)) < 2:
        return None
    rng = np.random.default_rng(seed)
    folds = rng.permutation(len(sample)) % NUM_FOLDS
    position = {name: code for code, name in enumerate(classes)}
    codes = np.array([position[label] for label in labels])

    def right(train_on: Callable[[int], npt.NDArray[np.int64]]) -> npt.NDArray[np.bool_]:
        """Of each random answer, whether a model is right about it that was fitted without its fold."""
        found = np.zeros(len(sample), dtype=bool)
        for fold in range(NUM_FOLDS):
            tested = sample[folds == fold]
            train = train_on(fold)
            train = train[~np.isin(train, tested)]
            if len(np.unique(codes[train])) < 2:
                # A model of one class: it always says that one.
                guess = np.full(len(tested), codes[train[0]] if len(train) else -1)
            else:
                model = Learner.fit(embeddings[train], [labels[row] for row in train], classes, seed)
                guess = model.proba(embeddings[tested]).argmax(axis=1)
            found[folds == fold] = guess == codes[tested]
        return found

    def first_labels(share: float) -> Callable[[int], npt.NDArray[np.int64]]:
        return lambda _: np.arange(round(share * len(labels)))

    def random_labels(share: float) -> Callable[[int], npt.NDArray[np.int64]]:
        return lambda fold: rng.choice(sample[folds != fold], round(share * (folds != fold).sum()), replace=False)

    by_all = np.array([right(first_labels(share)) for share in SHARES])
    # Several draws of each size: one small sample's model says little.
    by_random = np.array(
        [
            np.mean([right(random_labels(share)) for _ in range(NUM_DRAWS if share < 1 else 1)], axis=0)
            for share in SHARES
        ]
    )
    sizes_all = np.array([share * len(labels) for share in SHARES])
    sizes_random = np.array([share * len(sample) * (NUM_FOLDS - 1) / NUM_FOLDS for share in SHARES])
    draws = [np.arange(len(sample)), *rng.integers(0, len(sample), (NUM_BOOTSTRAPS, len(sample)))]
    accuracy, same, gain = [], [], []
    for draw in draws:
        errors_all, errors_random = 1 - by_all[:, draw].mean(axis=1), 1 - by_random[:, draw].mean(axis=1)
        accuracy.append(1 - errors_all[-1])
        same.append(_size_for(_power_law(sizes_random, errors_random), errors_all[-1], MAX_TIMES * len(labels)))
        slope, level = _power_law(sizes_all, errors_all)
        gain.append(
            float(np.exp(level) * (len(labels) ** slope - (len(labels) + NEXT_LABELS) ** slope)) if slope < 0 else 0.0
        )
    right_now = int(by_all[-1].sum())
    low, high = wilson_interval(right_now, len(sample))
    needed = _estimate(same, at_most=MAX_TIMES * len(labels))
    return Worth(
        num_labels=len(labels),
        num_random=len(sample),
        accuracy=Estimate(value=right_now / len(sample), low=low, high=high),
        labels_for_same=needed,
        labels_saved=_less(needed, len(labels)),
        next_gain=_estimate(gain),
    )


def _power_law(sizes: npt.NDArray[np.float64], errors: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Slope and level of log error over log size; an error of nothing counts as half a case."""
    slope, level = np.polyfit(np.log(sizes), np.log(np.maximum(errors, 1e-3)), 1)
    return min(float(slope), 0.0), float(level)


def _size_for(law: tuple[float, float], error: float, at_most: float) -> float:
    slope, level = law
    if slope > -1e-3:
        return at_most
    with np.errstate(over="ignore"):
        return float(min(np.exp((np.log(max(error, 1e-3)) - level) / slope), at_most))


def _estimate(values: Sequence[float], at_most: float = np.inf) -> Estimate:
    """The first value, with the interval of the others; what has reached ``at_most`` was not seen."""
    low, high = np.quantile(values[1:], (0.025, 0.975))
    return Estimate(
        value=None if values[0] >= at_most else float(values[0]),
        low=float(low),
        high=None if high >= at_most else float(high),
    )


def _less(estimate: Estimate, spent: int) -> Estimate:
    value, high = (None if one is None else one - spent for one in (estimate.value, estimate.high))
    return Estimate(value=value, low=estimate.low - spent, high=high)
