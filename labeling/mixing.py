"""Tasks that chance draws, among those that the strategy chose: the only unbiased look at what is left."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

RANDOM_WHY = "random check"
CHOSEN_BY_CHANCE = "chosen at random"
"""Where chance is the strategy, of every task: there is nothing that it would check."""
DEFAULT_RANDOM_SHARE = 0.1
"""Of a queue's tasks, unless whoever opens it says otherwise."""


def share_for(strategy: str, asked: float = DEFAULT_RANDOM_SHARE) -> float:
    """The share of a queue's tasks that chance draws.

    >>> share_for("auto"), share_for("label_errors")
    (0.1, 0.0)
    """
    return 0.0 if strategy == "label_errors" else asked


def random_why(strategy: str) -> str:
    """What annotators are told of tasks that chance drew, and of known ones, which must look like those.

    >>> random_why("auto"), random_why("random")
    ('random check', 'chosen at random')
    """
    return CHOSEN_BY_CHANCE if strategy == "random" else RANDOM_WHY


def random_places(num_entries: int, share: float, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Ranks that chance fills: one in each stretch of 1 / share, anywhere in it, since few generations are used up.

    Parameters
    ----------
    num_entries : length of the generation.
    share : in [0, 1].

    Returns
    -------
    (round(num_entries * share),) int64, rising.

    Examples
    --------
    >>> len(random_places(200, 0.1, np.random.default_rng(0))), random_places(3, 1.0, np.random.default_rng(0)).tolist()
    (20, [0, 1, 2])
    """
    num_random = round(num_entries * share)
    if num_random == 0:
        return np.empty(0, dtype=np.int64)
    # Whole ranks: one that lay in two stretches could be drawn for both.
    bounds = np.arange(num_random + 1) * num_entries // num_random
    return rng.integers(bounds[:-1], bounds[1:])


def mixed(
    chosen: Sequence[int], num_pool: int, num_entries: int, share: float, rng: np.random.Generator
) -> list[tuple[int, int | None]]:
    """Rows of the pool in the order of serving.

    Parameters
    ----------
    chosen : rows by the strategy, best first, at least ``num_entries``.
    num_pool : rows of the pool; chance draws from all of them, also those that the strategy chose.
    num_entries : how many are wanted, at most ``num_pool``.

    Returns
    -------
    ``num_entries`` pairs: the row, and its place among ``chosen``, or None where chance drew it. Each row once.
    """
    places = random_places(num_entries, share, rng)
    drawn = rng.choice(num_pool, len(places), replace=False).tolist()
    by_place = dict(zip(places.tolist(), drawn, strict=True))
    taken = set(drawn)
    others = iter([(row, place) for place, row in enumerate(chosen) if row not in taken])
    return [(by_place[rank], None) if rank in by_place else next(others) for rank in range(num_entries)]
