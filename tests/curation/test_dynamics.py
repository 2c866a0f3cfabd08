"""Learned difficulty: members by hand on a small trace, the head on data it must and must not be able to learn."""

import numpy as np
import pytest

from catalog.errors import ConfigError
from curation.dynamics import DYNAMICS, Trace
from curation.dynamics.head import HeadConfig, gradients_of, train_head
from curation.dynamics.regions import REGIONS, regions
from tests.curation.test_label_errors import clouds

# Three records over five epochs: learned and kept, forgotten twice, never learned.
MARGINS = np.array([[-1, 1, -2], [1, -1, -2], [2, 1, -3], [3, -1, -3], [3, 1, -5]], np.float32)
CONFIDENCE = np.array([[0.4, 0.6, 0.1], [0.6, 0.4, 0.1], [0.8, 0.6, 0.1], [0.9, 0.4, 0.1], [0.9, 0.6, 0.1]], np.float32)
TRACE = Trace(CONFIDENCE, MARGINS, 1.2 * (1 - CONFIDENCE), np.array([0.1, 0.7, 3.0]))
BY_HAND = {
    "confidence": [0.72, 0.52, 0.1],
    "correctness": [0.8, 0.6, 0.0],
    "cv_loss": [0.1, 0.7, 3.0],
    "el2n": [0.72, 0.48, 1.08],
    "forgetting": [0, 2, 5],
    "margin": [8 / 5, 1 / 5, -3],
    "variability": [np.sqrt((0.32**2 + 0.12**2 + 0.08**2 + 2 * 0.18**2) / 5), np.sqrt(0.0096), 0.0],
}


@pytest.mark.parametrize("name", sorted(DYNAMICS.load()))
def test_member_is_its_definition(name: str) -> None:
    measured = DYNAMICS[name].member(TRACE)
    assert measured.dtype == np.float64
    assert measured == pytest.approx(BY_HAND[name], abs=1e-6)


@pytest.mark.parametrize("name", sorted(set(DYNAMICS.load()) - {"variability"}))
def test_member_says_which_end_is_hard(name: str) -> None:
    values = DYNAMICS[name].member(TRACE)
    if DYNAMICS[name].config().hard == "low":
        values = -values
    assert values.argmax() == 2


def test_gradients_are_those_of_autograd() -> None:
    import torch

    rng = np.random.default_rng(0)
    layers, inputs, codes = (
        [rng.normal(size=(6, 4)), rng.normal(size=(5, 3))],
        rng.normal(size=(9, 5)),
        np.arange(9) % 3,
    )
    first, second = (torch.tensor(layer, requires_grad=True) for layer in layers)
    hidden = torch.relu(torch.tensor(inputs) @ first[:-1] + first[-1])
    torch.nn.functional.cross_entropy(hidden @ second[:-1] + second[-1], torch.tensor(codes)).backward()
    found = gradients_of(layers, inputs, codes)
    assert found[0] == pytest.approx(first.grad.numpy())  # type: ignore[union-attr]
    assert found[1] == pytest.approx(second.grad.numpy())  # type: ignore[union-attr]


def test_a_hidden_layer_learns_what_a_linear_head_cannot() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.choice([-1.0, 1.0], size=(400, 2)).astype(np.float32)
    codes = (vectors.prod(axis=1) > 0).astype(np.int64)
    linear = train_head(vectors, codes, 2, HeadConfig(epochs=20), seed=0)
    deep = train_head(vectors, codes, 2, HeadConfig(epochs=20, hidden=16), seed=0)
    assert linear.confidence[-1].mean() < 0.6
    assert deep.confidence[-1].mean() > 0.95
    assert (deep.margin[-1] > 0).all()


def test_the_same_seed_gives_the_same_bits_and_epochs_are_told_apart() -> None:
    vectors, codes = clouds(200)
    one, again, other = (train_head(vectors, codes, 3, HeadConfig(epochs=4), seed=seed) for seed in (1, 1, 2))
    assert one.confidence.tobytes() == again.confidence.tobytes()
    assert one.confidence.tobytes() != other.confidence.tobytes()
    assert (np.diff(one.confidence.mean(axis=1)) > 0).all()
    # What is missing from the label lies on the two others: evenly at least, on one at most.
    missing = 1 - one.confidence
    assert (one.error_norm >= missing * np.sqrt(1.5) - 1e-6).all()
    assert (one.error_norm <= missing * np.sqrt(2) + 1e-6).all()
    assert (one.confidence[one.margin > 0] > 1 / 3).all()
    assert (one.confidence[one.margin < 0] < 1 / 2).all()
    with pytest.raises(ConfigError, match="epochs=1"):
        HeadConfig(epochs=1)


def test_wrong_labels_are_suspected_and_nothing_suspected_is_hard() -> None:
    vectors, true = clouds(600, seed=2)
    rng = np.random.default_rng(3)
    wrong = rng.random(600) < 0.1
    codes = np.where(wrong, (true + 1) % 3, true)
    epochs = train_head(vectors, codes, 3, HeadConfig(), seed=0)
    trace = Trace(epochs.confidence, epochs.margin, epochs.error_norm, np.zeros(600))
    parts = [DYNAMICS[name].member(trace) for name in ("confidence", "variability", "correctness")]
    by_head = regions(*parts, np.zeros(600, bool)).to_numpy()
    assert set(by_head) <= set(REGIONS)
    assert (by_head[wrong] == "suspected").mean() > 0.5
    assert (by_head[~wrong] == "suspected").mean() < 0.05
    judged = regions(*parts, wrong).to_numpy()
    assert (judged[wrong] == "suspected").all()
