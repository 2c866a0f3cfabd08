"""Second opinions: ask once more about labels that are likely wrong."""

import numpy as np

from labeling.candidates import Candidates, ColdStartError, Selection
from labeling.strategies import STRATEGIES, SingleChoiceOnly
from labeling.uncertainty import best_first

SECOND_OPINION = "label_errors"
"""Name of the strategy; a queue of it asks about nothing but suspected labels."""
WHY = "second opinion: this text was labelled before; nobody is shown how"


@STRATEGIES.register(SECOND_OPINION, SingleChoiceOnly)
def label_errors(candidates: Candidates, batch_size: int, rng: np.random.Generator) -> Selection:
    """Labels likeliest to be wrong first, as `winnow label-errors` found them; for second opinions.

    The line that annotators read says nothing of the label or of what is suspected: who is told what to expect finds
    it.

    Returns
    -------
    Selection : utility is the probability that the label is wrong, in [0, 1].

    Raises
    ------
    ColdStartError : nothing was looked for yet.

    References
    ----------
    Northcutt, Athalye and Mueller (2021), Pervasive Label Errors in Test Sets, section 4, whose reviewers chose between
    labels without knowing which was given; ours see the whole schema.
    """
    suspicion = candidates.suspicion
    if suspicion is None:
        raise ColdStartError("no label errors were looked for yet; run `winnow label-errors`")
    indices = best_first(suspicion, batch_size, rng)
    return Selection(indices=indices, utility=suspicion[indices], why=[WHY] * len(indices))
