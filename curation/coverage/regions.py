"""Which topics of a pool a reference does not reach: no labels, no training records."""

from typing import Any

import numpy as np

from curation.coverage.config import MapConfig
from curation.coverage.outliers import DIGITS, cosines

NEAR_SHARE = 0.95
THIN = 0.5
LEAST_EXPECTED = 5.0
"""Reference records that a topic must expect before few of them mean anything."""


def near_limit(pool: np.ndarray, reference: np.ndarray, config: MapConfig) -> float:
    """The distance within which a record counts as reached.

    95 % of records have a neighbour of their own kind within it that is no copy; of pool and reference, the denser one
    says it, so that a handful of references, far from each other, reach no farther than what they stand for.

    Parameters
    ----------
    pool, reference : (n, d) and (m, d) int16, none zero; samples of each.
    """
    limits = [1.0]
    for rows in (pool, reference):
        near = cosines(rows, rows, config.neighbours)
        distance = np.where(near <= 1 - config.same, 1 - near, np.inf).min(axis=1, initial=np.inf)
        known = distance[np.isfinite(distance)]
        if len(known):
            limits.append(float(np.quantile(known, NEAR_SHARE)))
    return round(min(limits), DIGITS)


def judge_regions(pool: np.ndarray, reference: np.ndarray) -> list[dict[str, Any]]:
    """How well the reference represents each topic.

    Parameters
    ----------
    pool, reference : (k,) records of each in each topic.

    Returns
    -------
    for each topic ``reference``, ``expected`` (were the reference spread as the pool is), and ``state``: ``empty``
    (none, though five or more were expected), ``thin`` (less than half of that), or ``covered``.
    """
    expected = pool / max(pool.sum(), 1) * reference.sum()
    found = []
    for number, wanted in zip(reference.tolist(), expected.tolist(), strict=True):
        state = "covered"
        if wanted >= LEAST_EXPECTED and number < THIN * wanted:
            state = "empty" if number == 0 else "thin"
        found.append({"reference": number, "expected": round(wanted, 1), "state": state})
    return found
