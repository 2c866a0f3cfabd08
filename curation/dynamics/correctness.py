"""Difficulty by how often the label is predicted."""

import numpy as np

from curation.dynamics import DYNAMICS
from curation.dynamics.trace import LowIsHard, Trace


@DYNAMICS.register("correctness", LowIsHard)
def correctness(trace: Trace) -> np.ndarray:
    """Share of the epochs after which the given label is the likeliest; low is hard.

    References
    ----------
    Swayamdipta et al. (2020), Dataset Cartography, section 2, footnote on correctness.
    """
    return np.asarray(trace.is_correct.mean(axis=0, dtype=np.float64))
