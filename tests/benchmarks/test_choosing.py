"""The statistics by which benchmarks compare what was chosen."""

import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.stats import ttest_rel

from benchmarks.choosers import CONTESTANTS, PEERS, RANDOM, State
from benchmarks.label_efficiency import Kept, Trial, area, curve, labels_needed, paired_difference
from benchmarks.label_errors import Labelled
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


def few_labelled(num_classes: int = 3) -> State:
    """120 records of which 30 have labels, and the head that was fitted on them."""
    rng = np.random.default_rng(0)
    vectors, codes = rng.normal(size=(120, 8)).astype(np.float32), np.arange(120) % num_classes
    labelled = np.arange(120) < 30
    classes = tuple(str(code) for code in range(num_classes))
    head = Learner.fit(vectors[labelled], [classes[code] for code in codes[labelled]], classes, 0)
    return State(vectors, codes, labelled, classes, head, 1)


def test_every_contestant_chooses_records_without_a_label_and_repeats_itself() -> None:
    state = few_labelled()
    assert set(PEERS) < set(CONTESTANTS)
    for pick in CONTESTANTS.values():
        chosen = pick(state, 20)
        assert len(np.unique(chosen)) == 20
        assert not state.labelled[chosen].any()
        assert sorted(pick(state, 20)) == sorted(chosen)


@pytest.mark.parametrize(
    "same",
    [
        ("modAL margin", "skactiveml margin", "small-text BreakingTies"),
        ("modAL entropy", "small-text PredictionEntropy"),
        ("modAL least confident", "small-text LeastConfidence"),
        ("skactiveml CoreSet", "small-text GreedyCoreset"),
    ],
)
def test_one_rule_chooses_the_same_records_whoever_has_it(same: tuple[str, ...]) -> None:
    state = few_labelled()
    if "skactiveml CoreSet" in same:
        # small-text compares directions.
        unit = state.vectors / np.linalg.norm(state.vectors, axis=1, keepdims=True)
        state = State(unit, state.codes, state.labelled, state.classes, state.head, state.seed)
    chosen = [set(CONTESTANTS[name](state, 20).tolist()) for name in same]
    assert chosen == [chosen[0]] * len(same)
    assert chosen[0] != set(CONTESTANTS[RANDOM](state, 20).tolist())


def test_a_difference_is_taken_seed_by_seed() -> None:
    rng = np.random.default_rng(1)
    theirs = rng.random((8, 5))
    ours = theirs + 0.01 + 0.005 * rng.normal(size=(8, 1))
    found = paired_difference(ours, theirs)
    expected = ttest_rel(area(ours), area(theirs)).confidence_interval(0.95)
    assert [found["low"], found["high"]] == pytest.approx(list(expected), abs=1e-4)
    assert found["mean"] == pytest.approx(area(ours).mean() - area(theirs).mean(), abs=1e-4)
    assert found["low"] > 0 > found["mean"] - theirs.std()
    assert paired_difference(ours[:1], theirs[:1]) == {"mean": pytest.approx(0.01, abs=0.02)}


def test_a_curve_found_before_is_not_made_again(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    codes = rng.integers(0, 2, 1_700)
    vectors = (rng.normal(size=(1_700, 4)) + codes[:, None]).astype(np.float32)
    trial = Trial(Labelled("made", pl.Series([""] * 1_700), codes), vectors, 1)
    options = Namespace(limit=1_700, per_round=250)
    kept = Kept(tmp_path / "curves.jsonl")
    found = kept.curve(trial, "none", RANDOM, options)
    assert found == Kept(None).curve(trial, "none", RANDOM, options) == curve(trial, RANDOM, 250)
    line = json.loads((tmp_path / "curves.jsonl").read_text())
    (tmp_path / "curves.jsonl").write_text(json.dumps(line | {"accuracies": [0.1, 0.2, 0.3]}) + "\n")
    assert kept.curve(trial, "none", RANDOM, options) == [0.1, 0.2, 0.3]
    # Of another seed nothing is known.
    assert kept.curve(Trial(trial.data, vectors, 2), "none", RANDOM, options) != [0.1, 0.2, 0.3]
