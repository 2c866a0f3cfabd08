"""How often predictions are right, and how sure that number is."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from catalog.errors import DataError

Labels = npt.NDArray[np.int64]

_RESAMPLES = 10_000
_INTERVAL = (0.025, 0.975)
_NORMAL = 1.959964
"""Half the width of the interval in standard deviations of a normal distribution."""


class Quality(NamedTuple):
    """Scores in [0, 1]; ``f1`` is (n_classes,)."""

    accuracy: float
    macro_f1: float
    f1: npt.NDArray[np.float64]


class Difference(NamedTuple):
    """A difference of accuracies and its 95 % interval."""

    diff: float
    low: float
    high: float


def quality(predictions: Labels, labels: Labels, num_classes: int) -> Quality:
    """Accuracy, F1 of each class, and their plain mean.

    A class that neither occurs nor is predicted has F1 0, as in scikit-learn with ``zero_division=0``.

    Parameters
    ----------
    predictions, labels : (n,) int64 in [0, num_classes).
    num_classes : classes of the task, all counted in the mean.

    Raises
    ------
    DataError : no example, or the two differ in length.
    """
    _check(predictions, labels)
    confusion = np.bincount(labels * num_classes + predictions, minlength=num_classes**2).reshape(num_classes, -1)
    right = confusion.diagonal()
    both = confusion.sum(0) + confusion.sum(1)
    f1 = np.divide(2 * right, both, out=np.zeros(num_classes), where=both > 0)
    return Quality(float(right.sum() / len(labels)), float(f1.mean()), f1)


def accuracy_interval(predictions: Labels, labels: Labels, rng: np.random.Generator) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the accuracy (Efron 1979).

    Resampling n examples of which a share is right draws a binomial count, so that is what is drawn.
    """
    _check(predictions, labels)
    share = float((predictions == labels).mean())
    low, high = np.quantile(rng.binomial(len(labels), share, _RESAMPLES) / len(labels), _INTERVAL)
    return float(low), float(high)


def paired_difference(
    predictions_a: Labels, predictions_b: Labels, labels: Labels, rng: np.random.Generator
) -> Difference:
    """Accuracy of a minus accuracy of b on the same examples, with its 95 % paired bootstrap interval.

    Each example contributes -1, 0 or 1; resampling examples draws multinomial counts of the three.

    Parameters
    ----------
    predictions_a, predictions_b, labels : (n,) int64, aligned.
    rng : draws the resamples.

    References
    ----------
    Berg-Kirkpatrick et al. (2012), section 3.
    """
    _check(predictions_a, labels)
    _check(predictions_b, labels)
    gain = (predictions_a == labels).astype(int) - (predictions_b == labels).astype(int)
    shares = np.array([(gain == value).mean() for value in (-1, 0, 1)])
    counts = rng.multinomial(len(labels), shares, _RESAMPLES)
    low, high = np.quantile((counts[:, 2] - counts[:, 0]) / len(labels), _INTERVAL)
    return Difference(float(gain.mean()), float(low), float(high))


def seeded_difference(pairs: Sequence[tuple[Labels, Labels]], labels: Labels) -> Difference:
    """Mean accuracy of a minus that of b over seeds, with a 95 % interval for other seeds and other examples.

    The two sources of chance add up: the spread of the seeds' differences, by Student's t, and that of an example's
    mean gain over the seeds, by the normal distribution.

    Parameters
    ----------
    pairs : predictions of a and of b under each seed, at least two; (n,) int64 each.
    labels : (n,) int64.
    """
    if len(pairs) < 2:
        raise DataError(f"{len(pairs)} seeds give no interval; train under at least 2")
    for pair in pairs:
        for one in pair:
            _check(one, labels)
    return seeded_interval(np.array([(a == labels).astype(float) - (b == labels) for a, b in pairs]))


def seeded_interval(gain: npt.NDArray[np.float64]) -> Difference:
    """The mean of gains and its 95 % interval for other seeds and other examples: ``seeded_difference`` says how.

    Parameters
    ----------
    gain : (num_seeds, n) of the same examples under each seed, at least two seeds.
    """
    from scipy.stats import t

    by_seed, by_example = gain.mean(axis=1), gain.mean(axis=0)
    of_seeds = t.ppf(_INTERVAL[1], len(gain) - 1) * by_seed.std(ddof=1) / np.sqrt(len(gain))
    of_examples = _NORMAL * by_example.std() / np.sqrt(gain.shape[1])
    half = float(np.hypot(of_seeds, of_examples))
    mean = float(by_seed.mean())
    return Difference(mean, mean - half, mean + half)


def _check(predictions: Labels, labels: Labels) -> None:
    if len(labels) == 0 or len(predictions) != len(labels):
        raise DataError(
            f"{len(predictions)} predictions and {len(labels)} labels must be equally many and at least 1; "
            "hold out more records"
        )
