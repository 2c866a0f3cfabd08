"""Label cardinality inconsistency: multi-label records with an unusual number of labels."""

import numpy as np

from labeling.candidates import Candidates, Selection
from labeling.multi_label import PREDICTED_FROM, label_margins, need_labels
from labeling.strategies import STRATEGIES, MultiLabelOnly


@STRATEGIES.register("lci", MultiLabelOnly)
def lci(candidates: Candidates, batch_size: int, rng: np.random.Generator) -> Selection:
    """Farthest from the labelled records' mean number of labels first; ties by the smallest margin of a label.

    Returns
    -------
    Selection : utility in labels, at least 0.

    Raises
    ------
    ColdStartError : there is no model yet.
    DataError : the model gives no ``label_proba``, or ``labelled_label_sets`` is missing.

    References
    ----------
    Li and Guo (2013), Active Learning with Multi-Label SVM Classification, section 4.2.
    """
    proba, labelled = need_labels(candidates)
    usual = float(labelled.sum(axis=1).mean())
    counts = (proba > PREDICTED_FROM).sum(axis=1)
    gap = np.abs(counts - usual)
    order = np.lexsort((rng.permutation(len(gap)), label_margins(proba).min(axis=1), -gap))
    indices = order[:batch_size].astype(np.int64)
    why = [f"{counts[row]} labels predicted where {usual:.1f} are usual" for row in indices]
    return Selection(indices=indices, utility=gap[indices], why=why)
