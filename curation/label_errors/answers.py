"""What people's answers say of the labels that nobody answered: a classifier that never saw one of those."""

import numpy as np

from curation.label_errors.judging import MIN_RECORDS, NUM_FOLDS, PENALTIES, log_loss
from curation.softmax import Features, fit_softmax, one_thread, softmax_proba


def answer_doubt(features: Features, codes: np.ndarray, answered: np.ndarray, num_classes: int) -> np.ndarray | None:
    """How unlikely each label is under a classifier fitted to the answered records alone.

    Where labels are wrong in the same way again and again, as those of keyword rules are, a classifier that saw them
    finds them plausible. One that only saw what people answered does not.

    Parameters
    ----------
    features : (n, d), dense float32 or CSR.
    codes : (n,) int64 labels; an answer's where there is one.
    answered : (n,) bool, whose label a person gave. Their doubt is 0.
    num_classes : number of classes.

    Returns
    -------
    (n,) float64 in [0, 1], or None where a class has fewer than ``MIN_RECORDS`` answers, or every record has one.
    """
    counts = np.bincount(codes[answered], minlength=num_classes)
    if counts.min() < MIN_RECORDS or answered.all():
        return None
    seen, given = features[answered], codes[answered]
    # Every fold gets its part of every class: within a class, records are dealt out in turn.
    order = np.argsort(given, kind="stable")
    folds = np.empty(len(given), dtype=np.int64)
    folds[order] = np.arange(len(given)) % NUM_FOLDS
    with one_thread():
        losses = [_held_out_loss(seen, given, folds, num_classes, c) for c in PENALTIES]
        weights = fit_softmax(seen, given, num_classes, c=PENALTIES[int(np.argmin(losses))])
        proba = softmax_proba(features, weights)
    doubt: np.ndarray = 1.0 - proba[np.arange(len(codes)), codes]
    return np.where(answered, 0.0, doubt)


def _held_out_loss(seen: Features, given: np.ndarray, folds: np.ndarray, num_classes: int, c: float) -> float:
    loss = 0.0
    for fold in range(NUM_FOLDS):
        inside = folds == fold
        weights = fit_softmax(seen[~inside], given[~inside], num_classes, c=c)
        loss += log_loss(softmax_proba(seen[inside], weights), given[inside])
    return loss
