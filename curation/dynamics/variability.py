"""Difficulty by how the head wavers."""

import numpy as np

from curation.dynamics import DYNAMICS
from curation.dynamics.trace import Direction, Trace


@DYNAMICS.register("variability", Direction)
def variability(trace: Trace) -> np.ndarray:
    """Standard deviation over epochs of the given label's probability; high is ambiguous.

    References
    ----------
    Swayamdipta et al. (2020), Dataset Cartography, section 2, equation for variability.
    """
    return np.asarray(trace.confidence.std(axis=0, dtype=np.float64))
