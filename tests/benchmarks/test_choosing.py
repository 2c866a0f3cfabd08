"""The statistics by which benchmarks compare what was chosen."""

import numpy as np
import pytest

from benchmarks.label_efficiency import CONTESTANTS, PEERS, State, area, labels_needed
from benchmarks.selection import modal_ranked, ours_on_all, pool_of, reach, scikit_activeml, spread_of_gradients
from labeling.learner import Learner


def test_area_is_the_mean_height_of_the_curve() -> None:
    assert area(np.array([[0.5, 0.7, 0.9], [0.6, 0.6, 0.6]])).tolist() == pytest.approx([0.7, 0.6])


def test_labels_needed_are_read_off_the_mean_curve() -> None:
    curves = np.array([[0.5, 0.7, 0.8], [0.7, 0.7, 0.8]])
    assert labels_needed(curves, 0.65, 50) == 50
    assert labels_needed(curves, 0.9, 50) is None


def test_statistics_of_a_choice_are_what_they_are_called() -> None:
    pool, _ = pool_of(300)
    chosen = np.arange(12)
    points = np.concatenate([pool.embeddings[chosen], pool.labelled_embeddings])
    distances = np.linalg.norm(pool.embeddings[:, None] - points[None], axis=2).min(axis=1)
    assert reach(pool, chosen) == pytest.approx(distances.mean(), abs=1e-3)
    proba = pool.probabilities()[chosen]
    error = proba - np.eye(4)[proba.argmax(axis=1)]
    gradients = (error[:, :, None] * pool.embeddings[chosen][:, None]).reshape(12, -1)
    squared = ((gradients[:, None] - gradients[None]) ** 2).sum(axis=2)
    assert spread_of_gradients(pool, chosen) == pytest.approx(squared.sum() / (12 * 11), rel=1e-4)


def test_everyone_chooses_from_the_same_pool() -> None:
    pool, head = pool_of(250)
    theirs = scikit_activeml(pool) | {"ranked_batch": lambda: modal_ranked(pool)}
    ours = ours_on_all(pool, head)
    assert sorted(theirs) == sorted(ours)
    for choose in (*theirs.values(), *ours.values()):
        picks = choose()
        assert len(np.unique(picks)) == 100
        assert picks.min() >= 0
        assert picks.max() < 250


def test_every_contestant_chooses_records_without_a_label() -> None:
    rng = np.random.default_rng(0)
    vectors, codes = rng.normal(size=(120, 8)).astype(np.float32), np.arange(120) % 3
    labelled = np.arange(120) < 30
    classes = ("0", "1", "2")
    head = Learner.fit(vectors[labelled], [classes[code] for code in codes[labelled]], classes, 0)
    state = State(vectors, codes, labelled, classes, head, 1)
    assert set(PEERS) < set(CONTESTANTS)
    for pick in CONTESTANTS.values():
        chosen = pick(state, 20)
        assert len(np.unique(chosen)) == 20
        assert not labelled[chosen].any()
