"""Vote entropy: ask where the members of a committee vote for different labels."""

import numpy as np
import numpy.typing as npt

from labeling.candidates import Candidates, Selection
from labeling.disagreement import over_committee, votes
from labeling.strategies import STRATEGIES
from labeling.uncertainty import best_first, nats


@STRATEGIES.register("vote_entropy")
def vote_entropy(candidates: Candidates, batch_size: int, rng: np.random.Generator) -> Selection:
    """Largest entropy of the members' votes first.

    Returns
    -------
    Selection : utility in nats, in [0, ln num_classes].

    Raises
    ------
    ColdStartError : there is no model yet.
    DataError : there is a model but no committee.

    References
    ----------
    Dagan and Engelson (1995), Committee-Based Sampling for Training Probabilistic Classifiers, section 5.
    """
    entropy = over_committee(candidates, _entropy_of_votes)
    indices = best_first(entropy, batch_size, rng)
    return Selection(indices=indices, utility=entropy[indices], why=votes(candidates, indices))


def _entropy_of_votes(proba: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    counted = np.eye(proba.shape[2])[proba.argmax(axis=2)].mean(axis=0)
    return nats(counted)
