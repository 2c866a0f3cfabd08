"""What the multi-label strategies share: each label has a probability of its own."""

import numpy as np
import numpy.typing as npt

from labeling.candidates import Candidates

PREDICTED_FROM = 0.5
"""A label counts as predicted above this probability."""


def need_labels(candidates: Candidates) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """``label_proba`` and ``labelled_label_sets``.

    Raises
    ------
    ColdStartError : there is no model yet.
    DataError : it is a single-choice model, or nothing is labelled.
    """
    if candidates.label_proba is None:
        candidates.require("label_proba", "use cvirs and lci for multi-label tasks only, or margin")
    if candidates.labelled_label_sets is None or not len(candidates.labelled_label_sets):
        candidates.require("labelled_label_sets", "give the labels that labelled_embeddings have")
    assert candidates.label_proba is not None
    assert candidates.labelled_label_sets is not None
    return candidates.label_proba, candidates.labelled_label_sets


def label_margins(proba: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(n, num_classes) float64 in [0, 1]: how far each label is from a toss-up."""
    return np.abs(2 * proba - 1)
