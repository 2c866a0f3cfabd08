"""ActiveLab: a new record, or a second opinion on one that has answers."""

import numpy as np

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
    utility = 1.0 - active_lab_scores(proba, candidates.answers)
    indices = best_first(utility, batch_size, rng)
    again = opinions_so_far(candidates)
    why = [
        again.get(int(row), line)
        for row, line in zip(indices, hesitations(proba, candidates.classes, indices), strict=True)
    ]
    return Selection(indices=indices, utility=utility[indices], why=why)


def opinions_so_far(candidates: Candidates) -> dict[int, str]:
    """Rows that have answers, and what to say when they are asked about again."""
    answers = candidates.answers
    if answers is None:
        return {}
    pairs = np.unique(np.stack([answers.rows, answers.codes], axis=1), axis=0)
    rows, num_labels = np.unique(pairs[:, 0], return_counts=True)
    return {int(row): DISAGREE if num > 1 else DOUBTED for row, num in zip(rows, num_labels, strict=True)}
