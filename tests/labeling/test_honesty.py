"""Random tasks among chosen ones, what they say of the labels, and the advice when to stop."""

import numpy as np
import pytest

from labeling.honesty import MIN_RANDOM, worth
from labeling.learner import Learner
from labeling.mixing import mixed, random_places
from labeling.stopping import advice, model_figures


@pytest.mark.parametrize("share", [0.0, 0.05, 0.1, 0.3, 1.0])
def test_chance_fills_its_share_of_the_ranks_evenly_and_each_row_comes_once(share: float) -> None:
    rng = np.random.default_rng(3)
    chosen = rng.permutation(500)[:200].tolist()
    order = mixed(chosen, 500, 200, share, rng)
    rows = [row for row, _ in order]
    by_chance = [rank for rank, (_, place) in enumerate(order) if place is None]
    assert len(set(rows)) == len(rows) == 200
    assert len(by_chance) == round(200 * share)
    # As many in each quarter, to within the one that a stretch may put over the edge.
    counts = np.histogram(by_chance, bins=4, range=(0, 200))[0]
    assert counts.max() - counts.min() <= 2
    places = [place for _, place in order if place is not None]
    assert places == sorted(places)
    assert all(row == chosen[place] for row, place in order if place is not None)


def test_a_generation_of_all_that_is_left_has_each_row_once_whatever_the_share() -> None:
    rng = np.random.default_rng(3)
    for size in range(1, 60):
        for share in (0.1, 0.3, 0.5, 0.7):
            order = mixed(rng.permutation(size).tolist(), size, size, share, rng)
            assert sorted(row for row, _ in order) == list(range(size))
            assert sum(place is None for _, place in order) == round(size * share)


def test_chance_draws_from_the_whole_pool() -> None:
    drawn = np.zeros(50)
    for seed in range(2000):
        order = mixed(list(range(10)), 50, 10, 0.2, np.random.default_rng(seed))
        for row, place in order:
            drawn[row] += place is None
    # 80 expected each, standard deviation 8.8.
    assert drawn.min() > 40
    assert drawn.max() < 120
    assert random_places(10, 0.04, np.random.default_rng(0)).tolist() == []


CLASSES = ("가", "나", "다", "라")


def pool(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Four classes that a linear model can tell apart, given labels enough."""
    vectors = np.random.default_rng(seed).normal(size=(size, 12)).astype(np.float32)
    return vectors, (vectors @ np.random.default_rng(0).normal(size=(12, 4))).argmax(axis=1)


def accuracy(vectors: np.ndarray, codes: np.ndarray) -> float:
    """Of a model on records that are none of those."""
    model = Learner.fit(vectors, [CLASSES[code] for code in codes], CLASSES, 0)
    tested, truth = pool(20_000, 99)
    return float((model.proba(tested).argmax(axis=1) == truth).mean())


def test_worth_says_what_a_test_set_would_and_what_more_random_labels_would_have_cost() -> None:
    vectors, codes = pool(400, 1)
    names = [CLASSES[code] for code in codes]
    by_chance = np.zeros(400, dtype=bool)
    by_chance[::4] = True
    found = worth(vectors, names, by_chance, CLASSES, seed=0)
    assert found is not None
    now = accuracy(vectors, codes)
    assert found.accuracy.low <= now <= found.accuracy.high
    assert (found.num_labels, found.num_random) == (400, 100)
    # All labels were drawn alike here: as many random ones do.
    assert found.labels_saved.low <= 0
    assert found.labels_saved.high is None or found.labels_saved.high >= 0
    assert found.labels_for_same.value == found.labels_saved.value + 400
    more, more_codes = pool(100, 3)
    gain = accuracy(np.vstack([vectors, more]), np.concatenate([codes, more_codes])) - now
    assert found.next_gain.low - 0.01 <= gain <= found.next_gain.high + 0.01
    assert worth(vectors, names, by_chance, CLASSES, seed=0) == found


def test_labels_that_teach_more_than_random_ones_are_seen_to_save_labels() -> None:
    rng = np.random.default_rng(5)
    vectors, codes = pool(4_000, 4)
    names = np.array(CLASSES)[codes]
    sample = rng.choice(4_000, 80, replace=False)
    asked = sample[:40].tolist()
    for start in range(40, 80, 4):
        top = np.sort(Learner.fit(vectors[asked], names[asked].tolist(), CLASSES, 0).proba(vectors), axis=1)
        known = {*asked, *sample.tolist()}
        hardest = [row for row in np.argsort(top[:, -1] - top[:, -2]).tolist() if row not in known]
        asked += [*hardest[:30], *sample[start : start + 4].tolist()]
    found = worth(vectors[asked], names[asked].tolist(), np.isin(asked, sample), CLASSES, seed=0)
    assert found is not None
    assert found.labels_saved.value is None or found.labels_saved.value > 0
    assert found.labels_saved.low < (found.labels_saved.value or np.inf)
    # And they do: a hundred random labels more give no better a model.
    many = rng.choice(4_000, len(asked) + 100, replace=False)
    assert accuracy(vectors[many], codes[many]) < accuracy(vectors[asked], codes[asked])


def test_too_few_random_answers_say_nothing() -> None:
    vectors, codes = pool(200, 1)
    by_chance = np.zeros(200, dtype=bool)
    by_chance[: MIN_RANDOM - 1] = True
    assert worth(vectors, [CLASSES[code] for code in codes], by_chance, CLASSES, seed=0) is None
    assert worth(vectors, ["가"] * 200, np.ones(200, dtype=bool), CLASSES, seed=0) is None


def test_kappa_and_change_are_those_of_the_definition() -> None:
    from sklearn.metrics import cohen_kappa_score

    rng = np.random.default_rng(1)
    before = rng.integers(0, 3, 500)
    now = np.where(rng.random(500) < 0.8, before, rng.integers(0, 3, 500))
    proba = rng.dirichlet([1, 1, 1], 50)
    found = model_figures(proba, now, before.tolist())
    assert found["kappa"] == pytest.approx(cohen_kappa_score(before, now))
    assert found["changed"] == pytest.approx((before != now).mean())
    assert found["uncertainty"] == pytest.approx(-(proba * np.log(proba)).sum(axis=1).mean() / np.log(3))
    assert model_figures(proba, now, None)["kappa"] is None
    same = np.zeros(5, dtype=np.int64)
    assert model_figures(proba, same, same.tolist())["kappa"] == 1.0


def test_advice_waits_for_enough_and_then_says_what_each_criterion_says() -> None:
    early = {one.name: one.says_stop for one in advice([{}], num_answers=3, budget=None)}
    assert early == {"agreement": None, "change": None, "uncertainty": None, "gain": None}
    steady = {"kappa": 0.995, "changed": 0.002, "uncertainty": 0.2, "worth": {"next_gain": {"high": 0.001}}}
    late = {one.name: one.says_stop for one in advice([steady] * 3, num_answers=100, budget=100)}
    assert late == {"agreement": True, "change": True, "uncertainty": False, "gain": True, "budget": True}
    moving = [steady, steady, steady | {"kappa": 0.8, "changed": 0.2, "worth": None}]
    mixed_up = {one.name: one.says_stop for one in advice(moving, num_answers=99, budget=100)}
    assert mixed_up == {"agreement": False, "change": False, "uncertainty": False, "gain": True, "budget": False}
