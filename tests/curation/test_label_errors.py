"""Label errors: each step against an independent reference, all of them on planted errors."""

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

from catalog.errors import DataError
from curation.label_errors.folds import duplicate_groups, grouped_folds
from curation.label_errors.judging import NUM_FOLDS, PENALTIES, held_out_proba, judge_labels, log_loss
from curation.label_errors.noise import combine_evidence, noise_matrix, truth_given
from curation.label_errors.votes import neighbour_votes
from curation.softmax import fit_softmax, softmax_proba

CENTRES = np.eye(3, 8) * 1.5


def clouds(size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors about three centres, float32, and which centre."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(3, size=size)
    vectors = CENTRES[codes] + rng.normal(scale=0.35, size=(size, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), codes


@pytest.mark.parametrize("c", [0.3, 10.0])
def test_softmax_regression_is_scikit_learns_dense_and_sparse(c: float) -> None:
    from scipy.sparse import csr_array

    vectors, codes = clouds(200)
    reference = LogisticRegression(C=c, max_iter=1000, tol=1e-8).fit(vectors.astype(np.float64), codes)
    for features in (vectors, csr_array(vectors)):
        proba = softmax_proba(features, fit_softmax(features, codes, 3, c=c))
        assert proba == pytest.approx(reference.predict_proba(vectors), abs=0.01)


def test_copies_are_one_group_and_stand_in_one_fold() -> None:
    base = "the quick brown fox jumps over the lazy dog near the river bank"
    texts = pl.Series([base, "  " + base.upper(), f"{base} today", "something else altogether", "오늘 날씨가 좋다"])
    assert duplicate_groups(texts).tolist() == [0, 0, 0, 1, 2]
    rng = np.random.default_rng(1)
    groups, codes = rng.integers(150, size=400), rng.integers(3, size=400)
    folds = grouped_folds(groups, codes, 5, seed=0)
    assert all(len(set(folds[groups == group].tolist())) == 1 for group in np.unique(groups))
    assert max(np.bincount(folds)) - min(np.bincount(folds)) < 25
    assert np.array_equal(grouped_folds(groups, codes, 5, seed=0), folds)
    assert not np.array_equal(grouped_folds(groups, codes, 5, seed=1), folds)


def test_neighbours_vote_by_cosine_and_copies_do_not() -> None:
    vectors, codes = clouds(60)
    groups = np.arange(60) // 2
    votes = neighbour_votes(vectors, codes, groups, 3)
    for row in range(60):
        others = [one for one in np.argsort(-(vectors @ vectors[row]), kind="stable") if groups[one] != groups[row]]
        expected = np.full(3, 0.1 / 3)
        for one in others[:10]:
            expected[codes[one]] += max(0.0, float(vectors[one] @ vectors[row]))
        assert votes[row] == pytest.approx(expected / expected.sum(), abs=1e-5)


def test_a_noise_matrix_is_learned_and_turns_probabilities_round_by_bayes() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(2, size=4000)
    given = np.where((true == 0) & (rng.random(4000) < 0.3), 1, true)
    proba = np.where(np.arange(2) == true[:, None], 0.99, 0.01)
    matrix = noise_matrix(proba, given)
    # Estimated (.7, .3 and 0, 1), then drawn half way to the uniform one of the same rate (.85, .15).
    assert matrix == pytest.approx(np.array([[0.775, 0.225], [0.075, 0.925]]), abs=0.02)
    truth = truth_given(np.array([[0.5, 0.5]]), np.array([1]), np.array([[0.8, 0.2], [0.1, 0.9]]))
    assert truth == pytest.approx(np.array([[0.2 / 1.1, 0.9 / 1.1]]))


def test_joined_evidence_explains_the_labels_better_than_each_part() -> None:
    vectors, codes = clouds(400)
    logits = (vectors @ CENTRES.T.astype(np.float32)) * np.array([0.3, 3.0, 1.0])
    parts = [
        np.exp(logits),
        np.exp(-3 * np.abs(np.arange(3) - codes[:, None] + np.random.default_rng(0).normal(size=(400, 1)))),
    ]
    parts = [one / one.sum(axis=1, keepdims=True) for one in parts]
    joined = combine_evidence(parts, codes)
    assert joined.sum(axis=1) == pytest.approx(np.ones(400))
    assert log_loss(joined, codes) < 0.8 * min(log_loss(one, codes) for one in parts)
    # Calibrated: of what is given a probability, so many are right.
    assert joined[codes == 0, 0].sum() + joined[codes != 0, 0].sum() == pytest.approx((codes == 0).sum(), rel=0.05)


def test_planted_errors_are_ranked_first_and_what_a_person_confirmed_is_never_suspected() -> None:
    vectors, true = clouds(600, seed=2)
    rng = np.random.default_rng(3)
    wrong = rng.random(600) < 0.1
    codes = np.where(wrong, (true + rng.integers(1, 3, 600)) % 3, true)
    groups = np.arange(600)
    folds = grouped_folds(groups, codes, NUM_FOLDS, 0)
    proba = np.zeros((len(PENALTIES), 600, 3))
    for fold in range(NUM_FOLDS):
        proba[:, folds == fold] = held_out_proba(vectors, codes, folds == fold, 3)
    best = min(proba, key=lambda one: log_loss(one, codes))
    votes = neighbour_votes(vectors, codes, groups, 3)
    found = judge_labels(best, votes, codes)
    assert average_precision_score(wrong, -found.quality) > 0.97
    assert found.suspected[wrong].mean() > 0.9
    assert found.suspected[~wrong].mean() < 0.05
    assert (found.suggested[wrong & found.suspected] == true[wrong & found.suspected]).mean() > 0.95
    assert (found.suggested != codes).all()
    assert found.estimated == pytest.approx(wrong.sum(), rel=0.3)
    trusted = judge_labels(best, votes, codes, trusted=wrong)
    assert not trusted.suspected[wrong].any()
    assert (trusted.quality[wrong] == 1).all()
    with pytest.raises(DataError, match="two classes"):
        judge_labels(best[:, :1], votes[:, :1], np.zeros(600, np.int64))
