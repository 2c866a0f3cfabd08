"""Information density: uncertain records that stand for many others."""

import numpy as np

from labeling.candidates import Candidates, Selection
from labeling.distances import mean_over
from labeling.shortlist import hesitant
from labeling.strategies import STRATEGIES
from labeling.uncertainty import best_first, measure

REFERENCES = 4_000
"""The mean similarity to the pool is measured on so many of it."""


@STRATEGIES.register("density")
def density(candidates: Candidates, batch_size: int, rng: np.random.Generator) -> Selection:
    """Largest entropy times mean similarity to the pool first.

    Of a pool above ``SHORTLIST_ROWS`` the so many of the smallest margins are looked at. The similarity is
    1 / (1 + Euclidean distance), as in modAL, to a uniform sample of the pool.

    Returns
    -------
    Selection : utility in nats, in [0, ln num_classes].

    Raises
    ------
    ColdStartError : there is no model yet.

    References
    ----------
    Settles and Craven (2008), An Analysis of Active Learning Strategies for Sequence Labeling Tasks, equation 13, with
    beta 1.
    """
    proba = candidates.probabilities()
    rows = hesitant(proba, batch_size, rng)
    sample = rng.choice(len(candidates), min(REFERENCES, len(candidates)), replace=False)
    nats = measure("classifier_entropy", proba[rows])
    similarity = mean_over(lambda far: 1 / (1 + far), candidates.embeddings[rows], candidates.embeddings[sample])
    utility = nats * similarity
    picks = best_first(utility, batch_size, rng)
    classes = candidates.classes
    why = [
        f"stands for many (similarity {similarity[pick]:.2f}), entropy {nats[pick]:.2f}: best guess "
        f"{classes[proba[rows[pick]].argmax()]} {proba[rows[pick]].max():.2f}"
        for pick in picks
    ]
    return Selection(indices=rows[picks], utility=utility[picks], why=why)
