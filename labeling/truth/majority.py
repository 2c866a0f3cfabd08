"""Majority vote: every annotator counts alike."""

import numpy as np
import numpy.typing as npt

from catalog.registry import NoConfig
from labeling.agreement.annotators import agreement_with_others, share_right
from labeling.annotations import Annotations
from labeling.consensus import Consensus, Evidence
from labeling.truth import TRUTH


@TRUTH.register("majority")
def majority(evidence: Evidence, config: NoConfig) -> Consensus:  # noqa: ARG001 - every method takes its options
    """The label that most annotators gave; among equals that of those who agree more with all others.

    Returns
    -------
    Consensus : confidence is the share of the answers that gave the label; quality the share of answers that equal it.
        What remains equal after the tie-break is the label that comes first in the schema.

    References
    ----------
    Snow, O'Connor, Jurafsky and Ng (2008), Cheap and Fast - But is it Good?, section 4. Ties go by agreement with the
    others, which an annotator's own vote does not raise.
    """
    annotations = evidence.annotations.last_answers()
    label, confidence = majority_labels(annotations)
    return Consensus(label=label, confidence=confidence, quality=share_right(annotations, label))


def majority_labels(
    annotations: Annotations, proba: npt.NDArray[np.float64] | None = None
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
    """Labels (num_items,) int32, -1 without an answer, and the shares of the answers that gave them.

    ``proba`` (num_items, num_labels) breaks ties where it is given.
    """
    trust = np.nan_to_num(agreement_with_others(annotations), nan=0.0)
    label = np.full(annotations.num_items, -1, dtype=np.int32)
    confidence = np.zeros(annotations.num_items)
    for items, rows in annotations.blocks():
        votes = annotations.counts(items, rows)
        weights = annotations.counts(items, rows, trust[annotations.annotator[rows]]) if proba is None else proba[items]
        most = votes.max(axis=1)
        chosen = np.where(votes == most[:, None], weights, -1.0).argmax(axis=1)
        label[items] = np.where(most > 0, chosen, -1)
        confidence[items] = most / np.maximum(votes.sum(axis=1), 1)
    return label, confidence
