"""From measured pairs to removals."""

import numpy as np


def assign_keepers(number: int, first: np.ndarray, second: np.ndarray, *, num_fixed: int = 0) -> np.ndarray:
    """Give every record that leaves the keeper it was measured against.

    The best record not yet removed becomes a keeper and takes all its verified neighbours, then the next. So a record
    leaves only when its similarity to its own keeper was measured and sufficient: a chain A~B~C never drags C to A.

    Parameters
    ----------
    number : number of records, numbered in keeper order.
    first, second : (num_pairs,) verified pairs, first < second, sorted by (first, second).
    num_fixed : so many of the first records never leave, whatever they are like; each of them can be a keeper.

    Returns
    -------
    (number,) int64: the keeper of each record that leaves, -1 for those that stay.
    """
    from curation.dedup.kernels import take_neighbours  # compiles: numba takes half a second

    keepers = np.full(number, -1, dtype=np.int64)
    take_neighbours(first.astype(np.int64, copy=False), second.astype(np.int64, copy=False), num_fixed, keepers)
    return keepers
