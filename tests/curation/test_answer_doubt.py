"""Labels that are wrong alike are found by answers, and only where there are enough of them."""

import numpy as np
from sklearn.metrics import roc_auc_score

from curation.label_errors.answers import answer_doubt


def clusters(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors of three classes, their labels, and labels of a rule that takes half of class 1 for class 0."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, 600)
    vectors = rng.normal(0, 0.7, (600, 8)) + 2.0 * np.eye(8)[truth]
    ruled = np.where((truth == 1) & (vectors[:, 5] > 0), 0, truth)
    return vectors.astype(np.float32), truth, ruled


def test_labels_that_are_wrong_by_rule_are_doubted_and_answers_are_not() -> None:
    vectors, truth, ruled = clusters()
    answered = np.arange(600) < 60
    codes = np.where(answered, truth, ruled)
    doubt = answer_doubt(vectors, codes, answered, 3)
    assert doubt is not None
    assert (doubt[answered] == 0).all()
    assert ((doubt >= 0) & (doubt <= 1)).all()
    assert roc_auc_score((codes != truth)[60:], doubt[60:]) > 0.95
    again = answer_doubt(vectors, codes, answered, 3)
    assert again is not None
    assert again.tolist() == doubt.tolist()


def test_too_few_answers_of_a_class_and_nothing_left_to_doubt_say_nothing() -> None:
    vectors, truth, _ = clusters()
    few = np.zeros(600, dtype=bool)
    few[np.flatnonzero(truth == 2)[:4]] = few[np.flatnonzero(truth < 2)[:50]] = True
    assert answer_doubt(vectors, truth, few, 3) is None
    assert answer_doubt(vectors, truth, np.ones(600, dtype=bool), 3) is None
