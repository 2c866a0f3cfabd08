"""ActiveLab: a new record, or a second opinion on one that has answers."""

import numpy as np
import numpy.typing as npt

from labeling.candidates import Candidates, Selection
from labeling.second_opinions import active_lab_scores
from labeling.strategies import STRATEGIES
from labeling.uncertainty import best_first, hesitations

DISAGREE = "second opinion: annotators disagree"
DOUBTED = "second opinion: answered before; nobody is shown how"


@STRATEGIES.register("active_lab")
def active_lab(candidates: Candidates, batch_size: int, rng: np.random.Generator) -> Selection:
    """Least trusted label first, be it the model's alone or one that annotators gave.

    Where no candidate has ``answers`` it is least confidence.

    Returns
    -------
    Selection : utility is 1 - ActiveLab's score, in [0, 1].

    Raises
    ------
    ColdStartError : there is no model yet.

    References
    ----------
    Goh and Mueller (2023), ActiveLab: Active Learning with Re-Labeling by Multiple Annotators, section 3.
    """
    proba = candidates.probabilities()
    utility = 1.0 - open_scores(candidates, proba)
    indices = best_first(utility, batch_size, rng)
    again = opinions_so_far(candidates)
    why = [
        again.get(int(row), line)
        for row, line in zip(indices, hesitations(proba, candidates.classes, indices), strict=True)
    ]
    return Selection(indices=indices, utility=utility[indices], why=why)


def open_scores(candidates: Candidates, proba: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """ActiveLab's scores, infinite where a row is not to be chosen."""
    scores = active_lab_scores(proba, candidates.answers)
    if candidates.answers is not None:
        scores[candidates.answers.closed] = np.inf
    return scores


def opinions_so_far(candidates: Candidates) -> dict[int, str]:
    """Rows that have answers and may be chosen, and what to say when they are asked about again."""
    answers = candidates.answers
    if answers is None:
        return {}
    pairs = np.unique(np.stack([answers.rows, answers.codes], axis=1), axis=0)
    rows, num_labels = np.unique(pairs[:, 0], return_counts=True)
    closed = set(answers.closed.tolist())
    told = zip(rows.tolist(), num_labels.tolist(), strict=True)
    return {row: DISAGREE if num > 1 else DOUBTED for row, num in told if row not in closed}
