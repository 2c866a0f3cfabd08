"""The Transformer ignores padding, refuses what it cannot do, and learns."""

import dataclasses

import pytest
import torch

from catalog.errors import ConfigError, NotFoundError
from training.model import ModelConfig, Transformer

CONFIG = ModelConfig(vocab_size=50, num_classes=3, dim=32, max_tokens=12, dropout=0.0)


def model(**changed: object) -> Transformer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Transformer(dataclasses.replace(CONFIG, **changed)).eval()


def batch(lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(0, 50, (len(lengths), 12), generator=torch.Generator().manual_seed(0))
    return ids, torch.arange(12) < torch.tensor(lengths)[:, None]


@pytest.mark.parametrize("feedforward", ["dense", "moe_topk"])
@pytest.mark.parametrize("order", ["encoder", "causal"])
def test_logits_do_not_depend_on_padding_or_neighbours(order: str, feedforward: str) -> None:
    network = model(order=order, feedforward=feedforward)
    ids, attends = batch([3, 12, 7])
    together = network(ids, attends)
    for row, length in enumerate((3, 12, 7)):
        alone = network(ids[row : row + 1, :length], attends[row : row + 1, :length])
        assert torch.allclose(together[row], alone[0], atol=1e-5)
    noise = ids.clone()
    noise[~attends] = 7
    assert torch.equal(network(noise, attends), together)


def test_causal_and_encoder_differ() -> None:
    assert not torch.allclose(model(order="causal")(*batch([12])), model(order="encoder")(*batch([12])))


def test_longer_input_than_positions_is_refused() -> None:
    ids = torch.zeros(1, 13, dtype=torch.int64)
    with pytest.raises(ValueError, match="13 tokens exceed max_tokens=12"):
        model()(ids, ids == 0)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"num_heads": 5}, ValueError, "dim=32 must be a multiple of num_heads=5"),
        ({"order": "perfix"}, ValueError, "order='perfix' must be one of encoder, causal, prefix"),
        (
            {"order": "causal", "attention": "linformer"},
            ValueError,
            "attention='linformer' cannot keep to order='causal', only to encoder; choose",
        ),
        (
            {"attention": "linear", "positions": "alibi"},
            ValueError,
            "positions='alibi' does not hold for attention='linear'; choose one of learned, none, sinusoidal, or",
        ),
        ({"positions": "rope", "dim": 12}, ValueError, r"head dim 3 \(dim / num_heads\) must be even for rope"),
        ({"positions": "ropes"}, NotFoundError, "did you mean 'rope'"),
        ({"num_layers": 0}, ValueError, "num_layers=0 must be at least 1"),
        ({"dropout": 1.0}, ValueError, "dropout=1.0"),
        ({"attention": "ful"}, NotFoundError, "did you mean 'full'"),
        ({"feedforward_options": {"hiden": 3}}, ConfigError, "did you mean 'hidden'"),
    ],
)
def test_impossible_configs_are_refused(changed: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        model(**changed)
