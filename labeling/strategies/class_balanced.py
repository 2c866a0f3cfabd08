"""Class balance: ask most about the labels that the answers so far lack."""

import numpy as np

from labeling.candidates import Candidates, Selection
from labeling.strategies import STRATEGIES
from labeling.uncertainty import best_first, hesitations, measure


@STRATEGIES.register("class_balanced")
def class_balanced(candidates: Candidates, batch_size: int, rng: np.random.Generator) -> Selection:
    """Smallest margin first within each predicted class, where labels and picks of that class are fewest.

    Returns
    -------
    Selection : utility is 1 / (1 + labels and earlier picks of the predicted class), in (0, 1].

    Raises
    ------
    ColdStartError : there is no model yet.

    References
    ----------
    Fairstein et al. (2024), Class Balancing for Efficient Active Learning in Imbalanced Datasets. Theirs fills up each
    class to its share of the batch; ours evens out what is labelled already as well.
    """
    proba = candidates.probabilities()
    codes = candidates.labelled_codes
    if codes is None and len(candidates.labelled_embeddings):
        candidates.require("labelled_codes", "give the labels of labelled_embeddings")
    counts = np.bincount(codes if codes is not None else [], minlength=len(candidates.classes))
    predicted = proba.argmax(axis=1)
    margins = measure("classifier_margin", proba)
    rows, levels = [], []
    for code in np.unique(predicted):
        of_class = np.flatnonzero(predicted == code)
        # No class gives more than the whole batch.
        first = best_first(-margins[of_class], min(batch_size, len(of_class)), rng)
        rows.append(of_class[first])
        levels.append(counts[code] + np.arange(len(first)))
    row, level = np.concatenate(rows), np.concatenate(levels)
    order = np.lexsort((rng.permutation(len(row)), level))[:batch_size]
    indices = row[order]
    why = [
        f"{counts[predicted[row]]} labels are {candidates.classes[predicted[row]]}, as this seems; {line}"
        for row, line in zip(indices, hesitations(proba, candidates.classes, indices), strict=True)
    ]
    return Selection(indices=indices, utility=np.reciprocal(1.0 + level[order]), why=why)
