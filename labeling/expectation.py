"""Expectation and maximization for models in which every annotator has a confusion matrix; sparse, by logarithms."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog.errors import DataError
from labeling.annotations import Annotations
from labeling.consensus import Consensus

MAX_CONFUSION_CELLS = 100_000_000
"""Annotators by labels by labels, in float64: 800 MB."""
TINY = np.finfo(np.float64).tiny
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Fitted:
    """A fitted model.

    Parameters
    ----------
    shares : (num_labels,) of the true labels.
    confusion : (num_annotators, num_labels, num_labels): how likely the annotator says the third to an item whose true
        label is the second. Rows sum to 1.
    log_likelihood : of the answers, after each pass, in nats.
    converged : False where the passes allowed did not suffice.
    """

    shares: Floats
    confusion: Floats
    log_likelihood: list[float]
    converged: bool

    def proba(self, annotations: Annotations, prior: Floats | None = None) -> Iterator[tuple[slice, Floats]]:
        """Of each block of items the probabilities of their labels; (items of the block, num_labels).

        ``prior`` (num_items, num_labels) takes the place of ``shares`` where it is given.
        """
        table = _log_table(self.confusion)
        for items, rows in annotations.blocks():
            log_joint = _log_joint(annotations, items, rows, table, _log_prior(self.shares, prior, items))
            yield items, _normalized(log_joint)[0]

    def log_likelihoods(self, annotations: Annotations) -> Iterator[tuple[slice, Floats]]:
        """Of each block of items how likely its answers are under each label; (items, num_labels), natural log."""
        table = _log_table(self.confusion)
        for items, rows in annotations.blocks():
            yield items, _log_joint(annotations, items, rows, table, np.zeros(1))


Shape = Callable[[Floats], Floats]
"""From expected counts (num_annotators, true, given) to confusion matrices."""


def fit(
    annotations: Annotations,
    shape: Shape,
    *,
    max_iterations: int,
    tolerance: float,
    prior: Floats | None = None,
) -> Fitted:
    """Alternate between the items' labels and the annotators' confusion matrices, from the shares of the votes.

    Parameters
    ----------
    annotations : repeated answers count as often as they were given.
    shape : the second half of a pass.
    tolerance : passes end when the mean log-likelihood of an answer, in nats, changes by less.
    prior : (num_items, num_labels) probabilities before any answer, in place of the labels' shares.

    Raises
    ------
    DataError : more annotators and labels than confusion matrices have room for.
    """
    size, num_annotators = annotations.num_labels, annotations.num_annotators
    if num_annotators * size * size > MAX_CONFUSION_CELLS:
        raise DataError(
            f"{num_annotators:,} annotators with {size:,} labels need {num_annotators * size * size:,} numbers; "
            f"at most {MAX_CONFUSION_CELLS:,} are held: use majority"
        )
    counts, totals = np.zeros((num_annotators * size, size)), np.zeros(size)
    for items, rows in annotations.blocks():
        votes = annotations.counts(items, rows).astype(np.float64)
        votes /= np.maximum(votes.sum(axis=1, keepdims=True), 1)
        _add(annotations, items, rows, votes, counts, totals)
    history: list[float] = []
    while True:
        shares = (totals + TINY) / (totals.sum() + size * TINY)
        confusion = shape(counts.reshape(num_annotators, size, size).transpose(0, 2, 1))
        table = _log_table(confusion)
        counts, totals, likelihood = np.zeros((num_annotators * size, size)), np.zeros(size), 0.0
        for items, rows in annotations.blocks():
            log_joint = _log_joint(annotations, items, rows, table, _log_prior(shares, prior, items))
            proba, log_sum = _normalized(log_joint)
            likelihood += float(log_sum.sum())
            _add(annotations, items, rows, proba, counts, totals)
        history.append(likelihood)
        done = len(history) > 1 and abs(history[-1] - history[-2]) < tolerance * len(annotations)
        if done or len(history) >= max_iterations:
            return Fitted(shares=shares, confusion=confusion, log_likelihood=history, converged=done)


def decide(annotations: Annotations, model: Fitted, prior: Floats | None = None) -> Consensus:
    """The most probable label of every item, and how often each annotator is right."""
    label = np.full(annotations.num_items, -1, dtype=np.int32)
    confidence = np.zeros(annotations.num_items)
    for items, proba in model.proba(annotations, prior):
        answered = np.diff(annotations.starts[items.start : items.stop + 1]) > 0
        label[items] = np.where(answered, proba.argmax(axis=1), -1)
        confidence[items] = np.where(answered, proba.max(axis=1), 0.0)
    quality = np.diagonal(model.confusion, axis1=1, axis2=2) @ model.shares
    given = np.bincount(annotations.annotator, minlength=annotations.num_annotators)
    return Consensus(
        label=label,
        confidence=confidence,
        quality=np.where(given > 0, quality, np.nan),
        num_iterations=len(model.log_likelihood),
        converged=model.converged,
    )


def _log_table(confusion: Floats) -> Floats:
    """(num_annotators * given, true): what an answer adds to the logarithms of each true label."""
    num, size, _ = confusion.shape
    return np.log(np.maximum(confusion, TINY)).transpose(0, 2, 1).reshape(num * size, size)


def _log_prior(shares: Floats, prior: Floats | None, items: slice) -> Floats:
    return np.log(np.maximum(shares if prior is None else prior[items], TINY))


def _who_said_what(annotations: Annotations, items: slice, rows: slice) -> Any:
    """(items of the block, num_annotators * num_labels) sparse, 1 where the annotator said it."""
    from scipy.sparse import csr_matrix

    size = annotations.num_labels
    columns = annotations.annotator[rows].astype(np.int64) * size + annotations.label[rows]
    starts = annotations.starts[items.start : items.stop + 1] - rows.start
    shape = (items.stop - items.start, annotations.num_annotators * size)
    return csr_matrix((np.ones(len(columns)), columns, starts), shape=shape)


def _log_joint(annotations: Annotations, items: slice, rows: slice, table: Floats, log_prior: Floats) -> Floats:
    joint: Floats = _who_said_what(annotations, items, rows) @ table
    joint += log_prior
    return joint


def _normalized(log_joint: Floats) -> tuple[Floats, Floats]:
    """Rows that sum to 1, and the logarithms of what they summed to."""
    top = log_joint.max(axis=1, keepdims=True)
    proba = np.exp(log_joint - top)
    total = proba.sum(axis=1, keepdims=True)
    proba /= total
    return proba, (top + np.log(total))[:, 0]


def _add(annotations: Annotations, items: slice, rows: slice, proba: Floats, counts: Floats, totals: Floats) -> None:
    answered = np.diff(annotations.starts[items.start : items.stop + 1]) > 0
    counts += _who_said_what(annotations, items, rows).T @ proba
    totals += proba[answered].sum(axis=0)
