"""Laws of every feed-forward layer."""

import copy

import pytest
import torch

from training.feedforward import FEEDFORWARD
from training.model import auxiliary_loss

NAMES = sorted(FEEDFORWARD.load())
DIM = 16


def layer(name: str) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return FEEDFORWARD[name].member(DIM, FEEDFORWARD[name].configured({"hidden": 24}))


def tokens(count: int) -> torch.Tensor:
    return torch.randn(count, DIM, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NAMES)
def test_shape_is_kept(name: str) -> None:
    for count in (1, 7):
        assert layer(name)(tokens(count)).shape == (count, DIM)


@pytest.mark.parametrize("name", NAMES)
def test_a_token_ignores_its_neighbours(name: str) -> None:
    module, x = layer(name).eval(), tokens(9)
    alone = torch.cat([module(one[None]) for one in x])
    assert torch.allclose(module(x), alone, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_finite_gradient(name: str) -> None:
    module = layer(name).train()
    loss = module(tokens(200)).square().mean()
    extra = auxiliary_loss(module)
    (loss if extra is None else loss + extra).backward()
    for parameter_name, parameter in module.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all()
        assert parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_leaves_no_graph_behind(name: str) -> None:
    module = layer(name).train()
    module(tokens(5))
    copied = copy.deepcopy(module.eval())
    extra = auxiliary_loss(copied)
    assert extra is None or extra.item() == 0


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_autocast_stays_close(name: str) -> None:
    module, x = layer(name).eval(), tokens(50)
    with torch.autocast("cpu", torch.bfloat16):
        close = module(x).float()
    assert (close - module(x)).norm() / module(x).norm() < 0.02  # 8 bits of mantissa
