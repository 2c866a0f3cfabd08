"""BALD: ask where the members of a committee are sure of different labels."""

import numpy as np

from labeling.candidates import Candidates, Selection
from labeling.disagreement import over_committee, votes
from labeling.strategies import STRATEGIES
from labeling.uncertainty import best_first, nats


@STRATEGIES.register("bald")
def bald(candidates: Candidates, batch_size: int, rng: np.random.Generator) -> Selection:
    """Largest mutual information between the label and the member that is asked first.

    Returns
    -------
    Selection : utility in nats, in [0, ln num_classes]: entropy of the mean less mean of the entropies.

    Raises
    ------
    ColdStartError : there is no model yet.
    DataError : there is a model but no committee.

    References
    ----------
    Houlsby et al. (2011), Bayesian Active Learning for Classification and Preference Learning, equation 1.
    """
    information = over_committee(candidates, lambda proba: nats(proba.mean(axis=0)) - nats(proba).mean(axis=0))
    information = np.maximum(information, 0.0)
    indices = best_first(information, batch_size, rng)
    told = votes(candidates, indices)
    why = [f"members disagree, {information[row]:.2f} nats: {line}" for row, line in zip(indices, told, strict=True)]
    return Selection(indices=indices, utility=information[indices], why=why)
