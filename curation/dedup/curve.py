"""The S-curve: which pairs a banding turns into candidates, and the banding for a wanted recall."""

from functools import cache

import numpy as np

_GRID = np.linspace(0.0, 1.0, 201)


def candidate_probability(similarity: float, bands: int, rows: int) -> float:
    """Probability that two sets of this Jaccard similarity share a band: ``1 - (1 - s**rows)**bands``.

    References
    ----------
    Leskovec, Rajaraman and Ullman (2020), Mining of Massive Datasets, section 3.4.

    >>> round(candidate_probability(0.8, 14, 8), 3)
    0.924
    """
    return 1.0 - (1.0 - similarity**rows) ** bands


def curve(bands: int, rows: int) -> list[tuple[float, float]]:
    """The whole curve: (similarity, probability) from 0 to 1 in steps of 0.02.

    >>> curve(14, 8)[-1]
    (1.0, 1.0)
    """
    return [(step / 50, candidate_probability(step / 50, bands, rows)) for step in range(51)]


@cache
def choose_banding(
    threshold: float, recall: float, *, bands: int | None = None, rows: int | None = None, max_perm: int = 256
) -> tuple[int, int] | None:
    """The banding with the fewest needless candidates among those that find ``recall`` of pairs at the threshold.

    Needless is the area under the S-curve below the threshold; of equals the one with fewer permutations.

    Parameters
    ----------
    threshold : Jaccard similarity, in (0, 1].
    recall : wanted share of pairs at the threshold, in (0, 1).
    bands, rows : fixed, or None to choose.
    max_perm : permutations at most.

    Returns
    -------
    (bands, rows), or None when nothing reaches it.

    References
    ----------
    Zhu et al. (2016), LSH Ensemble, section 5.3, weighs both errors; here recall is a bound and the rest is cost.

    >>> choose_banding(0.8, 0.95)
    (21, 9)
    """
    best: tuple[float, int, tuple[int, int]] | None = None
    below = _GRID[threshold > _GRID]
    for one in [rows] if rows else range(1, max_perm + 1):
        for number in [bands] if bands else range(1, max_perm // one + 1):
            if number * one > max_perm or candidate_probability(threshold, number, one) < recall:
                continue
            needless = float(np.sum(1 - (1 - below**one) ** number))
            found = (needless, number * one, (number, one))
            best = found if best is None else min(best, found)
            break
    return best[2] if best else None
