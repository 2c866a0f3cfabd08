"""Krippendorff's alpha: any number of annotators, any items missing, labels with or without an order."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog.errors import ConfigError, nearest
from labeling.agreement.figure import NO_PAIRS, ONE_LABEL, Agreement
from labeling.agreement.patterns import Patterns, find_patterns
from labeling.annotations import Annotations

LEVELS = ("nominal", "ordinal", "interval")
MAX_DRAWS = 200_000_000
"""Numbers drawn for an interval; with more than 200,000 ways of answering there are fewer replicates."""
MIN_REPLICATES = 100
MAX_UNDEFINED_SHARE = 0.05
Floats = npt.NDArray[np.float64]


def krippendorff_alpha(
    annotations: Annotations,
    level: str = "nominal",
    values: npt.ArrayLike | None = None,
    *,
    rng: np.random.Generator,
    num_replicates: int = 1000,
) -> Agreement:
    """One minus observed by expected disagreement, with a bootstrap interval over items.

    Disagreement within an item is a sum of squares about the item's mean: of indicators (nominal), of mid-ranks
    (ordinal) or of values (interval), so that no table of labels by labels is built.

    Parameters
    ----------
    level : ``nominal``; ``ordinal``, by the order of the labels; or ``interval``, by ``values``.
    values : (num_labels,) numbers that the labels stand for; interval only.
    rng : draws the items of each replicate.
    num_replicates : replicates of the bootstrap; 0 gives no interval.

    Returns
    -------
    Agreement : the interval lies between the 2.5th and 97.5th percentile of replicates in which items are drawn with
        replacement. There is none where over 5 % of the replicates are undefined.

    Raises
    ------
    ConfigError : an unknown level; values where they have no effect, or none where they are needed.

    References
    ----------
    Krippendorff (2011), Computing Krippendorff's Alpha-Reliability, sections C to E. His own bootstrap (Hayes and
    Krippendorff 2007, appendix) draws pairs of answers as if they were independent; ours draws items, within which they
    are not.
    """
    if level not in LEVELS:
        raise ConfigError(f"level={level!r} is unknown; {nearest(level, LEVELS)}")
    if (values is not None) != (level == "interval"):
        raise ConfigError(f"level {level!r} {'needs' if level == 'interval' else 'takes no'} values of the labels")
    measure = f"krippendorff_alpha_{level}"
    patterns = find_patterns(annotations)
    told: dict[str, Any] = {"num_items": patterns.num_items, "num_annotations": patterns.num_annotations}
    if not patterns.num_items:
        return Agreement(measure=measure, value=None, reason=NO_PAIRS, **told)
    given = None if values is None else np.asarray(values, dtype=np.float64)
    if given is not None and given.shape != (annotations.num_labels,):
        raise ConfigError(f"{given.size} values for {annotations.num_labels} labels; one is needed for each")
    alpha = _alpha_of(patterns, level, given)
    value = alpha(patterns.multiplicity)
    if value is None:
        label = annotations.labels[int(patterns.label_totals(patterns.multiplicity).argmax())]
        return Agreement(measure=measure, value=None, reason=ONE_LABEL.format(label=label), **told)
    low, high, reason = _interval(patterns, alpha, rng, num_replicates)
    return Agreement(measure=measure, value=value, reason=reason, low=low, high=high, **told)


def _alpha_of(patterns: Patterns, level: str, values: Floats | None) -> Callable[[npt.NDArray[np.int64]], float | None]:
    """Alpha as a function of how often each pattern counts; None where no disagreement is to be expected."""
    fixed = None if level == "ordinal" else _disagreement(patterns, values)

    def alpha(multiplicity: npt.NDArray[np.int64]) -> float | None:
        totals = patterns.label_totals(multiplicity)
        num = totals.sum()
        places = values
        if level == "ordinal":
            places = (np.cumsum(totals) - totals / 2) / num
        if places is None:
            expected = (num**2 - (totals**2).sum()) / (num - 1)
        else:
            expected = 2 * num * (totals * (places - (totals * places).sum() / num) ** 2).sum() / (num - 1)
        if (totals > 0).sum() < 2 or expected <= 0:
            return None
        within = _disagreement(patterns, places) if fixed is None else fixed
        return float(1 - (multiplicity * within).sum() / expected)

    return alpha


def _disagreement(patterns: Patterns, places: Floats | None) -> Floats:
    """Of each pattern: squared differences of all ordered pairs of answers, by answers less one."""
    size = patterns.size.astype(np.float64)
    if places is None:
        return (size**2 - patterns.per_pattern(patterns.count.astype(np.float64) ** 2)) / (size - 1)
    own = places[patterns.label]
    mean = patterns.per_pattern(patterns.count * own) / size
    return 2 * size * patterns.per_pattern(patterns.count * (own - mean[patterns.pattern]) ** 2) / (size - 1)


def _interval(
    patterns: Patterns,
    alpha: Callable[[npt.NDArray[np.int64]], float | None],
    rng: np.random.Generator,
    num_replicates: int,
) -> tuple[float | None, float | None, str | None]:
    if num_replicates == 0:
        return None, None, None
    if patterns.num_items < 2:
        return None, None, "one item says nothing of how much items differ: no interval"
    times = min(num_replicates, max(MIN_REPLICATES, MAX_DRAWS // len(patterns)))
    # Drawing items is drawing how often each way of answering comes up.
    shares = patterns.multiplicity / patterns.num_items
    drawn = [alpha(rng.multinomial(patterns.num_items, shares)) for _ in range(times)]
    defined = [one for one in drawn if one is not None]
    if len(defined) < (1 - MAX_UNDEFINED_SHARE) * times:
        return None, None, f"{times - len(defined)} of {times} replicates hold one label only: no interval"
    low, high = np.percentile(defined, (2.5, 97.5))
    return float(low), float(high), None
