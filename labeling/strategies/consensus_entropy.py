"""Consensus entropy: ask where a committee as a whole is uncertain."""

import numpy as np

from labeling.candidates import Candidates, Selection
from labeling.disagreement import over_committee, votes
from labeling.strategies import STRATEGIES
from labeling.uncertainty import best_first, measure


@STRATEGIES.register("consensus_entropy")
def consensus_entropy(candidates: Candidates, batch_size: int, rng: np.random.Generator) -> Selection:
    """Largest entropy of the members' mean probabilities first.

    Returns
    -------
    Selection : utility in nats, in [0, ln num_classes].

    Raises
    ------
    ColdStartError : there is no model yet.
    DataError : there is a model but no committee.

    References
    ----------
    Settles (2009), Active Learning Literature Survey, section 3.2 ("soft" vote entropy).
    """
    entropy = over_committee(candidates, lambda proba: measure("classifier_entropy", proba.mean(axis=0)))
    indices = best_first(entropy, batch_size, rng)
    told = votes(candidates, indices)
    why = [f"committee uncertain, {entropy[row]:.2f} nats: {line}" for row, line in zip(indices, told, strict=True)]
    return Selection(indices=indices, utility=entropy[indices], why=why)
