"""Difficulty by how wrong the head is early."""

import numpy as np

from curation.dynamics import DYNAMICS
from curation.dynamics.trace import Direction, Trace

EARLY = 0.2
"""Share of the epochs after which the error is measured."""


@DYNAMICS.register("el2n", Direction)
def el2n(trace: Trace) -> np.ndarray:
    """Error norm (EL2N) after a fifth of the epochs: Euclidean length of the probabilities less the one-hot label.

    Callers average over at least five seeds: with one, the first weights decide.

    References
    ----------
    Paul, Ganguli and Dziugaite (2021), Deep Learning on a Data Diet, section 2.2 (10 of 200 epochs, 10 seeds there; a
    head on fixed vectors is further after a fifth than a network from nothing).
    """
    early = max(1, round(EARLY * len(trace.error_norm)))
    return np.asarray(trace.error_norm[early - 1], dtype=np.float64)
