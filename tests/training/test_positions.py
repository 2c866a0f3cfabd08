"""Positions equal the formulas of their papers, in the transformers library where it has them."""

import math
from typing import Any

import pytest
import torch

from catalog.errors import ConfigError
from training.positions import POSITIONS, PositionShape
from training.positions.alibi import slopes
from training.positions.relative import Relative, bucket_of
from training.positions.rope import Rope, frequencies


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"scaling": "linear", "factor": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        (
            {"scaling": "yarn", "factor": 4.0, "original_tokens": 512},
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512, "truncate": True},
        ),
        (
            {"scaling": "yarn", "factor": 16.0, "original_tokens": 64, "base": 500.0, "beta_fast": 8.0},
            {
                "rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 64, "beta_fast": 8.0,
                "truncate": True,
            },
        ),
    ],
)  # fmt: skip
def test_rope_scaling_equals_transformers(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    from transformers.models.llama.configuration_llama import LlamaConfig

    base = ours.get("base", 10_000.0)
    config = LlamaConfig(
        hidden_size=256, num_attention_heads=4, max_position_embeddings=2048,
        rope_parameters=theirs | {"rope_theta": base},
    )  # fmt: skip
    expected, magnitude = ROPE_INIT_FUNCTIONS[theirs["rope_type"]](config, "cpu")
    frequency, ours_magnitude = frequencies(Rope(**ours), 64)
    assert torch.allclose(frequency.float(), expected, rtol=1e-5)
    assert ours_magnitude == pytest.approx(magnitude)


def test_ntk_stretches_the_slowest_pair_by_the_factor_and_leaves_the_fastest() -> None:
    plain, _ = frequencies(Rope(), 64)
    stretched, _ = frequencies(Rope(scaling="ntk", factor=8.0), 64)
    assert stretched[0] == plain[0]
    assert stretched[-1].item() == pytest.approx(plain[-1].item() / 8)
    assert (stretched[1:] < plain[1:]).all()


@pytest.mark.parametrize("num_heads", [1, 3, 8, 12])
def test_slopes_equal_those_of_bloom(num_heads: int) -> None:
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    # Its bias of the last key is slope times that position.
    built = build_alibi_tensor(torch.ones(1, 2), num_heads, torch.float32)
    assert slopes(num_heads) == pytest.approx(built[:, 0, 1].tolist())


@pytest.mark.parametrize("sides", [1, 2])
def test_ranges_of_distances_equal_those_of_t5(sides: int) -> None:
    from transformers.models.t5.modeling_t5 import T5Attention

    distance = torch.arange(-300, 300)
    theirs = T5Attention._relative_position_bucket(distance, bidirectional=sides == 2, num_buckets=32, max_distance=128)
    assert torch.equal(bucket_of(distance, Relative(), sides), theirs)


def test_waves_equal_their_formula() -> None:
    shape = PositionShape(dim=6, num_heads=1, head_dim=6, max_tokens=10)
    module: Any = POSITIONS["sinusoidal"].member(shape, POSITIONS["sinusoidal"].configured({"scale": 1.0}))
    vector = module(torch.tensor([7]))[0].tolist()
    for pair in range(3):
        angle = 7 / 10_000 ** (2 * pair / 6)
        assert vector[2 * pair : 2 * pair + 2] == pytest.approx([math.sin(angle), math.cos(angle)])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("rope", {"scaling": "ntkk"}, "scaling='ntkk' must be one of none, linear, ntk, yarn"),
        ("rope", {"factor": 2.0}, "factor=2.0 has no effect with scaling='none'"),
        ("rope", {"scaling": "ntk", "factor": 0.5}, "factor=0.5 must be at least 1"),
        ("rope", {"scaling": "yarn", "factor": 2.0}, "original_tokens=0 must be above 0 for scaling='yarn'"),
        ("rope", {"scaling": "ntk", "factor": 2.0, "original_tokens": 9}, "and 0 for every other"),
        ("rope", {"base": 1.0}, "base=1.0 must be above 1"),
        ("rope", {"beta_slow": 40.0}, "beta_fast=32.0 must be above beta_slow=40.0"),
        ("relative", {"num_buckets": 6}, "num_buckets=6 must be a multiple of 4"),
        ("relative", {"max_distance": 16}, "max_distance=16 must be above"),
        ("sinusoidal", {"base": 0.5}, "base=0.5 must be above 1"),
        ("sinusoidal", {"scale": 0.0}, "scale=0.0 must be above 0"),
    ],
)
def test_options_out_of_range_are_refused(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        POSITIONS[name].configured(options)


@pytest.mark.parametrize(
    ("name", "message"),
    [("rope", r"head dim 5 \(dim / num_heads\) must be even"), ("sinusoidal", "dim=15 must be even")],
)
def test_networks_of_odd_sizes_are_refused(name: str, message: str) -> None:
    shape = PositionShape(dim=15, num_heads=3, head_dim=5, max_tokens=10)
    with pytest.raises(ValueError, match=message):
        POSITIONS[name].configured().check(shape)
