"""CVIRS: multi-label records that are uncertain in every label and unlike any labelled set of labels."""

import numpy as np
import numpy.typing as npt

from labeling.candidates import Candidates, Selection
from labeling.multi_label import PREDICTED_FROM, label_margins, need_labels
from labeling.strategies import STRATEGIES, MultiLabelOnly
from labeling.uncertainty import best_first


@STRATEGIES.register("cvirs", MultiLabelOnly)
def cvirs(candidates: Candidates, batch_size: int, rng: np.random.Generator) -> Selection:
    """Largest product of rank by margin, over labels, and inconsistency with the labelled sets of labels first.

    Returns
    -------
    Selection : utility in [0, 1].

    Raises
    ------
    ColdStartError : there is no model yet.
    DataError : the model gives no ``label_proba``, or ``labelled_label_sets`` is missing.

    References
    ----------
    Reyes, Morell and Ventura (2018), Effective active learning strategy for multi-label learning, section 3.
    """
    proba, labelled = need_labels(candidates)
    hesitation, inconsistency = borda(label_margins(proba)), inconsistencies(proba > PREDICTED_FROM, labelled)
    utility = hesitation * inconsistency
    indices = best_first(utility, batch_size, rng)
    classes = candidates.classes
    nearest_tie = label_margins(proba)[indices].argmin(axis=1)
    why = [
        f"unusual set of labels ({inconsistency[row]:.2f}); hesitates on {classes[code]} {proba[row, code]:.2f}"
        for row, code in zip(indices, nearest_tie, strict=True)
    ]
    return Selection(indices=indices, utility=utility[indices], why=why)


def borda(margins: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean place in the labels' rankings by margin, 1 for the smallest margin in all; equal margins share a place.

    Parameters
    ----------
    margins : (n, num_classes) float64.

    Returns
    -------
    (n,) float64 in [0, 1].
    """
    from scipy.stats import rankdata

    num = len(margins)
    if num == 1:
        return np.ones(1)
    places = np.zeros(num)
    for column in margins.T:
        places += rankdata(column)
    return np.asarray((num - places / margins.shape[1]) / (num - 1), dtype=np.float64)


def inconsistencies(predicted: npt.NDArray[np.bool_], labelled: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Mean distance of each predicted set of labels from the labelled ones: 1 for opposites, else by entropy.

    Parameters
    ----------
    predicted : (n, num_classes) bool.
    labelled : (m, num_classes) bool, m at least 1.

    Returns
    -------
    (n,) float64 in [0, 1].
    """
    sets, which = np.unique(predicted, axis=0, return_inverse=True)
    known, counts = np.unique(labelled, axis=0, return_counts=True)
    size = predicted.shape[1]
    ours, theirs = sets.astype(np.float64), known.astype(np.float64)
    means = np.empty(len(sets))
    step = max(1, 1_000_000 // len(known))
    for start in range(0, len(sets), step):
        some = ours[start : start + step]
        both, only_ours, only_theirs = some @ theirs.T, some @ (1 - theirs).T, (1 - some) @ theirs.T
        cells = np.stack([both, only_ours, only_theirs, size - both - only_ours - only_theirs]) / size
        joint = _bits(cells).sum(axis=0)
        own, other = _binary_bits(some.mean(axis=1))[:, None], _binary_bits(theirs.mean(axis=1))[None, :]
        distance = np.divide(2 * joint - own - other, joint, out=np.zeros_like(joint), where=joint > 0)
        # Opposites determine one another, so by entropy they would be equal.
        distance[only_ours + only_theirs == size] = 1.0
        means[start : start + step] = np.clip(distance, 0, 1) @ counts / counts.sum()
    return means[which.reshape(-1)]


def _bits(share: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return -share * np.log2(share, out=np.zeros_like(share), where=share > 0)


def _binary_bits(share: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return _bits(share) + _bits(1 - share)
