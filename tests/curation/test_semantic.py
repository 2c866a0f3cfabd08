"""Semantic duplicates: exact cosines, direct keepers that stay, the same answer for any order, cells and device."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from catalog.errors import ConfigError, DataError
from curation.dedup.cells import assign_cells, choose_num_cells, fit_cells, mean_directions, sample_rows
from curation.dedup.grid import LONGEST, nearest, norms, products_above, snap
from curation.dedup.keeper import keeper_order
from curation.dedup.semantic import (
    BLOCK_COLUMNS,
    SemanticConfig,
    SemanticDuplicates,
    cell_pairs,
    find_semantic_duplicates,
    settle_pairs,
)
from curation.dedup.sweep import accept_pairs, sweep_pairs
from curation.encoders import ENCODERS

ONE_CELL = SemanticConfig(num_cells=1)


def families(seed: int, number: int = 300, dimensions: int = 24) -> np.ndarray:
    """Rows around a few directions, at all distances from one another."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(number // 6, 1), dimensions))
    spread = rng.choice([0.02, 0.1, 0.2, 0.4], size=(number, 1))
    return centres[rng.integers(len(centres), size=number)] + spread * rng.standard_normal((number, dimensions))


def names(number: int) -> pl.Series:
    return pl.Series([f"r{row:05d}" for row in range(number)], dtype=pl.String)


def search(
    vectors: np.ndarray,
    config: SemanticConfig = ONE_CELL,
    *,
    ids: pl.Series | None = None,
    quality: list[float] | None = None,
    length: list[int] | None = None,
    **options,
) -> SemanticDuplicates:
    return find_semantic_duplicates(
        names(len(vectors)) if ids is None else ids,
        np.asarray(vectors, dtype=np.float32) if not isinstance(vectors, np.ndarray) else vectors,
        None if quality is None else pl.Series(quality, dtype=pl.Float64),
        pl.Series([9] * len(vectors) if length is None else length, dtype=pl.Int64),
        config,
        **options,
    )


def removed(found: SemanticDuplicates) -> dict[str, str]:
    return dict(found.pairs.filter("accepted").select("record_id", "keeper_id").rows())


def measured(found: SemanticDuplicates) -> dict[tuple[str, str], float]:
    return {(worse, better): similarity for worse, better, similarity, _ in found.pairs.rows()}


def cosines(vectors: np.ndarray) -> np.ndarray:
    rows = vectors.astype(np.float64)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return rows @ rows.T


def at_angles(*degrees: float) -> np.ndarray:
    """Directions in a plane (of three dimensions, away from the first axis)."""
    angles = np.radians(degrees)
    return np.column_stack([np.zeros(len(angles)), np.cos(angles), np.sin(angles)])


def greedy(found: SemanticDuplicates, order: list[str], least: float) -> set[str]:
    """Who leaves, by the rule itself: in keeper order, the best that is left stays and those near it leave."""
    near = {pair for pair, similarity in measured(found).items() if similarity >= least}
    gone: set[str] = set()
    for place, keeper in enumerate(order):
        if keeper not in gone:
            gone |= {worse for worse in order[place + 1 :] if (worse, keeper) in near}
    return gone


@given(st.integers(1, 700), st.integers(0, 2**32), st.sampled_from(["normal", "equal", "one large", "tiny", "huge"]))
@example(4096, 1, "equal")
@example(1, 1, "normal")
def test_products_on_the_grid_are_exact_in_float32(dimensions, seed, kind):
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((6, dimensions))
    if kind == "equal":
        vectors = np.full((6, dimensions), 1.0) * rng.choice([-1, 1], size=(6, 1))
    elif kind == "one large":
        vectors[:, 0] *= 1e6
    else:
        vectors *= {"normal": 1, "tiny": 1e-300, "huge": 1e300}[kind]
    grid = snap(vectors)
    assert norms(grid).max() <= LONGEST
    exact = grid.astype(np.int64) @ grid.astype(np.int64).T
    # Any order of adding: forwards, backwards and by halves.
    rows = grid.astype(np.float32)
    for order in (slice(None), slice(None, None, -1)):
        sums = np.cumsum(rows[:, None, order] * rows[None, :, order], axis=2, dtype=np.float32)[:, :, -1]
        assert np.array_equal(sums, exact)
    for device in ("cpu", "cpu:0"):
        row, column, dots = products_above(grid, grid, -float(LONGEST**2), device)
        assert np.array_equal(dots, exact[row, column])
        assert len(dots) == 36


def test_grid_moves_a_cosine_by_little():
    vectors = families(1, 400, 384)
    grid = snap(vectors)
    lengths = norms(grid)
    found = grid.astype(np.int64) @ grid.astype(np.int64).T / np.outer(lengths, lengths)
    error = np.abs(found - cosines(vectors))
    # Three of the standard deviations that the module states, and no outlier beyond six.
    near = cosines(vectors) >= 0.9
    assert np.quantile(error[near], 0.99) < 9e-5
    assert error.max() < 6e-4


def test_length_of_a_vector_does_not_count():
    vectors = families(2)
    assert search(vectors).pairs.equals(search(vectors * np.linspace(0.5, 90, len(vectors))[:, None]).pairs)
    halves = vectors.astype(np.float16)
    assert search(halves).pairs.equals(search(halves.astype(np.float64)).pairs)


@pytest.mark.parametrize("seed", range(4))
def test_one_cell_measures_every_pair_that_brute_force_finds(seed):
    vectors = families(seed, 700)
    found = measured(search(vectors, replace(ONE_CELL, max_better=10**6)))
    exact = cosines(vectors)
    least = 1 - max(ONE_CELL.epsilons)
    # Without quality and with equal lengths the smaller id is better.
    certain = {(f"r{j:05d}", f"r{i:05d}") for i, j in zip(*np.nonzero(np.triu(exact >= least + 1e-3, 1)), strict=True)}
    possible = {(f"r{j:05d}", f"r{i:05d}") for i, j in zip(*np.nonzero(np.triu(exact >= least - 1e-3, 1)), strict=True)}
    assert len(certain) > 500
    assert certain <= set(found) <= possible
    for (worse, better), similarity in found.items():
        assert similarity == pytest.approx(exact[int(worse[1:]), int(better[1:])], abs=1e-3)


def test_blocks_leave_no_pair_out():
    vectors = families(5, 4700, 6)
    found = search(vectors, SemanticConfig(num_cells=1, epsilon=0.01, sweep=(), max_better=10**6))
    grid = snap(vectors).astype(np.float64)
    lengths = np.sqrt((grid**2).sum(axis=1))
    similarity = np.round(grid @ grid.T / np.outer(lengths, lengths), 6)
    better, worse = np.nonzero(np.triu(similarity >= 0.99, 1))
    assert len(found.pairs) == len(worse) > 4000
    expected = pl.DataFrame(
        {
            "record_id": names(4700).gather(worse),
            "keeper_id": names(4700).gather(better),
            "similarity": similarity[better, worse],
        }
    )
    assert found.pairs.drop("accepted").equals(expected.sort("record_id", "keeper_id"))
    assert found.num_measured == 4700 * 4699 // 2


@given(st.integers(0, 10_000), st.sampled_from([0.01, 0.05, 0.1, 0.15]))
@settings(max_examples=20)
def test_who_leaves_is_what_the_rule_in_keeper_order_says(seed, epsilon):
    vectors = families(seed, 120)
    rng = np.random.default_rng(seed)
    quality, length = rng.integers(3, size=120).astype(float), rng.integers(3, size=120)
    found = search(vectors, replace(ONE_CELL, epsilon=epsilon), quality=quality.tolist(), length=length.tolist())
    order = keeper_order(names(120), pl.Series(length), pl.Series(quality))["id"].to_list()
    gone = removed(found)
    assert set(gone) == greedy(found, order, round(1 - epsilon, 6))
    assert not set(gone) & set(gone.values())
    for record, keeper in gone.items():
        assert measured(found)[record, keeper] >= 1 - epsilon
        staying = [s for (one, other), s in measured(found).items() if one == record and other not in gone]
        assert measured(found)[record, keeper] == max(staying)
    for (record, keeper), similarity in measured(found).items():
        assert order.index(keeper) < order.index(record)
        assert similarity < round(1 - epsilon, 6) or record in gone or keeper in gone


def test_chain_does_not_drag_its_far_end():
    # 15 degrees apart: cosine 0.966; the ends 0.866.
    found = search(at_angles(20, 35, 50))
    assert removed(found) == {"r00001": "r00000"}
    assert measured(found)["r00002", "r00001"] > 0.95


def test_keeper_has_the_best_quality_then_length_then_smallest_id():
    same = at_angles(30, 30, 30)
    assert removed(search(same)) == {"r00001": "r00000", "r00002": "r00000"}
    assert removed(search(same, length=[1, 2, 1])) == {"r00000": "r00001", "r00002": "r00001"}
    assert removed(search(same, length=[1, 2, 1], quality=[0, 0, 1])) == {"r00000": "r00002", "r00001": "r00002"}


def test_record_leaves_by_the_most_similar_of_those_that_stay():
    # The third is near both others, which are not near each other.
    assert removed(search(at_angles(20, 50, 37))) == {"r00002": "r00001"}
    assert removed(search(at_angles(20, 50, 33))) == {"r00002": "r00000"}


@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 3), st.randoms())
@settings(max_examples=15)
def test_result_depends_on_neither_order_nor_threads_nor_device(seed, num_cells, probes, shuffler):
    vectors, ids = families(seed, 90), names(90)
    quality = np.random.default_rng(seed).integers(3, size=90).astype(float)
    config = SemanticConfig(num_cells=num_cells, probes=probes, seed=seed)
    found = search(vectors, config, ids=ids, quality=quality.tolist())
    mixed = shuffler.sample(range(90), 90)
    for options in ({"threads": 1}, {"threads": 2}, {"device": "cpu:0"}):
        other = search(
            vectors[mixed], config, ids=ids.gather(mixed), quality=[quality[row] for row in mixed], **options
        )
        for part in ("pairs", "sweep", "background", "cells"):
            assert getattr(found, part).equals(getattr(other, part)), part
        assert found.num_measured == other.num_measured


def test_stages_over_shards_give_what_the_whole_gives():
    vectors, ids, config = families(3), names(300), SemanticConfig(num_cells=7, probes=2)
    quality, length = pl.Series(np.arange(300.0) % 4), pl.Series(np.arange(300) % 5)
    shards = [np.arange(start, 300, 3) for start in range(3)]
    grids = [snap(vectors[rows]) for rows in shards]
    samples = [sample_rows(ids.gather(rows), 32 * 7, config.seed) for rows in shards]
    centroids = fit_cells(
        pl.concat([ids.gather(rows).gather(sample) for rows, sample in zip(shards, samples, strict=True)]),
        np.concatenate([grid[sample] for grid, sample in zip(grids, samples, strict=True)]),
        7,
        config.seed,
    )
    assigned = [assign_cells(grid, centroids, config.probes) for grid in grids]
    parts = []
    for cell in reversed(range(len(centroids))):
        members = [np.flatnonzero((cells == cell).any(axis=1)) for cells in assigned]
        rows = np.concatenate([shard[member] for shard, member in zip(shards, members, strict=True)])
        grid = np.concatenate([grid[member] for grid, member in zip(grids, members, strict=True)])
        parts.append(cell_pairs(ids.gather(rows), grid, quality.gather(rows), length.gather(rows), config))
    pairs, sweep = settle_pairs(pl.concat(parts), config)
    whole = find_semantic_duplicates(ids, vectors, quality, length, config)
    assert pairs.equals(whole.pairs)
    assert sweep.equals(whole.sweep)
    assert len(whole.pairs) > 100
    assert sum(len(part) for part in parts) > len(pairs)


def test_more_probes_find_pairs_across_borders_and_lose_none():
    vectors = families(8, 900, 12)
    everything = set(measured(search(vectors, replace(ONE_CELL, max_better=10**6))))
    found = [
        set(measured(search(vectors, SemanticConfig(num_cells=30, probes=probes, max_better=10**6))))
        for probes in (1, 2, 3, 64)
    ]
    assert found[0] < found[1] < found[2] <= everything
    assert found[3] == everything
    assert len(found[0]) / len(everything) < 0.97 < len(found[1]) / len(everything)


def test_cells_have_every_record_once_as_home():
    found = search(families(4), SemanticConfig(num_cells=9, probes=3))
    assert found.cells["num_records"].sum() == 300
    assert found.cells["num_compared"].sum() == 900
    assert found.cells["num_records"].min() > 0
    assert found.num_measured == sum(size * (size - 1) // 2 for size in found.cells["num_compared"])


@given(st.integers(0, 10_000))
@settings(max_examples=20)
def test_sweep_counts_what_running_at_each_epsilon_removes(seed):
    vectors = families(seed, 150)
    found = search(vectors, SemanticConfig(num_cells=4))
    assert found.sweep["epsilon"].to_list() == [0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15]
    for epsilon, num_pairs, num_leaving, num_with_better in found.sweep.rows():
        alone = search(vectors, SemanticConfig(num_cells=4, epsilon=epsilon, sweep=()))
        assert len(alone.pairs) == num_pairs
        assert len(removed(alone)) == num_leaving
        assert alone.pairs["record_id"].n_unique() == num_with_better
        assert found.pairs_at(epsilon).filter(pl.col("similarity") >= round(1 - epsilon, 6)).equals(alone.pairs)
    for name in ("num_pairs", "num_with_better"):
        assert found.sweep[name].is_sorted()
    assert (found.sweep["num_leaving"] <= found.sweep["num_with_better"]).all()


def test_larger_epsilon_may_remove_fewer():
    # The second keeps two that are near it alone, until the first is near enough to take it away.
    pairs = pl.DataFrame(
        {
            "record_id": ["c", "d", "b"],
            "keeper_id": ["b", "b", "a"],
            "similarity": [0.97, 0.97, 0.92],
        }
    )
    assert sweep_pairs(pairs, [0.05, 0.1])["num_leaving"].to_list() == [2, 1]
    assert sweep_pairs(pairs, [0.05, 0.1])["num_with_better"].to_list() == [2, 3]


def test_what_if_beyond_the_pairs_that_are_kept_is_refused():
    found = search(families(1))
    with pytest.raises(ConfigError, match=r"epsilon=0\.2 must lie in \[0, 0\.15\].*sweep"):
        found.pairs_at(0.2)


def test_parts_of_unconnected_pairs_may_be_settled_apart():
    found = search(families(6), SemanticConfig(num_cells=3))
    parents = {one: one for pair in measured(found) for one in pair}

    def root(one: str) -> str:
        while parents[one] != one:
            one = parents[one]
        return one

    for worse, better in measured(found):
        parents[root(worse)] = root(better)
    part = pl.Series([sum(root(one).encode()) % 2 for one in found.pairs["record_id"]])
    halves = [found.pairs.filter(part == number) for number in (0, 1)]
    config = SemanticConfig(num_cells=3)
    settled = pl.concat([settle_pairs(half, config)[0] for half in halves]).sort("record_id", "keeper_id")
    assert min(len(half) for half in halves) > 10
    assert settled.equals(found.pairs)


def test_thousands_that_say_the_same_keep_few_pairs_each():
    same = BLOCK_COLUMNS + 100
    vectors = np.concatenate([np.repeat(at_angles(30), same, axis=0), at_angles(80, 81)])
    found = search(vectors, replace(ONE_CELL, max_better=5))
    assert len(found.pairs) == 4 * 5 // 2 + (same - 5) * 5 + 1
    expected = {f"r{row:05d}": "r00000" for row in range(1, same)} | {f"r{same + 1:05d}": f"r{same:05d}"}
    assert removed(found) == expected


def test_steps_of_the_sweep_are_bounded_apart():
    # Near the last: four at a cosine above 0.99 and, better, four at about 0.91.
    vectors = at_angles(24, 24, 24, 24, 48, 48, 48, 48, 49)
    found = search(vectors, replace(ONE_CELL, max_better=2, sweep=(0.01, 0.1)))
    kept = {better for worse, better in measured(found) if worse == "r00008"}
    assert kept == {"r00000", "r00001", "r00004", "r00005"}


def test_nothing_one_record_and_fewer_records_than_cells():
    nothing = search(np.empty((0, 8)), SemanticConfig())
    assert (len(nothing.pairs), len(nothing.cells), nothing.num_measured) == (0, 0, 0)
    assert nothing.sweep["num_leaving"].to_list() == [0] * 7
    assert nothing.background["random_ratio"].to_list() == [None] * 7
    one = search(at_angles(3), SemanticConfig(num_cells=5, probes=9))
    assert (len(one.pairs), one.cells.rows()) == (0, [(0, 1, 1)])
    three = search(at_angles(3, 4, 80), SemanticConfig(num_cells=50, probes=1))
    assert len(three.cells) == 3
    assert removed(search(at_angles(3, 3, 80), SemanticConfig(num_cells=50, probes=1))) == {"r00001": "r00000"}


def test_records_without_a_direction_stay_and_are_counted():
    unknown = np.zeros((4, 3))
    unknown[:2, 0] = 1.0  # what encoders give for a text they know nothing of
    vectors = np.concatenate([unknown, at_angles(30, 31), [[2.0, 0.0, 0.0], [2.0, 0.0, 0.0]]])
    found = search(vectors)
    assert found.num_unknown == 4
    assert removed(found) == {"r00005": "r00004", "r00007": "r00006"}
    assert found.cells["num_records"].to_list() == [4]
    alone = search(unknown)
    assert (alone.num_unknown, len(alone.pairs), len(alone.cells)) == (4, 0, 0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_vector_that_is_not_finite_is_refused_by_its_record(value):
    vectors = families(1, 5)
    vectors[3, 2] = value
    with pytest.raises(DataError, match=r"1 of 5 vectors hold NaN or infinity.*'r00003'.*encode"):
        search(vectors)


def test_record_id_that_stands_twice_is_refused():
    with pytest.raises(DataError, match="'a' stands twice"):
        search(at_angles(1, 2, 3), ids=pl.Series(["a", "b", "a"]))


@pytest.mark.parametrize("vectors", [np.ones((2, 4)), np.ones(3), np.ones((3, 4), dtype=np.int64)])
def test_vectors_that_do_not_fit_the_ids_are_refused(vectors):
    with pytest.raises(DataError, match="3 ids need as many rows of vectors"):
        search(vectors, ids=names(3), length=[1, 1, 1])


@pytest.mark.parametrize(
    ("given_value", "remedy"),
    [
        ({"epsilon": 1}, r"epsilon=1 must lie in \[0, 1\); 0.05 is usual"),
        ({"epsilon": -0.1}, "epsilon=-0.1"),
        ({"epsilon": float("nan")}, "epsilon=nan"),
        ({"epsilon": "0.1"}, "epsilon='0.1'"),
        ({"epsilon": True}, "epsilon=True"),
        ({"sweep": (0.1, 2.0)}, r"sweep=2.0 must lie in \[0, 1\)"),
        ({"sweep": [0.1]}, "must be a tuple"),
        ({"num_cells": 0}, "num_cells=0 must be a whole number from 1 to 1048576, or None to choose"),
        ({"num_cells": 2.0}, "num_cells=2.0"),
        ({"probes": 0}, "probes=0 must be a whole number from 1 to 64"),
        ({"probes": None}, "probes=None"),
        ({"max_better": 0}, "max_better=0"),
        ({"seed": -1}, "seed=-1 must be a whole number from 0 to 4294967295"),
        ({"seed": True}, "seed=True"),
    ],
)
def test_config_out_of_range_is_refused(given_value, remedy):
    with pytest.raises(ConfigError, match=remedy):
        SemanticConfig(**given_value)


def test_config_takes_the_ends_of_its_ranges():
    assert SemanticConfig(epsilon=0, sweep=(0.999,), num_cells=1, probes=64, seed=2**32 - 1).epsilons == (0, 0.999)
    assert SemanticConfig(epsilon=0.2, sweep=(0.1, 0.3)).epsilons == (0.1, 0.2, 0.3)
    assert [SemanticConfig().cells_for(number) for number in (0, 10_000, 10_001)] == [1, 1, 101]
    assert SemanticConfig(num_cells=3).cells_for(10**6) == 3
    assert choose_num_cells(10**8) == 10**4


def test_epsilon_of_nothing_takes_equal_directions_only():
    assert removed(search(at_angles(30, 30, 30.5), SemanticConfig(epsilon=0, sweep=()))) == {"r00001": "r00000"}


def test_similarity_at_the_threshold_counts():
    # 3-4-5 triangles: cosine 24/25 with one another.
    vectors = np.array([[0.0, 3, 4], [0.0, 4, 3]])
    similarity = measured(search(vectors))["r00001", "r00000"]
    assert similarity == pytest.approx(0.96, abs=2e-4)
    for epsilon, leaves in ((round(1 - similarity, 6), 1), (round(1 - similarity - 1e-6, 6), 0)):
        assert len(removed(search(vectors, SemanticConfig(epsilon=epsilon)))) == leaves
    # In floats 1 - 0.42 is more than 0.58.
    pairs = pl.DataFrame({"record_id": ["b"], "keeper_id": ["a"], "similarity": [0.58]})
    assert accept_pairs(pairs, 0.42)["accepted"].to_list() == [True]


def test_sample_depends_on_ids_and_seed_alone_and_is_that_of_samples():
    ids = names(500)
    chosen = ids.gather(sample_rows(ids, 40, 7)).to_list()
    mixed = ids.gather(np.random.default_rng(1).permutation(500))
    assert mixed.gather(sample_rows(mixed, 40, 7)).to_list() == chosen
    assert ids.gather(sample_rows(ids, 40, 8)).to_list() != chosen
    halves = [half.gather(sample_rows(half, 40, 7)) for half in (ids[:220], ids[220:])]
    together = pl.concat(halves)
    assert together.gather(sample_rows(together, 40, 7)).to_list() == chosen
    assert abs(np.mean([int(one[1:]) for one in ids.gather(sample_rows(ids, 200, 1))]) - 249.5) < 40


def test_fitted_cells_are_tighter_than_random_ones_and_follow_the_seed():
    grid, ids = snap(families(9, 600)), names(600)
    centroids = fit_cells(ids, grid, 20, 1)
    random = grid[sample_rows(ids, 20, 1)]

    def tightness(cells: np.ndarray) -> float:
        products = grid.astype(float) @ cells.astype(float).T / np.outer(norms(grid), norms(cells))
        return float(products.max(axis=1).mean())

    assert centroids.shape == (20, 24)
    assert tightness(centroids) > tightness(random) + 0.05
    assert not np.array_equal(centroids, fit_cells(ids, grid, 20, 2))


def test_cells_that_lose_their_members_get_others():
    # Twenty equal rows and two pairs: most first centroids would be of the one direction, which is taken once.
    vectors = np.concatenate([np.repeat(at_angles(10), 20, axis=0), at_angles(50, 51, 88, 89)])
    centroids = fit_cells(names(24), snap(vectors), 5, 1)
    assert len(np.unique(centroids, axis=0)) == len(centroids) == 5
    assert len(fit_cells(names(20), snap(vectors[:20]), 5, 1)) == 1


def test_means_of_empty_and_of_opposite_cells():
    sample = snap(np.concatenate([at_angles(10, 20, 70, 80, 40, 41, 42), -at_angles(70)]))
    home = np.array([0, 0, 2, 2, 4, 4, 4, 2])
    means = mean_directions(sample, home, 6)
    expected = snap(at_angles(15, 40, 80, 70, 41, 10))
    # Of cell 2 the first and last are opposite. The empty ones, 1, 3 and 5, get the first of cells 2, 4 and 0.
    expected[[1, 3]] = sample[[2, 4]]
    assert np.abs(means - expected).max() <= 1
    assert (mean_directions(sample[[2, 7]], np.array([2, 2]), 5) == sample[2]).all()


def test_nearest_are_the_same_by_faiss_and_torch_and_in_order():
    grid = snap(families(11, 200))
    centroids = grid[::10]
    exact = grid.astype(np.int64) @ centroids.astype(np.int64).T
    for device in ("cpu", "cpu:0"):
        found = nearest(grid, centroids, 4, device)
        assert np.array_equal(found, np.argsort(-exact, axis=1, kind="stable")[:, :4])


def test_device_that_rounds_is_refused():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with pytest.raises(ConfigError, match=r"'cpu:0'.*rounds.*set_float32_matmul_precision"):
            search(families(1, 10), device="cpu:0")
    finally:
        torch.set_float32_matmul_precision(before)


def test_background_shows_vectors_that_tell_nothing_apart():
    rng = np.random.default_rng(2)
    apart = rng.standard_normal((1500, 64))
    ratios = search(apart, SemanticConfig(num_cells=9)).background
    assert ratios["epsilon"].to_list() == [0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15]
    assert ratios["random_ratio"].to_list() == [0.0] * 7
    blind = apart + 30
    assert search(blind, SemanticConfig(num_cells=9)).background["random_ratio"].to_list() == [1.0] * 7
    known = search(at_angles(30, 31, 80), SemanticConfig(sweep=())).background
    assert known["random_ratio"].to_list() == [pytest.approx(1 / 3)]


@given(st.integers(0, 10_000))
@settings(max_examples=20)
def test_deduplicating_twice_finds_nothing_more(seed):
    vectors, ids = families(seed, 120), names(120)
    gone = removed(search(vectors))
    stays = ~ids.is_in(list(gone))
    assert removed(search(vectors[stays.to_numpy()], ids=ids.filter(stays))) == {}


PARAPHRASES = {
    "a1": "The cat sat on the mat.",
    "a2": "The cat was sitting on the mat.",
    "b1": "How do I reset my password?",
    "b2": "How can I reset my password?",
    "b3": "how to reset my password",
    "c1": "The flight was cancelled because of heavy snow.",
    "c2": "The flight got cancelled due to heavy snow.",
    "d": "The dog sat on the mat.",
    "e": "How do I delete my account?",
    "f": "The flight was full and left on time.",
}


def test_planted_paraphrases_are_found_by_a_real_encoder(tmp_path):
    vectors = ENCODERS["minilm"].member(list(PARAPHRASES.values()), tmp_path)
    found = find_semantic_duplicates(
        pl.Series(list(PARAPHRASES)),
        vectors,
        None,
        pl.Series([len(text) for text in PARAPHRASES.values()]),
        SemanticConfig(epsilon=0.07),
    )
    assert {frozenset(pair) for pair in removed(found).items()} == {
        frozenset({"a1", "a2"}),
        frozenset({"b1", "b2"}),
        frozenset({"b2", "b3"}),
        frozenset({"c1", "c2"}),
    }


KOREAN = {
    "ko1": "무엇보다도 호스트분들이 너무 친절하셨습니다.",
    "ko2": "무엇보다도, 호스트분들이 정말 친절하셨습니다!",
    "ko3": "지하철역에서 걸어서 십 분 거리라 찾아가기 쉬웠습니다.",
    "ko4": "지하철역에서 걸어서 십오 분 거리라 찾아가기 쉬웠어요.",
    "ko5": "내일 오전 회의는 오후 세 시로 미뤄졌습니다.",
    "ko6": "이번 주말에는 서울에 비가 많이 내릴 예정이다.",
}


def test_korean_rewordings_are_found_by_the_hashing_encoder(tmp_path):
    vectors = ENCODERS["hashing"].member(list(KOREAN.values()), tmp_path)
    found = find_semantic_duplicates(
        pl.Series(list(KOREAN)),
        vectors,
        None,
        pl.Series([len(text) for text in KOREAN.values()]),
        SemanticConfig(epsilon=0.35),
    )
    assert {frozenset(pair) for pair in removed(found).items()} == {
        frozenset({"ko1", "ko2"}),
        frozenset({"ko3", "ko4"}),
    }
