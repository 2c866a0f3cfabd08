"""Least confidence: ask where even the best guess is doubtful."""

import numpy as np

from labeling.candidates import Candidates, Selection
from labeling.strategies import STRATEGIES
from labeling.uncertainty import best_first, measure


@STRATEGIES.register("least_confidence")
def least_confidence(candidates: Candidates, batch_size: int, rng: np.random.Generator) -> Selection:
    """Smallest largest class probability first.

    Returns
    -------
    Selection : utility is 1 - largest probability, in [0, 1 - 1 / num_classes].

    Raises
    ------
    ColdStartError : there is no model yet.

    References
    ----------
    Lewis and Gale (1994), A Sequential Algorithm for Training Text Classifiers, section 3.
    """
    proba = candidates.probabilities()
    doubt = measure("classifier_uncertainty", proba)
    indices = best_first(doubt, batch_size, rng)
    best = proba[indices].argmax(axis=1)
    why = [
        f"confidence {proba[row, first]:.2f}: best guess {candidates.classes[first]}"
        for row, first in zip(indices, best, strict=True)
    ]
    return Selection(indices=indices, utility=doubt[indices], why=why)
