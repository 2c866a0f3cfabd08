"""CROWDLAB: a classifier and the annotators vote, each by how much better than a guess it is."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from catalog.errors import DataError
from catalog.registry import NoConfig
from labeling.agreement.annotators import agreement_with_others, share_right, shares
from labeling.annotations import Annotations
from labeling.consensus import Consensus, Evidence
from labeling.truth import TRUTH
from labeling.truth.majority import majority_labels

Floats = npt.NDArray[np.float64]

LEAST = 1e-6
"""Weights and errors are no smaller, as in the authors' own code."""


@TRUTH.register("crowdlab")
def crowdlab(evidence: Evidence, config: NoConfig) -> Consensus:  # noqa: ARG001 - every method takes its options
    """Weighted mean of the classifier's probabilities and of the answers, which are taken for probabilities too.

    Returns
    -------
    Consensus : confidence is the mean's share of the label; quality, of an annotator, mixes the share of answers that
        equal the consensus with the mean's share of the answers given.

    Raises
    ------
    NoClassifierError : there are no probabilities.
    DataError : nobody shares an item with anybody, so that nobody can be weighed.

    References
    ----------
    Goh, Tkachenko and Mueller (2022), CROWDLAB: Supervised Learning to Infer Consensus Labels and Quality Scores for
    Data with Multiple Annotators, section 3. Probabilities are scaled as they come, not by a temperature; a tie between
    labels goes to the one that comes first in the schema.
    """
    proba, annotations = evidence.probabilities(), evidence.annotations.last_answers()
    if annotations.num_labels < 2:
        raise DataError(f"only the label {annotations.labels[0]!r} exists: there is nothing to decide")
    first, _ = majority_labels(annotations, proba)
    weights = _weigh(annotations, proba, first)
    label = np.full(annotations.num_items, -1, dtype=np.int32)
    for items, rows in annotations.blocks():
        answered = np.diff(annotations.starts[items.start : items.stop + 1]) > 0
        mean = _weighted_mean(annotations, items, rows, proba, weights)
        label[items] = np.where(answered, mean.argmax(axis=1), -1)
    # The weights again, by the better labels; these stay.
    weights = _weigh(annotations, proba, label)
    confidence, given = np.zeros(annotations.num_items), np.zeros(len(annotations))
    for items, rows in annotations.blocks():
        mean = _weighted_mean(annotations, items, rows, proba, weights)
        chosen = label[items]
        confidence[items] = np.where(chosen < 0, 0.0, mean[np.arange(len(mean)), chosen])
        given[rows] = mean[annotations.item[rows] - items.start, annotations.label[rows]]
    return Consensus(label=label, confidence=confidence, quality=_quality(annotations, label, given, weights))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Weights:
    """What everybody counts.

    Parameters
    ----------
    annotator : (num_annotators,) float64, weight of each one's answers.
    classifier : weight of the classifier.
    right : how likely an answer is the consensus.
    """

    annotator: Floats
    classifier: float
    right: float


def _weigh(annotations: Annotations, proba: Floats, label: npt.NDArray[np.int32]) -> Weights:
    """Weights by the error of each against that of always guessing the most frequent label."""
    num_answers = np.diff(annotations.starts)
    shared = num_answers > 1
    if not shared.any():
        raise DataError("no item was answered by two annotators: nobody can be weighed; use majority")
    agreed = np.bincount(annotations.item[label[annotations.item] == annotations.label], minlength=len(num_answers))
    right = float((agreed[shared] / num_answers[shared]).mean())
    guess = np.bincount(label[shared], minlength=annotations.num_labels).argmax()
    guess_error = max(LEAST, float((label[shared] != guess).mean()))
    agreement = agreement_with_others(annotations)
    agreement = np.where(np.isnan(agreement), np.nanmean(agreement), agreement)
    error = float((proba[shared].argmax(axis=1) != label[shared]).mean())
    return Weights(
        annotator=np.maximum(1 - (1 - agreement) / guess_error, LEAST),
        classifier=max(1 - error / guess_error, LEAST) * float(np.sqrt(num_answers[num_answers > 0].mean())),
        right=right,
    )


def _weighted_mean(annotations: Annotations, items: slice, rows: slice, proba: Floats, weights: Weights) -> Floats:
    """Of a block of items: probabilities of their labels."""
    own = weights.annotator[annotations.annotator[rows]]
    wrong = (1 - weights.right) / (annotations.num_labels - 1)
    mean: Floats = annotations.counts(items, rows, own) * (weights.right - wrong)
    total = np.bincount(annotations.item[rows] - items.start, weights=own, minlength=len(mean))[:, None]
    mean += total * wrong + proba[items] * weights.classifier
    mean /= total + weights.classifier
    return mean


def _quality(annotations: Annotations, label: npt.NDArray[np.int32], given: Floats, weights: Weights) -> Floats:
    num = np.bincount(annotations.annotator, minlength=annotations.num_annotators)
    own = np.bincount(annotations.annotator, weights=given, minlength=len(num))
    mean = shares(own, num)
    answers_an_item = len(annotations) / int((np.diff(annotations.starts) > 0).sum())
    everybody = weights.annotator.sum() * answers_an_item / len(num)
    share = weights.classifier / (weights.classifier + everybody)
    agreed = share_right(annotations, label, shared_only=True)
    return np.where(np.isnan(agreed), mean, share * mean + (1 - share) * agreed)
