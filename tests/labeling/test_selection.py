"""What each strategy picks, against scikit-activeml and by hand; what happens at the edges."""

from typing import Any

import numpy as np
import pytest

from catalog.errors import ConfigError, DataError, NotFoundError, PoolExhaustedError
from labeling.candidates import Candidates
from labeling.clustering import MINI_BATCH_FROM
from labeling.selection import choose
from labeling.strategies import STRATEGIES
from labeling.strategies.kmeans import MAX_CLUSTERS

CLASSES = ("negative", "neutral", "positive", "mixed")


def candidates(proba: Any, embeddings: Any = None, classes: tuple[str, ...] = CLASSES) -> Candidates:
    if embeddings is None:
        embeddings = np.zeros((len(proba), 2), dtype=np.float32)
    return Candidates(
        embeddings=embeddings, proba=proba, labelled_embeddings=np.zeros_like(embeddings[:0]), classes=classes
    )


def cold(embeddings: Any) -> Candidates:
    return candidates(None, np.asarray(embeddings, dtype=np.float32))


@pytest.mark.parametrize(
    ("name", "method"),
    [("margin", "margin_sampling"), ("entropy", "entropy"), ("least_confidence", "least_confident")],
)
@pytest.mark.parametrize("num_classes", [2, 4])
def test_uncertainty_strategies_pick_what_scikit_activeml_picks(name: str, method: str, num_classes: int) -> None:
    from skactiveml.pool import uncertainty_scores

    proba = np.random.default_rng(5).dirichlet([0.6] * num_classes, 3000)
    scores = uncertainty_scores(proba, method=method)
    selection = choose(candidates(proba, classes=CLASSES[:num_classes]), name, 100, np.random.default_rng(0))
    assert selection.indices.tolist() == np.argsort(-scores, kind="stable")[:100].tolist()


def test_reasons_say_what_the_model_hesitates_between() -> None:
    proba = np.array([[0.05, 0.46, 0.49, 0.0], [0.97, 0.01, 0.01, 0.01], [0.3, 0.2, 0.45, 0.05]])
    rng = np.random.default_rng(0)
    assert choose(candidates(proba), "margin", 2, rng).why == [
        "margin 0.03: positive 0.49 vs neutral 0.46",
        "margin 0.15: positive 0.45 vs negative 0.30",
    ]
    assert choose(candidates(proba), "entropy", 1, rng).why == [
        "entropy 1.19 of at most 1.39: best guess positive 0.45"
    ]
    assert choose(candidates(proba), "least_confidence", 1, rng).why == ["confidence 0.45: best guess positive"]
    assert choose(candidates(proba), "random", 1, rng).why == ["chosen at random"]


def test_random_selection_is_uniform() -> None:
    drawn = np.zeros(20)
    for seed in range(2000):
        drawn[STRATEGIES["random"].member(cold(np.zeros((20, 2))), 5, np.random.default_rng(seed)).indices] += 1
    # 500 expected each; the standard deviation is 19.4.
    assert np.abs(drawn - 500).max() < 90


def test_kmeans_takes_the_middle_of_each_cluster_larger_clusters_first() -> None:
    rng = np.random.default_rng(1)
    centres, sizes = [(0, 0), (50, 0), (0, 50)], [30, 100, 60]
    points = np.concatenate([np.array(c) + rng.normal(size=(n, 2)) for c, n in zip(centres, sizes, strict=True)])
    selection = choose(cold(points), "kmeans", 3, np.random.default_rng(0))
    assert selection.why == [f"represents a cluster of {size} unlabelled records" for size in (100, 60, 30)]
    for index, start, size in zip(selection.indices, (30, 130, 0), (100, 60, 30), strict=True):
        group = points[start : start + size]
        assert start <= index < start + size
        assert np.linalg.norm(points[index] - group.mean(axis=0)) < 0.3


def test_kmeans_goes_round_the_clusters_when_the_batch_is_larger() -> None:
    points = np.random.default_rng(2).normal(size=(MAX_CLUSTERS * 2 + 100, 4))
    selection = choose(cold(points), "kmeans", MAX_CLUSTERS + 20, np.random.default_rng(0))
    assert sum(line.startswith("represents") for line in selection.why) == MAX_CLUSTERS
    assert selection.why[-1].startswith("number 2 from the middle of a cluster of ")


def test_kmeans_stays_quiet_on_copies_of_one_record() -> None:
    selection = choose(cold(np.ones((50, 3))), "kmeans", 10, np.random.default_rng(0))
    assert len(set(selection.indices.tolist())) == 10


def test_kmeans_does_not_depend_on_the_number_of_threads() -> None:
    from threadpoolctl import threadpool_limits

    points = np.random.default_rng(3).normal(size=(MINI_BATCH_FROM + 500, 16))
    chosen = []
    for threads in (1, 2):
        with threadpool_limits(limits=threads):
            chosen.append(choose(cold(points), "kmeans", 40, np.random.default_rng(0)))
    assert chosen[0].indices.tolist() == chosen[1].indices.tolist()
    assert chosen[0].utility.tobytes() == chosen[1].utility.tobytes()


def test_strategy_without_a_model_falls_back_to_kmeans_and_says_so() -> None:
    points = np.random.default_rng(4).normal(size=(60, 3))
    fallen = choose(cold(points), "margin", 5, np.random.default_rng(9))
    direct = choose(cold(points), "kmeans", 5, np.random.default_rng(9))
    assert fallen.indices.tolist() == direct.indices.tolist()
    assert fallen.why == [f"no model yet for margin: {line}" for line in direct.why]


def test_batch_must_fit_the_pool() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(PoolExhaustedError, match="batch_size=4 exceeds the 3 unlabelled"):
        choose(cold(np.zeros((3, 2))), "random", 4, rng)
    with pytest.raises(PoolExhaustedError, match="exceeds the 0"):
        choose(cold(np.zeros((0, 2))), "random", 1, rng)
    with pytest.raises(ConfigError, match="batch_size=0"):
        choose(cold(np.zeros((3, 2))), "random", 0, rng)


def test_unknown_strategy_is_refused_with_the_nearest() -> None:
    with pytest.raises(NotFoundError, match="did you mean 'entropy'"):
        choose(cold(np.zeros((3, 2))), "entropie", 1, np.random.default_rng(0))


@pytest.mark.parametrize(
    "wrong",
    [
        {"embeddings": np.full((3, 2), np.nan, dtype=np.float32)},
        {"embeddings": np.array([[0, np.inf]] * 3, dtype=np.float32)},
        {"embeddings": np.zeros(3, dtype=np.float32)},
        {"labelled_embeddings": np.zeros((1, 5), dtype=np.float32)},
        {"proba": np.full((3, 4), 0.5)},
        {"proba": np.full((3, 3), 1 / 3)},
        {"proba": np.array([[1.5, -0.5, 0, 0]] * 3)},
        {"proba": np.full((3, 4), np.nan)},
    ],
)
def test_candidates_refuse_what_does_not_fit(wrong: dict[str, Any]) -> None:
    good = {
        "embeddings": np.zeros((3, 2), dtype=np.float32),
        "proba": np.full((3, 4), 0.25),
        "labelled_embeddings": np.zeros((0, 2), dtype=np.float32),
        "classes": CLASSES,
    }
    Candidates(**good)
    with pytest.raises(DataError):
        Candidates(**{**good, **wrong})
