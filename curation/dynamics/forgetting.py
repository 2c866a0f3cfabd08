"""Difficulty by how often it is forgotten."""

import numpy as np

from curation.dynamics import DYNAMICS
from curation.dynamics.trace import Direction, Trace


@DYNAMICS.register("forgetting", Direction)
def forgetting(trace: Trace) -> np.ndarray:
    """Forgetting events: epochs that made a right record wrong; one that was never right counts as all epochs.

    References
    ----------
    Toneva et al. (2019), An Empirical Study of Example Forgetting during Deep Neural Network Learning, section 3;
    events are seen after epochs instead of batches.
    """
    right = trace.is_correct
    events = (right[:-1] & ~right[1:]).sum(axis=0)
    return np.where(right.any(axis=0), events, len(right)).astype(np.float64)
