"""Shares, their differences and ratios with 95 % intervals, for many tables at once: float64 arrays of one shape."""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Numbers: TypeAlias = npt.NDArray[np.float64]
Z = 1.959963984540054


def wilson(hits: Any, trials: Any) -> tuple[Numbers, Numbers]:
    """Score interval of a share (Wilson 1927); [0, 1] where there were no trials."""
    hits, trials = _floats(hits, trials)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = hits / trials
        centre = (share + Z**2 / (2 * trials)) / (1 + Z**2 / trials)
        half = Z * np.sqrt(share * (1 - share) / trials + Z**2 / (4 * trials**2)) / (1 + Z**2 / trials)
    none = trials <= 0
    return np.where(none, 0.0, np.maximum(centre - half, 0)), np.where(none, 1.0, np.minimum(centre + half, 1))


def share_difference(hits: Any, trials: Any, other_hits: Any, other_trials: Any) -> tuple[Numbers, Numbers, Numbers]:
    """Difference of two shares with its interval (Newcombe 1998, method 10); NaN where either side has no trials."""
    hits, trials, other_hits, other_trials = _floats(hits, trials, other_hits, other_trials)
    with np.errstate(divide="ignore", invalid="ignore"):
        one, other = hits / trials, other_hits / other_trials
    (low, high), (other_low, other_high) = wilson(hits, trials), wilson(other_hits, other_trials)
    difference = one - other
    below = np.sqrt((one - low) ** 2 + (other_high - other) ** 2)
    above = np.sqrt((high - one) ** 2 + (other - other_low) ** 2)
    return difference, difference - below, difference + above


def share_ratio(hits: Any, trials: Any, other_hits: Any, other_trials: Any) -> tuple[Numbers, Numbers, Numbers]:
    """Ratio of two shares with its interval, half a hit added everywhere so that few or no hits stay finite.

    References
    ----------
    Walter (1975), The distribution of Levin's measure of attributable risk; Pettigrew, Gart and Thomas (1986).
    """
    hits, trials, other_hits, other_trials = _floats(hits, trials, other_hits, other_trials) + 0.5
    ratio = (hits / trials) / (other_hits / other_trials)
    half = Z * np.sqrt(np.maximum(1 / hits - 1 / trials + 1 / other_hits - 1 / other_trials, 0))
    return ratio, ratio * np.exp(-half), ratio * np.exp(half)


def mid_p(hits: Any, trials: Any, other_hits: Any, other_trials: Any) -> Numbers:
    """Two-sided p that two shares are equal: Fisher's exact test, the observed table counted half (Lancaster 1961)."""
    hits, trials, other_hits, other_trials = _floats(hits, trials, other_hits, other_trials)
    from scipy import stats

    table = stats.hypergeom(trials + other_trials, hits + other_hits, trials)
    at = table.pmf(hits)
    below, above = table.cdf(hits) - at / 2, table.sf(hits) + at / 2
    doubled: Numbers = np.clip(2 * np.minimum(below, above), 0.0, 1.0)
    return doubled


def mean_difference(
    count: Any, total: Any, squares: Any, other_count: Any, other_total: Any, other_squares: Any
) -> tuple[Numbers, Numbers, Numbers]:
    """Difference of two means with its interval, variances unequal (Welch 1947); NaN where a side has fewer than two.

    Parameters
    ----------
    count, total, squares : number, sum and sum of squares of the values.
    """
    n, total, squares, m, other_total, other_squares = _floats(
        count, total, squares, other_count, other_total, other_squares
    )
    # Imported here, as scipy is wherever it is needed: a quarter of a second that every command would pay.
    from scipy.special import stdtrit

    with np.errstate(divide="ignore", invalid="ignore"):
        mean, other = total / n, other_total / m
        one = np.maximum(squares - n * mean**2, 0) / (n - 1) / n
        two = np.maximum(other_squares - m * other**2, 0) / (m - 1) / m
        freedom = (one + two) ** 2 / (one**2 / (n - 1) + two**2 / (m - 1))
        # Two constant samples have no variance and no degrees of freedom: the difference is exact.
        half = np.where(one + two > 0, stdtrit(freedom, 0.975) * np.sqrt(one + two), 0.0)
        half = np.where((n < 2) | (m < 2), np.nan, half)
    return mean - other, mean - other - half, mean - other + half


def false_discovery(p: Any) -> Numbers:
    """Adjusted p by which the share of false among the called is bounded (Benjamini and Hochberg 1995)."""
    p = _floats(p)[0]
    order = np.argsort(-p, kind="stable")
    ranks = np.arange(len(p), 0, -1)
    adjusted: Numbers = np.empty_like(p)
    adjusted[order] = np.minimum.accumulate(np.minimum(p[order] * len(p) / ranks, 1.0)) if len(p) else p
    return adjusted


def _floats(*given: Any) -> Numbers:
    return np.asarray(np.broadcast_arrays(*(np.asarray(one, dtype=np.float64) for one in given)), dtype=np.float64)
