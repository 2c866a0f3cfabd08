"""Every number of the variant table is checked against an independent one."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from catalog.errors import DataError
from training.compression import COMPRESSION
from training.data import TrainingData
from training.evaluation.energy import EnergyMeter
from training.evaluation.evaluate import evaluate, flops_per_example, predict, size_bytes
from training.evaluation.flops import count_flops
from training.evaluation.quality import accuracy_interval, paired_difference, quality, seeded_difference
from training.fit import FitResult, fit
from training.model import ModelConfig, Transformer

pairs = st.integers(1, 60).flatmap(lambda n: st.tuples(*[st.lists(st.integers(0, 3), min_size=n, max_size=n)] * 2))


@given(pair=pairs)
def test_scores_equal_scikit_learn(pair: tuple[list[int], list[int]]) -> None:
    predictions, labels = map(np.array, pair)
    scores = quality(predictions, labels, 4)
    assert scores.accuracy == pytest.approx(accuracy_score(labels, predictions))
    expected = f1_score(labels, predictions, labels=range(4), average=None, zero_division=0)
    assert scores.f1 == pytest.approx(expected)
    assert scores.macro_f1 == pytest.approx(expected.mean())


def test_paired_difference_equals_resampling_examples() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    a = np.where(rng.random(400) < 0.8, labels, 0)
    b = np.where(rng.random(400) < 0.7, labels, 0)
    found = paired_difference(a, b, labels, np.random.default_rng(1))
    rows = rng.integers(0, 400, (4000, 400))
    resampled = (a[rows] == labels[rows]).mean(1) - (b[rows] == labels[rows]).mean(1)
    assert found.diff == pytest.approx((a == labels).mean() - (b == labels).mean())
    assert found.low == pytest.approx(np.quantile(resampled, 0.025), abs=0.006)  # a few of 400 examples
    assert found.high == pytest.approx(np.quantile(resampled, 0.975), abs=0.006)


def test_equal_predictions_differ_by_nothing_and_a_clear_gain_is_seen() -> None:
    labels = np.arange(200) % 2
    rng = np.random.default_rng(0)
    assert paired_difference(labels, labels, labels, rng) == (0, 0, 0)
    worse = np.where(np.arange(200) < 60, 1 - labels, labels)
    gain = paired_difference(labels, worse, labels, rng)
    assert gain.diff == pytest.approx(0.3)
    assert 0.2 < gain.low < 0.3 < gain.high < 0.4


def test_accuracy_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    labels, covered = np.zeros(300, dtype=np.int64), 0
    for _ in range(200):
        low, high = accuracy_interval((rng.random(300) > 0.8).astype(np.int64), labels, rng)
        covered += low <= 0.8 <= high
    assert 0.89 <= covered / 200 <= 0.99  # 95 % of 200, within four standard deviations


def test_an_interval_over_seeds_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered, found_gain = 0, 0
    for _ in range(300):
        labels = rng.integers(0, 2, 300)
        pairs = []
        for _ in range(3):
            # Seeds differ by about two points, and a is better by ten.
            chance = np.clip(np.array([0.8, 0.7]) + rng.normal(0, 0.02, 2), 0, 1)
            pairs.append(tuple(np.where(rng.random(300) < one, labels, 1 - labels) for one in chance))
        found = seeded_difference(pairs, labels)
        covered += found.low <= 0.1 <= found.high
        found_gain += found.low > 0
    assert covered / 300 > 0.94
    assert found_gain / 300 > 0.25


def test_one_seed_gives_no_interval_over_seeds() -> None:
    labels = np.array([0, 1])
    with pytest.raises(DataError, match="1 seeds give no interval; train under at least 2"):
        seeded_difference([(labels, labels)], labels)


def test_scores_of_nothing_are_refused() -> None:
    empty = np.array([], dtype=np.int64)
    with pytest.raises(DataError, match="0 predictions and 0 labels"):
        quality(empty, empty, 2)


def closed_form(config: ModelConfig, num_records: int, num_tokens: int, hidden: int) -> tuple[int, int]:
    """Operations of linear layers and of attention in one forward pass without padding; a multiply-add is two."""
    tokens, dim = num_records * num_tokens, config.dim
    linear = config.num_layers * tokens * 2 * (dim * 3 * dim + dim * dim + 2 * dim * hidden)
    head = 2 * num_records * dim * config.num_classes
    attention = config.num_layers * 2 * num_records * num_tokens**2 * dim * 2
    return linear + head, attention


@pytest.mark.parametrize(
    ("feedforward", "options", "hidden"),
    [("dense", {"hidden": 96}, 96), ("moe_topk", {"num_experts": 8, "top_k": 2, "hidden": 48}, 96)],
)
def test_counted_flops_equal_the_closed_form(feedforward: str, options: dict[str, Any], hidden: int) -> None:
    config = ModelConfig(
        vocab_size=100, num_classes=3, dim=64, max_tokens=20, feedforward=feedforward, feedforward_options=options
    )
    model = Transformer(config)
    batch = torch.randint(0, 100, (5, 20)), torch.ones(5, 20, dtype=torch.bool)
    linear, attention = closed_form(config, 5, 20, hidden)
    # The gate runs over every token too.
    linear += config.num_layers * 5 * 20 * 2 * 64 * 8 if feedforward == "moe_topk" else 0
    with torch.no_grad():
        assert count_flops(lambda: model(*batch)) == linear + attention
    both = count_flops(lambda: model(*batch).square().sum().backward())
    assert both == 3 * linear + (2 + 5) * attention // 2


def test_operations_are_counted_without_padding() -> None:
    config = ModelConfig(vocab_size=100, num_classes=3, dim=32, max_tokens=20, feedforward_options={"hidden": 64})
    model = Transformer(config).eval()

    def encode(texts: list[str]) -> Any:
        lengths = torch.tensor([len(text) for text in texts])
        return torch.ones(len(texts), int(lengths.max()), dtype=torch.int64), torch.arange(lengths.max()) < lengths[
            :, None
        ]

    expected = np.mean([sum(closed_form(config, 1, length, 64)) for length in (3, 17)])
    assert flops_per_example(model, encode, ["a" * 3, "a" * 17]) == round(expected)


@pytest.fixture(scope="module")
def trained(data: TrainingData) -> FitResult:
    from training.arm import ArmConfig

    torch.set_num_threads(1)
    options = {
        "vocab_size": 300,
        "dim": 32,
        "feedforward": "moe_topk",
        "feedforward_options": {"num_experts": 4, "hidden": 32},
    }
    return fit(
        ArmConfig(name="t", backbone_options=options, steps=40, batch_size=8, learning_rate=3e-3, max_tokens=32), data
    )


@pytest.fixture(scope="module")
def meter() -> Any:
    one = EnergyMeter()
    yield one
    one.close()


@pytest.fixture
def run(trained: FitResult, data: TrainingData, meter: EnergyMeter) -> Callable[..., dict[str, Any]]:
    def call(model: torch.nn.Module, **given: Any) -> dict[str, Any]:
        return evaluate(model, trained.encode, data.texts, data.labels, data.classes, seed=0, meter=meter, **given)

    return call


def test_a_row_has_every_number_and_they_agree(
    run: Callable[..., dict[str, Any]], trained: FitResult, data: TrainingData
) -> None:
    row = run(trained.model)
    assert row["num_examples"] == 120
    assert row["accuracy"] == (row["predictions"] == np.array(data.labels)).mean()
    assert row["accuracy"] > 0.9
    assert row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"]
    assert set(row["f1"]) == set(data.classes)
    assert row["latency_ms"] > 0
    assert row["throughput"] > 0
    assert row["flops"] > 0
    assert row["flops_method"] == "counted"
    assert row["size_bytes"] == size_bytes(trained.model)
    assert row["energy_joules"] > 0
    assert 0.5 < row["energy_joules"] * row["throughput"] < 5000  # watts of a machine
    assert "codecarbon" in row["energy_method"]
    assert "modelled" in row["energy_method"] or "measured" in row["energy_method"]
    assert row["agreement"] is None


def test_int8_agrees_and_is_small_and_says_where_its_operations_come_from(
    run: Callable[..., dict[str, Any]], trained: FitResult
) -> None:
    full = predict(trained.model, trained.encode, ["지하철이 또 늦었어요", "the soup"] * 20)
    assert len(set(full.tolist())) == 2
    reference = run(trained.model)
    row = run(COMPRESSION["int8"].member(trained.model), reference=reference["predictions"], uncompressed=trained.model)
    assert row["agreement"] >= 0.98
    assert row["size_bytes"] < 0.6 * reference["size_bytes"]  # pickling overhead weighs on a model this tiny
    assert row["flops"] == reference["flops"]
    assert row["flops_method"] == "counted on the uncompressed model"


def test_predictions_do_not_depend_on_the_order_of_texts(trained: FitResult, data: TrainingData) -> None:
    forward = predict(trained.model, trained.encode, data.texts)
    backward = predict(trained.model, trained.encode, data.texts[::-1])
    assert forward.tolist() == backward[::-1].tolist()


def test_unlabelled_or_missing_examples_are_refused(trained: FitResult) -> None:
    for texts, labels in (([], []), (["a"], [-100]), (["a"], [2]), (["a", "b"], [0])):
        with pytest.raises(DataError, match="hold out labelled records"):
            evaluate(trained.model, trained.encode, texts, labels, ["x", "y"], seed=0)
