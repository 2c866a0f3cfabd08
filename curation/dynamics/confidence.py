"""Difficulty by how probable the label is on the whole."""

import numpy as np

from curation.dynamics import DYNAMICS
from curation.dynamics.trace import LowIsHard, Trace


@DYNAMICS.register("confidence", LowIsHard)
def confidence(trace: Trace) -> np.ndarray:
    """Mean over epochs of the given label's probability; low is hard.

    References
    ----------
    Swayamdipta et al. (2020), Dataset Cartography, section 2, equation for confidence.
    """
    return np.asarray(trace.confidence.mean(axis=0, dtype=np.float64))
