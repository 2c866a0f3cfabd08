"""Label errors: out-of-fold probabilities and neighbours in, a suspicion for every record out."""

from dataclasses import dataclass

import numpy as np

from catalog.errors import DataError
from curation.label_errors.noise import combine_evidence, noise_matrix, truth_given
from curation.softmax import FLOOR, Features, fit_softmax, one_thread, softmax_proba

METHOD = "softmax+neighbours/1"
"""Method and version stored beside every suspicion; raise the number when the same input gives other ones."""
PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0)
"""Values of ``c`` that are tried; the out-of-fold likelihood of the given labels chooses."""
NUM_FOLDS = 5
MIN_RECORDS = NUM_FOLDS
"""Records that a class needs: with fewer, some fold has none to learn it from."""


@dataclass(frozen=True, eq=False)
class Suspicions:
    """What is thought of each record's label.

    Parameters
    ----------
    quality : (n,) float64 in [0, 1], the model's probability that the given label is right: to rank by. It is too
        trusting by about a factor of two, as the classifier saw wrong labels too.
    suggested : (n,) int64, the likeliest other class.
    confidence : (n,) float64 in [0, 1], probability of the suggested class.
    suspected : (n,) bool, whether a person should look: confident learning says so, or the label is likelier wrong
        than right.
    estimated : how many labels are wrong, by confident learning's joint distribution.
    """

    quality: np.ndarray
    suggested: np.ndarray
    confidence: np.ndarray
    suspected: np.ndarray
    estimated: int


def held_out_proba(features: Features, codes: np.ndarray, held_out: np.ndarray, num_classes: int) -> list[np.ndarray]:
    """Probabilities of one fold's records under classifiers that were fitted on the others.

    Parameters
    ----------
    features : (n, d), dense float32 or CSR.
    held_out : (n,) bool, the fold.

    Returns
    -------
    for each of ``PENALTIES``, (num_held_out, num_classes) float64.
    """
    found, weights = [], None
    with one_thread():
        train, rest = features[~held_out], features[held_out]
        for c in PENALTIES:
            weights = fit_softmax(train, codes[~held_out], num_classes, c=c, start=weights)
            found.append(softmax_proba(rest, weights))
    return found


def log_loss(proba: np.ndarray, codes: np.ndarray) -> float:
    """Sum of -ln p of the given labels."""
    return float(-np.log(np.maximum(proba[np.arange(len(codes)), codes], FLOOR)).sum())


def judge_labels(
    proba: np.ndarray, votes: np.ndarray, codes: np.ndarray, trusted: np.ndarray | None = None
) -> Suspicions:
    """Rank records by how likely their label is wrong.

    Parameters
    ----------
    proba : (n, num_classes) float64, out of fold.
    votes : (n, num_classes) float64, of neighbours.
    codes : (n,) int64, the labels given; every class occurs.
    trusted : (n,) bool, labels that a person has confirmed; they are never suspected.

    Raises
    ------
    DataError : fewer than two classes.

    References
    ----------
    Northcutt, Jiang and Chuang (2021), Confident Learning: Estimating Uncertainty in Dataset Labels, section 3, and
    cleanlab's implementation of it for ``suspected``. The ranking is ours: ``benchmarks/label_errors.py`` compares.
    """
    if proba.shape[1] < 2:
        raise DataError("label errors need labels of at least two classes; label more records")
    with one_thread():
        alike = combine_evidence([proba, votes], codes)
        truth = truth_given(alike, codes, noise_matrix(alike, codes))
    rows = np.arange(len(codes))
    quality = truth[rows, codes]
    others = truth.copy()
    others[rows, codes] = -1.0
    suggested = others.argmax(axis=1)
    issues, estimated = _confident_learning(alike, codes)
    suspected = (quality < 0.5) | issues
    if trusted is not None:
        quality, suspected = np.where(trusted, 1.0, quality), suspected & ~trusted
    return Suspicions(quality, suggested, truth[rows, suggested], suspected, estimated)


def _confident_learning(proba: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, int]:
    """What cleanlab flags, and how many errors it estimates."""
    from cleanlab.count import num_label_issues
    from cleanlab.filter import find_label_issues

    found = find_label_issues(codes, proba, filter_by="prune_by_noise_rate", n_jobs=1)
    return np.asarray(found, dtype=np.bool_), int(num_label_issues(codes, proba))
