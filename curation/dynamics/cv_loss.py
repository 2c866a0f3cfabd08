"""Difficulty by the loss of classifiers that did not see the record."""

import numpy as np

from curation.dynamics import DYNAMICS
from curation.dynamics.trace import Direction, Trace


@DYNAMICS.register("cv_loss", Direction)
def cv_loss(trace: Trace) -> np.ndarray:
    """Cross-validated loss: -ln p of the given label, out of fold, with near-duplicates in one fold; in nats.

    References
    ----------
    Swayamdipta et al. (2020) and Paul et al. (2021) score records that the model trains on; that the loss is out of
    fold is as in Northcutt, Jiang and Chuang (2021), Confident Learning, section 3.
    """
    return np.asarray(trace.held_out_loss, dtype=np.float64)
