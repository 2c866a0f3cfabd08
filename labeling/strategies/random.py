"""Random selection: the baseline, and the only unbiased sample."""

import numpy as np

from labeling.candidates import Candidates, Selection
from labeling.mixing import CHOSEN_BY_CHANCE
from labeling.strategies import STRATEGIES, AnyTask
from labeling.uncertainty import best_first


@STRATEGIES.register("random", AnyTask)
def random(candidates: Candidates, batch_size: int, rng: np.random.Generator) -> Selection:
    """Draw uniformly without replacement; the utility is the draw itself.

    Returns
    -------
    Selection : utility uniform in [0, 1).
    """
    draws = rng.random(len(candidates))
    indices = best_first(draws, batch_size, rng)
    return Selection(indices=indices, utility=draws[indices], why=[CHOSEN_BY_CHANCE] * batch_size)
