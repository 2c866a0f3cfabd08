"""Laws of every kind of positions, and of its combination with every attention."""

from typing import Any

import pytest
import torch
from torch import Tensor

from training.attention import ATTENTION
from training.model import ModelConfig, Transformer
from training.positions import POSITIONS, PositionShape

NAMES = sorted(POSITIONS.load())
PAIRS = [(attention, positions) for attention in sorted(ATTENTION.load()) for positions in NAMES]
HELD = [(a, p) for a, p in PAIRS if POSITIONS[p].config.acts in ATTENTION[a].config.positions]
SHAPE = PositionShape(dim=32, num_heads=4, head_dim=8, max_tokens=64)


def acting(acts: str) -> list[str]:
    return [name for name in NAMES if POSITIONS[name].config.acts == acts]


def member(name: str, **options: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return POSITIONS[name].member(SHAPE, POSITIONS[name].configured(options))


def config(attention: str, positions: str, **more: Any) -> ModelConfig:
    settings = {"vocab_size": 40, "num_classes": 3, "dim": 32, "max_tokens": 64, "dropout": 0.0}
    return ModelConfig(**(settings | {"attention": attention, "positions": positions} | more))


def network(attention: str, positions: str, **more: Any) -> Transformer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Transformer(config(attention, positions, **more)).eval()


def ids(num_tokens: int) -> Tensor:
    return torch.randint(0, 40, (2, num_tokens), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", acting("input"))
def test_embeddings_differ_by_position_and_have_the_size_of_token_embeddings(name: str) -> None:
    module = member(name)
    for weight in module.parameters():
        torch.nn.init.normal_(weight, std=0.02)
    vectors = module(torch.arange(64))
    assert vectors.shape == (64, 32)
    assert vectors.dtype == torch.float32
    assert torch.pdist(vectors).min() > 0
    assert 0.005 < vectors.std() < 0.05


@pytest.mark.parametrize("name", acting("rotation"))
def test_products_of_rotated_vectors_depend_on_the_difference_of_positions(name: str) -> None:
    module = member(name)
    q, k = (torch.randn(1, 4, 1, 8, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))

    def product(query: int, key: int) -> Tensor:
        turned = [module.rotate(x, torch.tensor([[at]])) for x, at in ((q, query), (k, key))]
        return (turned[0] * turned[1]).sum(-1)

    assert torch.allclose(product(9, 4), product(59, 54), atol=1e-5)
    assert not torch.allclose(product(9, 4), product(9, 5), atol=1e-3)
    assert torch.allclose(module.rotate(q, torch.tensor([[31]])).norm(dim=-1), q.norm(dim=-1), atol=1e-5)


@pytest.mark.parametrize("name", acting("scores"))
def test_scores_broadcast_distances_against_heads(name: str) -> None:
    module = member(name)
    distance = torch.arange(5)[None, :] - torch.arange(7)[:, None]
    scores = module.score(distance, torch.arange(4)[:, None, None])
    assert scores.shape == (4, 7, 5)
    assert torch.equal(scores[2], module.score(distance, torch.tensor(2)))
    assert torch.equal(scores[:, 0, 0], scores[:, 3, 3])
    assert not torch.equal(scores[0], scores[1])


@pytest.mark.parametrize(("attention", "positions"), HELD)
def test_every_combination_that_holds_trains_and_keeps_packed_documents_apart(attention: str, positions: str) -> None:
    model = network(attention, positions)
    packs = ATTENTION[attention].config.packs
    tokens, real = ids(50), torch.ones(2, 50, dtype=torch.bool)
    documents = (torch.arange(50) >= 21).long().repeat(2, 1) if packs else None
    states = model.hidden(tokens, real, documents=documents)
    states.square().mean().backward()
    assert all(
        one.grad is not None and one.grad.isfinite().all()
        for name, one in model.named_parameters()
        if "head" not in name
    )
    if packs:
        # 50 tokens are less than a block or window: what is linked does not depend on the place in the row.
        alone = model.hidden(tokens[:, 21:], real[:, 21:])
        assert torch.allclose(states[:, 21:], alone, atol=1e-5)


@pytest.mark.parametrize(("attention", "positions"), [one for one in PAIRS if one not in HELD])
def test_every_other_combination_is_refused_with_what_would_hold(attention: str, positions: str) -> None:
    with pytest.raises(
        ValueError, match=f"positions='{positions}' does not hold for attention='{attention}'; choose one of"
    ):
        config(attention, positions)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "none"])
def test_an_encoder_sees_order_through_positions_alone(name: str) -> None:
    turned = ids(20)[:, torch.randperm(20, generator=torch.Generator().manual_seed(1))]
    real = torch.ones(2, 20, dtype=torch.bool)
    for positions, differs in ((name, True), ("none", False)):
        model = network("full", positions)
        if positions == "relative":
            torch.nn.init.normal_(model.positions.weight, generator=torch.Generator().manual_seed(1))
        assert torch.allclose(model(ids(20), real), model(turned, real), atol=1e-5) is not differs
