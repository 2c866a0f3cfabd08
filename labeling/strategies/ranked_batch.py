"""Ranked batch: uncertainty against distance from what is labelled, weighed by how much is labelled."""

import numpy as np
import numpy.typing as npt

from labeling.candidates import Candidates, Selection
from labeling.distances import mean_over, nearest, squared_lengths
from labeling.shortlist import hesitant
from labeling.strategies import STRATEGIES
from labeling.uncertainty import hesitations, measure


@STRATEGIES.register("ranked_batch")
def ranked_batch(candidates: Candidates, batch_size: int, rng: np.random.Generator) -> Selection:
    """Largest alpha * dissimilarity + (1 - alpha) * doubt first; alpha falls as labels grow.

    Of a pool above ``SHORTLIST_ROWS`` the so many of the smallest margins are looked at, and alpha is
    shortlist / (shortlist + labels).

    Returns
    -------
    Selection : utility in [0, 1], made never to rise.

    Raises
    ------
    ColdStartError : there is no model yet.

    References
    ----------
    Cardoso et al. (2017), Ranked batch-mode active learning, section 3, as modAL has it; modAL measures every distance
    anew for every pick.
    """
    proba = candidates.probabilities()
    rows = hesitant(proba, batch_size, rng)
    doubt = measure("classifier_uncertainty", proba[rows])
    picks, scores = rank(candidates.embeddings[rows], doubt, candidates.labelled_embeddings, batch_size)
    why = [f"uncertain and far from labels: {line}" for line in hesitations(proba, candidates.classes, rows[picks])]
    return Selection(indices=rows[picks], utility=np.minimum.accumulate(scores), why=why)


def rank(
    points: npt.NDArray[np.float32],
    doubt: npt.NDArray[np.float64],
    labelled: npt.NDArray[np.float32],
    batch_size: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """modAL's ``ranked_batch``, each distance measured once.

    Parameters
    ----------
    points : (n, dim) float32; the first of equal scores is picked.
    doubt : (n,) float64, 1 - largest probability.
    labelled : (m, dim) float32; with none, the point of the smallest mean distance is picked first.

    Returns
    -------
    (batch_size,) int64 distinct rows and (batch_size,) float64 scores when they were picked.
    """
    lengths = squared_lengths(points)
    picks, scores = np.empty(batch_size, dtype=np.int64), np.empty(batch_size)
    taken = np.zeros(len(points), dtype=bool)
    squared = np.full(len(points), np.inf, dtype=np.float32)
    if len(labelled):
        squared = nearest(points, labelled, 1)[1][:, 0]
    for number in range(batch_size):
        left = len(points) - number
        alpha = left / (left + len(labelled) + number)
        if number == 0 and not len(labelled):
            score = 1.0 / (1.0 + mean_over(np.asarray, points, points))
        else:
            score = alpha * (1.0 - 1.0 / (1.0 + np.sqrt(squared))) + (1.0 - alpha) * doubt
        score[taken] = -1.0
        pick = int(score.argmax())
        picks[number], scores[number], taken[pick] = pick, score[pick], True
        to_pick = lengths + lengths[pick] - 2 * (points @ points[pick])
        np.minimum(squared, np.maximum(to_pick, 0), out=squared)
    return picks, scores
