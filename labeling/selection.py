"""One way to choose a batch: the named strategy, or the cold start while there is no model."""

from dataclasses import replace

import numpy as np

from catalog.errors import ConfigError, PoolExhaustedError
from labeling.candidates import Candidates, ColdStartError, Selection
from labeling.determinism import one_thread
from labeling.strategies import STRATEGIES

COLD_START = "kmeans"


def choose(candidates: Candidates, strategy: str, batch_size: int, rng: np.random.Generator) -> Selection:
    """Choose ``batch_size`` candidates by the named strategy.

    A strategy that needs a model when there is none is replaced by k-means on the embeddings; every ``why`` says so.

    Parameters
    ----------
    strategy : a name in ``STRATEGIES``.
    batch_size : 1 to ``len(candidates)``.

    Raises
    ------
    NotFoundError : no such strategy; the message has the nearest.
    ConfigError : ``batch_size`` below 1.
    PoolExhaustedError : ``batch_size`` is larger than the pool.
    """
    member = STRATEGIES[strategy].member
    if batch_size < 1:
        raise ConfigError(f"batch_size={batch_size} must be at least 1")
    if batch_size > len(candidates):
        raise PoolExhaustedError(
            f"batch_size={batch_size} exceeds the {len(candidates)} unlabelled candidates left; ask for at most those"
        )
    # Once for all: setting it takes milliseconds, and strategies multiply hundreds of times.
    with one_thread():
        try:
            return member(candidates, batch_size, rng)
        except ColdStartError:
            selection = STRATEGIES[COLD_START].member(candidates, batch_size, rng)
        return replace(selection, why=[f"no model yet for {strategy}: {line}" for line in selection.why])
