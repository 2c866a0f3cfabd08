"""Outliers, topics and reach on directions whose answer is known."""

import numpy as np
import polars as pl
import pytest

from catalog.errors import ConfigError
from curation.coverage.clusters import centre, fit_clusters, mean_of
from curation.coverage.config import MapConfig
from curation.coverage.layout import lay_out
from curation.coverage.outliers import cosines, neighbour_distances, net_rows, outlier_limit
from curation.coverage.regions import judge_regions, near_limit
from curation.coverage.terms import cluster_terms
from curation.dedup.grid import nearest, snap
from tests.cli.corpus import COMMON, WORDS, records

CONFIG = MapConfig()


def blobs(number: int = 120, *, topics: int = 3, width: int = 24, noise: float = 0.15, seed: int = 1) -> np.ndarray:
    """Directions around ``topics`` axes, in turn."""
    rng = np.random.default_rng(seed)
    return snap(np.eye(width)[np.arange(number) % topics] + noise * rng.normal(size=(number, width)))


def far(grid: np.ndarray, config: MapConfig = CONFIG) -> np.ndarray:
    distance = neighbour_distances(grid, grid[net_rows(grid, config.same)], config)
    return distance > outlier_limit(distance, config.deviations)


@pytest.mark.parametrize("copies", [1, 30])
def test_copies_do_not_hide_an_outlier(copies: int) -> None:
    odd = np.zeros((copies, 24))
    odd[:, 20] = 1
    grid = np.concatenate([blobs(), snap(odd + 0.005 * np.random.default_rng(2).normal(size=odd.shape))])
    order = np.random.default_rng(3).permutation(len(grid))
    found = far(grid)
    assert found[120:].all()
    assert found[:120].sum() <= 2
    if copies == 1:
        # Of copies it is the first that stands in the net.
        np.testing.assert_array_equal(far(grid[order]), found[order])


def test_a_topic_of_its_own_is_no_outlier_and_nothing_but_copies_has_none() -> None:
    small = np.arange(131)[(np.arange(131) % 4 < 3) | (np.arange(131) < 60)]
    assert far(blobs(131, topics=4)[small]).sum() <= 2
    assert not far(np.repeat(blobs(1), 50, axis=0)).any()
    assert outlier_limit(np.empty(0), 3.5) == float("inf")


def test_distance_is_the_mean_over_the_nearest_by_brute_force() -> None:
    grid = blobs()
    unit = grid / np.linalg.norm(grid.astype(float), axis=1, keepdims=True)
    cosine = np.where(unit @ unit.T > 1 - CONFIG.same, -1, unit @ unit.T)
    expected = 1 - np.sort(cosine, axis=1)[:, -CONFIG.neighbours :].mean(axis=1)
    found = neighbour_distances(grid, grid[net_rows(grid, CONFIG.same)], CONFIG)
    # The net lacks what is a copy of another; here next to nothing is.
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_topics_are_found_and_do_not_depend_on_a_common_direction() -> None:
    plain = blobs(noise=0.1)
    shifted = snap(plain + 4096 * 3 * np.eye(24)[23])
    assert cosines(shifted[:9], shifted[-9:], 9).min() > 0.8
    for grid in (plain, shifted):
        seen = centre(grid, mean_of(grid))
        assert cosines(seen[:9], seen[-9:], 9).min() < -0.2
        home = nearest(seen, fit_clusters(seen, 3, 0), 1, "cpu")[:, 0]
        assert [len(set(home[topic::3])) for topic in range(3)] == [1, 1, 1]
        assert len(set(home)) == 3
    assert len(fit_clusters(np.repeat(plain[:2], 9, axis=0), 5, 0)) == 2
    assert len(fit_clusters(plain[:0], 5, 0)) == 0


def test_neighbours_stay_neighbours_in_the_picture() -> None:
    grid = blobs(noise=0.1)
    flat, trusted = lay_out(centre(grid, mean_of(grid)), 0)
    distance = np.linalg.norm(flat[:, None] - flat[None], axis=2) + 9 * np.eye(120)
    assert (distance.argmin(axis=1) % 3 == np.arange(120) % 3).all()
    assert trusted is not None
    assert trusted > 0.8
    assert flat.min() >= 0
    assert flat.max() <= 1
    np.testing.assert_array_equal(flat, lay_out(centre(grid, mean_of(grid)), 0)[0])
    for few in (0, 1, 5):
        assert lay_out(grid[:few], 0)[0].shape == (few, 2)


def test_topics_are_named_by_words_of_any_script() -> None:
    made = records()[:360]
    home = np.array([["account", "billing", "delivery", "device"].index(one["queue"]) for one in made])
    texts = [one["body"] for one in made]
    texts += ["今天天气很好", "天气预报说今天下雨", "明天天气不好", "電車が遅れています", "電車の時間", "次の電車"]
    texts += ["อากาศวันนี้ดีมาก", "สภาพอากาศ", "พยากรณ์อากาศ"]
    home = np.concatenate([home, np.repeat([4, 5, 6], 3)])
    named = cluster_terms(pl.Series(texts), home, 7)
    for terms, queue in zip(named, sorted(WORDS), strict=False):
        assert set(terms) <= set(WORDS[queue].split())
        assert not set(terms) & set(COMMON.split())
    assert named[4][0] == "天气"
    assert named[5][0] == "電車"
    assert named[6][0] in "อากาศ"


def test_what_every_text_says_names_no_topic() -> None:
    own = (["parcel", "courier", "depot", "van"], ["invoice", "refund", "card", "bank"])
    texts = pl.Series([f"please help with the {own[number % 2][number % 8 // 2]}" for number in range(40)])
    named = cluster_terms(texts, np.arange(40) % 2, 2, count=4)
    assert [set(terms) for terms in named] == [set(own[0]), set(own[1])]


def test_reach_is_of_the_denser_side_and_regions_need_enough_to_be_thin() -> None:
    pool = blobs(400, noise=0.2)
    few = pool[:3]
    assert near_limit(pool, few, CONFIG) == near_limit(pool, pool[:0], CONFIG) < 0.5
    found = judge_regions(np.array([50, 50, 4]), np.array([40, 0, 0]))
    assert [one["state"] for one in found] == ["covered", "empty", "covered"]
    assert [one["state"] for one in judge_regions(np.array([50, 50]), np.array([40, 5]))] == ["covered", "thin"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"neighbors": 3}, "unknown option 'neighbors'; did you mean 'neighbours'"),
        ({"neighbours": 0}, "neighbours=0 must be a whole number from 1 to 100"),
        ({"clusters": 65}, "clusters=65 must be a whole number from 1 to 64"),
        ({"same": 1.0}, r"same=1.0 must lie in \[0, 1\)"),
        ({"deviations": 0}, "deviations=0 must lie above 0"),
    ],
)
def test_values_out_of_range_are_refused(given: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        MapConfig.configured(given)
