"""Predictive entropy: ask where the model spreads its belief over many labels."""

import numpy as np

from labeling.candidates import Candidates, Selection
from labeling.strategies import STRATEGIES
from labeling.uncertainty import best_first, measure


@STRATEGIES.register("entropy")
def entropy(candidates: Candidates, batch_size: int, rng: np.random.Generator) -> Selection:
    """Largest entropy of the class probabilities first.

    Returns
    -------
    Selection : utility in nats, in [0, ln num_classes].

    Raises
    ------
    ColdStartError : there is no model yet.

    References
    ----------
    Settles (2009), Active Learning Literature Survey, section 3.1.
    """
    proba = candidates.probabilities()
    nats = measure("classifier_entropy", proba)
    indices = best_first(nats, batch_size, rng)
    most = np.log(len(candidates.classes))
    best = proba[indices].argmax(axis=1)
    why = [
        f"entropy {nats[row]:.2f} of at most {most:.2f}: best guess {candidates.classes[first]} {proba[row, first]:.2f}"
        for row, first in zip(indices, best, strict=True)
    ]
    return Selection(indices=indices, utility=nats[indices], why=why)
