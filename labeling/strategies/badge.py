"""BADGE: uncertain records that would teach the model different things."""

import numpy as np
import numpy.typing as npt

from labeling.candidates import Candidates, Selection
from labeling.distances import ROUNDING, squared_lengths
from labeling.shortlist import hesitant
from labeling.strategies import STRATEGIES
from labeling.uncertainty import hesitations


@STRATEGIES.register("badge")
def badge(candidates: Candidates, batch_size: int, rng: np.random.Generator) -> Selection:
    """k-means++ over the gradients that the likeliest labels would give, the largest gradient first.

    Of a pool above ``SHORTLIST_ROWS`` the so many of the smallest margins are looked at.

    Returns
    -------
    Selection : utility is the squared distance, in gradients, to the nearest pick before, made never to rise.

    Raises
    ------
    ColdStartError : there is no model yet.

    References
    ----------
    Ash et al. (2020), Deep Batch Active Learning by Diverse, Uncertain Gradient Lower Bounds, algorithm 1. A gradient
    is the outer product of the probabilities' error and the embedding, so distances come from the two factors and the
    matrix of gradients, num_classes times the pool, is never made. As in scikit-activeml no gradient at all counts as
    drawn, so that what the model is sure of is not drawn for being unlike the rest.
    """
    proba = candidates.probabilities()
    rows = hesitant(proba, batch_size, rng)
    picks, squared = gradient_plus_plus(candidates.embeddings[rows], proba[rows], batch_size, rng)
    why = [
        f"uncertain, and unlike the other picks: {line}" for line in hesitations(proba, candidates.classes, rows[picks])
    ]
    return Selection(indices=rows[picks], utility=np.minimum.accumulate(squared), why=why)


def gradient_factor(proba: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """(n, num_classes) float32: probabilities less the one-hot likeliest label, a gradient's factor by class."""
    factor = proba.astype(np.float32)
    factor[np.arange(len(factor)), proba.argmax(axis=1)] -= 1
    return factor


def gradient_plus_plus(
    points: npt.NDArray[np.float32], proba: npt.NDArray[np.float64], batch_size: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Draw points with probability proportional to the squared distance of their gradients to the nearest draw.

    Parameters
    ----------
    points : (n, dim) float32; of equally long gradients the first is taken first.
    proba : (n, num_classes) float64.

    Returns
    -------
    (batch_size,) int64 distinct rows and (batch_size,) float64: for the first, the squared length of its gradient, for
    the others their squared distance to those before, or to no gradient at all, when they were drawn.
    """
    factor = gradient_factor(proba)
    lengths = squared_lengths(points) * squared_lengths(factor)
    squared = lengths.astype(np.float64)
    picks, distances = np.empty(batch_size, dtype=np.int64), np.empty(batch_size)
    taken = np.zeros(len(points), dtype=bool)
    for number in range(batch_size):
        pick = int(squared.argmax()) if number == 0 else _draw(squared, taken, rng)
        picks[number], distances[number], taken[pick] = pick, squared[pick], True
        both = lengths + lengths[pick]
        to_pick = both - 2 * (points @ points[pick]) * (factor @ factor[pick])
        to_pick[to_pick < ROUNDING * both] = 0
        np.minimum(squared, to_pick, out=squared)
        squared[pick] = 0
    return picks, distances


def _draw(squared: npt.NDArray[np.float64], taken: npt.NDArray[np.bool_], rng: np.random.Generator) -> int:
    running = squared.cumsum()
    if running[-1] <= 0:
        # Nothing is left but copies of what was drawn.
        return int(rng.choice(np.flatnonzero(~taken)))
    return int(np.searchsorted(running, rng.random() * running[-1], side="right"))
