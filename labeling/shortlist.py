"""The few thousand candidates that the expensive strategies look at, however large the pool."""

import numpy as np
import numpy.typing as npt

from labeling.uncertainty import best_first, measure

SHORTLIST_ROWS = 5_000
"""What is quadratic, or linear for every pick, is done among so many candidates; 8 MB of 384 dimensions."""


def hesitant(
    proba: npt.NDArray[np.float64], batch_size: int, rng: np.random.Generator, limit: int = SHORTLIST_ROWS
) -> npt.NDArray[np.int64]:
    """Rows of the smallest margins, ties by chance: at most ``limit``, or twice the batch where that is more.

    Returns
    -------
    (n,) int64 distinct rows, smallest margin first; every row where the pool is no larger.
    """
    size = min(len(proba), max(limit, 2 * batch_size))
    return best_first(-measure("classifier_margin", proba), size, rng)


def by_chance(
    num_candidates: int, batch_size: int, rng: np.random.Generator, limit: int = SHORTLIST_ROWS
) -> npt.NDArray[np.int64]:
    """A uniform sample of rows in random order: at most ``limit``, or twice the batch where that is more.

    Dense and sparse regions of the pool stay dense and sparse in it.
    """
    size = min(num_candidates, max(limit, 2 * batch_size))
    return rng.choice(num_candidates, size, replace=False).astype(np.int64)
