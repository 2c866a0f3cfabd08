"""Difficulty by how narrowly the label wins."""

import numpy as np

from curation.dynamics import DYNAMICS
from curation.dynamics.trace import LowIsHard, Trace


@DYNAMICS.register("margin", LowIsHard)
def margin(trace: Trace) -> np.ndarray:
    """Area under the margin: mean over epochs of the given label's logit less the largest other one; low is hard.

    References
    ----------
    Pleiss et al. (2020), Identifying Mislabeled Data using the Area Under the Margin Ranking, section 3.
    """
    return np.asarray(trace.margin.mean(axis=0, dtype=np.float64))
