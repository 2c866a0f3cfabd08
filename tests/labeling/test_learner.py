"""The linear head: its columns, its repeatability, its honesty about itself."""

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from threadpoolctl import threadpool_limits

from catalog.errors import DataError
from labeling.learner import Learner, wilson_interval

CLASSES = ("긍정", "부정", "중립", "無")


def blobs(num: int, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    """Two noisy groups, labelled by the third and the first class of the schema."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(2, size=num)
    points = (rng.normal(size=(num, 8)) + 1.5 * codes[:, None]).astype(np.float32)
    return points, [("중립", "긍정")[code] for code in codes]


def test_columns_stand_in_schema_order_and_unseen_classes_get_nothing() -> None:
    points, labels = blobs(200)
    learner = Learner.fit(points, labels, CLASSES, seed=0)
    proba = learner.proba(points)
    assert proba.shape == (200, 4)
    assert (proba[:, [1, 3]] == 0).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    low, high = np.full((1, 8), -3, dtype=np.float32), np.full((1, 8), 4, dtype=np.float32)
    assert CLASSES[learner.proba(low).argmax()] == "중립"
    assert CLASSES[learner.proba(high).argmax()] == "긍정"


def test_probabilities_are_those_of_logistic_regression() -> None:
    points, labels = blobs(120)
    expected = LogisticRegression(C=10.0, max_iter=1000).fit(points.astype(np.float64), labels)
    got = Learner.fit(points, labels, CLASSES, seed=0).proba(points)
    np.testing.assert_allclose(got[:, [0, 2]], expected.predict_proba(points.astype(np.float64)), atol=1e-9)


def test_same_labels_give_the_same_bits_on_any_number_of_threads() -> None:
    points, labels = blobs(300)
    seen = set()
    for threads in (1, 2):
        with threadpool_limits(limits=threads):
            seen.add(Learner.fit(points, labels, CLASSES, seed=1).proba(points).tobytes())
    assert len(seen) == 1


def test_empty_pool_has_no_probabilities() -> None:
    points, labels = blobs(20)
    assert Learner.fit(points, labels, CLASSES, seed=0).proba(points[:0]).shape == (0, 4)


def test_evaluation_counts_and_bounds() -> None:
    points, labels = blobs(200)
    learner = Learner.fit(points, labels, CLASSES, seed=0)
    held_out, gold = blobs(500, seed=1)
    predicted = [CLASSES[code] for code in learner.proba(held_out).argmax(axis=1)]
    measured = learner.evaluate(held_out, gold)
    correct = sum(a == b for a, b in zip(predicted, gold, strict=True))
    assert measured["n"] == 500
    assert measured["accuracy"] == correct / 500
    assert measured["macro_f1"] == pytest.approx(f1_score(gold, predicted, average="macro"))
    interval = binomtest(correct, 500).proportion_ci(0.95, method="wilson")
    assert (measured["low"], measured["high"]) == pytest.approx((interval.low, interval.high))


@pytest.mark.parametrize(("correct", "trials"), [(0, 1), (1, 1), (0, 10), (10, 10), (3, 7), (999, 1000)])
def test_wilson_interval_is_scipys(correct: int, trials: int) -> None:
    interval = binomtest(correct, trials).proportion_ci(0.95, method="wilson")
    assert wilson_interval(correct, trials) == pytest.approx((interval.low, interval.high))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "there are no labels; .*label more"),
        (["긍정", "긍정"], "all 2 labels are '긍정'; .*label more"),
        (["긍정", "긍정적"], "did you mean '긍정'"),
        (["긍정"], "2 embeddings and 1 labels"),
    ],
)
def test_fit_says_what_is_missing(labels: list[str], message: str) -> None:
    points = np.zeros((0 if not labels else 2, 8), dtype=np.float32)
    with pytest.raises(DataError, match=message):
        Learner.fit(points, labels, CLASSES, seed=0)


def test_evaluation_refuses_an_empty_slice() -> None:
    points, labels = blobs(50)
    with pytest.raises(DataError, match="held-out"):
        Learner.fit(points, labels, CLASSES, seed=0).evaluate(points[:0], [])
