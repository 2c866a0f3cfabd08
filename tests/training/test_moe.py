"""The mixture of experts computes what it says, whichever product it uses."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from training.feedforward.moe_topk import (
    GroupedExperts,
    MoeFeedForward,
    MoeTopK,
    grouped_product,
    looped_product,
)
from training.model import ModelConfig, Transformer
from training.upcycling import router_statistics, upcycled


def moe(**options: object) -> MoeFeedForward:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MoeFeedForward(16, MoeTopK(**({"num_experts": 4, "hidden": 24} | options)))


def tokens(count: int = 40) -> torch.Tensor:
    return torch.randn(count, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("counts", [[5, 0, 12, 3], [0, 0, 20, 0], [5, 5, 5, 5]])
def test_grouped_product_equals_the_loop_forward_and_backward(counts: list[int]) -> None:
    results = []
    for product in (grouped_product, looped_product):
        x, weight = tokens(20).requires_grad_(), moe().experts.up_ECH.detach().clone().requires_grad_()
        out = product(x, weight, torch.tensor(counts))
        out.sum().backward()  # sends an expanded gradient, which the grouped kernel refuses by itself
        results.append((out, x.grad, weight.grad))
    for grouped, looped in zip(*results, strict=True):
        assert torch.allclose(grouped, looped, atol=1e-5)


def test_unaligned_sizes_and_float64_fall_back_to_the_loop() -> None:
    odd = GroupedExperts(16, 4, 25)
    counts = torch.tensor([10, 10, 10, 10])
    assert odd(tokens(), counts).shape == (40, 16)
    double = GroupedExperts(16, 4, 24).double()
    assert double(tokens().double(), counts).dtype == torch.float64


def test_separate_experts_equal_grouped_ones() -> None:
    experts = moe().experts
    for counts in ([10, 0, 25, 5], [0, 40, 0, 0]):
        assert torch.allclose(
            experts(tokens(), torch.tensor(counts)), experts.separated()(tokens(), torch.tensor(counts)), atol=1e-6
        )


def test_one_expert_is_the_dense_layer() -> None:
    layer = moe(num_experts=1, top_k=1)
    up, down = layer.experts.up_ECH[0], layer.experts.down_EHC[0]
    assert torch.allclose(layer(tokens()), F.gelu(tokens() @ up) @ down, atol=1e-6)


def test_every_token_gets_its_best_experts_weighted_by_the_gate() -> None:
    layer = moe(top_k=2).eval()
    x = tokens()
    proba = layer.gate(x).softmax(-1)
    weight, chosen = proba.topk(2)
    weight = weight / weight.sum(-1, keepdim=True)
    every = torch.stack(
        [F.gelu(x @ up) @ down for up, down in zip(layer.experts.up_ECH, layer.experts.down_EHC, strict=True)]
    )
    expected = sum(weight[:, k, None] * every[chosen[:, k], torch.arange(len(x))] for k in range(2))
    assert torch.allclose(layer(x), expected, atol=1e-5)


def test_auxiliary_loss_is_smallest_when_balanced_and_off_when_told() -> None:
    layer = moe(balance_weight=1.0, z_weight=0.0)
    layer.train()(tokens(4000))
    near_balance = layer.auxiliary_loss.item()
    with torch.no_grad():
        layer.gate.weight.zero_()
        layer.gate.weight[0, 0], layer.gate.weight[1, 0] = 50.0, 49.0
    layer(tokens(4000).abs())
    assert near_balance < 1.2  # 1 is perfect balance (Fedus et al. 2021)
    assert layer.auxiliary_loss.item() > 1.8  # two of four experts take everything
    off = moe(balance_weight=0.0, z_weight=0.0)
    off.train()(tokens())
    assert off.auxiliary_loss.item() == 0


def test_z_loss_grows_with_the_logits() -> None:
    layer = moe(balance_weight=0.0, z_weight=1.0).train()
    layer(tokens())
    small = layer.auxiliary_loss.item()
    with torch.no_grad():
        layer.gate.weight.mul_(20)
    layer(tokens())
    assert layer.auxiliary_loss.item() > 4 * small


def test_balancing_evens_out_the_load() -> None:
    loads = {}
    for weight in (0.0, 1.0):
        layer = moe(balance_weight=weight, z_weight=0.0, top_k=1)
        with torch.no_grad():
            layer.gate.weight[0] += 0.3  # a head start for one expert
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        x = tokens(400) + 0.5
        for _ in range(60):
            optimizer.zero_grad()
            (layer(x).square().mean() + layer.auxiliary_loss).backward()
            optimizer.step()
        loads[weight] = layer.gate(x).argmax(-1).bincount(minlength=4).max().item() / 100
    assert loads[1.0] < 0.8 * loads[0.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 5}, r"top_k=5 must lie in \[1, num_experts=4\]"),
        ({"z_weight": -1.0}, "z_weight=-1.0 must be 0 or more"),
        ({"balancing": "biass"}, "balancing='biass' must be one of loss, bias"),
        ({"biases": "all"}, "biases='all' must be one of none, own"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        moe(**options)


def test_gate_stays_float32_under_autocast() -> None:
    layer = moe().eval()
    chosen: list[torch.Tensor] = []
    experts = layer.experts
    layer.experts = Recorder(experts, chosen)
    layer(tokens(4000))  # enough near-ties for bfloat16 to flip some
    with torch.autocast("cpu", torch.bfloat16):
        layer(tokens(4000))
    assert torch.equal(chosen[0], chosen[1])


def test_a_choice_bias_evens_out_the_load_without_a_loss_and_without_changing_weights() -> None:
    loads = {}
    for balancing in ("loss", "bias"):
        layer = moe(balancing=balancing, balance_weight=0.0, z_weight=0.0, top_k=1)
        with torch.no_grad():
            layer.gate.weight[0] += 0.3
        optimizer = torch.optim.AdamW(layer.parameters(), lr=0.01, weight_decay=0.0)
        x = tokens(400) + 0.5
        for _ in range(60):
            optimizer.zero_grad()
            loss = layer(x).square().mean()
            assert layer.auxiliary_loss.item() == 0
            (loss + layer.auxiliary_loss).backward()
            layer.gate.weight.grad = None  # the bias alone
            optimizer.step()
        loads[balancing] = router_statistics(layer)["/max_load"]
    assert loads["bias"] < 0.7 * loads["loss"]
    assert loads["bias"] < 1.3


def test_a_choice_bias_says_who_is_chosen_and_not_how_much_he_counts() -> None:
    plain, layer = moe(top_k=1), moe(top_k=1, balancing="bias")
    layer.load_state_dict(plain.state_dict(), strict=False)
    x = tokens()
    assert torch.equal(layer.eval()(x), plain.eval()(x))
    with torch.no_grad():
        layer.choice_bias_E[2] = 9.0
    expected = F.gelu(x @ layer.experts.up_ECH[2]) @ layer.experts.down_EHC[2]
    assert torch.allclose(layer(x), expected, atol=1e-5)
    assert layer.counts_E.tolist() == [0, 0, 40, 0]
    both = moe(top_k=2, balancing="bias").eval()
    both.load_state_dict(layer.state_dict())
    proba = both.gate(x).softmax(-1)
    other = proba.index_fill(1, torch.tensor(2), 0).argmax(-1)
    every = torch.stack(
        [F.gelu(x @ up) @ down for up, down in zip(both.experts.up_ECH, both.experts.down_EHC, strict=True)]
    )
    share = proba[:, 2] / (proba[:, 2] + proba[torch.arange(40), other])
    expected = share[:, None] * every[2] + (1 - share)[:, None] * every[other, torch.arange(40)]
    assert torch.allclose(both(x), expected, atol=1e-5)
    assert router_statistics(layer) == {"/max_load": 4.0, "/idle": 0.75, "/entropy": 0.0, "/dropped": 0.0}


def test_statistics_say_how_even_the_load_is_and_how_large_the_logits() -> None:
    layer = moe(top_k=1, balancing="bias").train()
    with torch.no_grad():
        layer.gate.weight.zero_()
        layer.choice_bias_E[:] = torch.tensor([0.0, 0.0, 9.0, 0.0])
    layer(tokens())
    found = router_statistics(layer)
    assert found["/entropy"] == 0
    assert found["/z"] == pytest.approx(math.log(4) ** 2)  # logits of 0
    layer.counts_E = torch.tensor([10, 10, 10, 0])
    found = router_statistics(layer)
    assert found["/entropy"] == pytest.approx(math.log(3) / math.log(4))
    assert found["/dropped"] == pytest.approx(0.25)  # 30 of the 40 copies


@pytest.mark.parametrize("biases", ["none", "own"])
def test_experts_in_turn_equal_grouped_ones_forward_and_backward(biases: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = moe(num_experts=6, biases=biases).train()
    with torch.no_grad():
        layer.gate.weight[3] = -100.0  # an expert without a token
        for one in (layer.experts.up_bias_EH, layer.experts.down_bias_EC):
            if one is not None:
                nn.init.normal_(one, generator=torch.Generator().manual_seed(2))
    for ours, theirs in zip(*blocked_and_grouped(layer, monkeypatch), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)
    assert layer.counts_E[3] == 0


def test_an_expert_that_counts_for_nothing_leaves_all_gradients_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = moe(top_k=2).train()
    with torch.no_grad():
        layer.gate.weight[1] = 100.0  # a token's second expert has a weight of 0 in float32
    results = blocked_and_grouped(layer, monkeypatch)
    assert layer.counts_E[1] == 40
    for ours, theirs in zip(*results, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def blocked_and_grouped(layer: MoeFeedForward, monkeypatch: pytest.MonkeyPatch) -> list[list[torch.Tensor]]:
    """Output and gradients of the input and all weights: experts one after the other, and grouped."""
    results = []
    for blocked in (True, False):
        with monkeypatch.context() as patch:
            if not blocked:
                patch.setattr(GroupedExperts, "goes_blocked", lambda *_: False)
            x = tokens().abs().requires_grad_()
            out = layer(x)
        (out * tokens()).sum().backward()
        results.append([out.detach(), x.grad, *(one.grad for one in layer.parameters())])
        layer.zero_grad()
    return results


def test_experts_in_turn_train_in_bfloat16_and_leave_frozen_weights_alone() -> None:
    layer = moe(biases="own").train()
    layer.experts.up_ECH.requires_grad_(requires_grad=False)
    gradients = []
    for enabled in (True, False):
        x = tokens().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            out = layer(x)
        assert out.dtype == (torch.bfloat16 if enabled else torch.float32)
        out.float().square().sum().backward()
        gradients.append(
            torch.cat(
                [x.grad.flatten(), *(one.grad.flatten() for one in layer.experts.parameters() if one.requires_grad)]
            )
        )
        layer.zero_grad()
    assert layer.experts.up_ECH.grad is None
    assert (gradients[0] - gradients[1]).norm() / gradients[1].norm() < 0.02


def test_biases_are_added_in_every_product() -> None:
    layer = moe(biases="own", top_k=2).eval()
    for bias in (layer.experts.up_bias_EH, layer.experts.down_bias_EC):
        nn.init.normal_(bias, generator=torch.Generator().manual_seed(2))
    x, counts = tokens(), torch.tensor([10, 0, 25, 5])
    grouped = layer.experts(x, counts)
    up = F.gelu(x[10:35] @ layer.experts.up_ECH[2] + layer.experts.up_bias_EH[2])
    expected = up @ layer.experts.down_EHC[2] + layer.experts.down_bias_EC[2]
    assert torch.allclose(grouped[10:35], expected, atol=1e-5)
    assert torch.allclose(layer.experts.separated()(x, counts), grouped, atol=1e-5)


def test_an_upcycled_network_computes_what_the_dense_one_does_and_then_learns_apart() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        settings = {
            "vocab_size": 50,
            "num_classes": 3,
            "dim": 32,
            "dropout": 0.0,
            "feedforward_options": {"hidden": 24},
        }
        dense = Transformer(ModelConfig(**settings)).eval()
        sparse = upcycled(dense, num_experts=4, top_k=2, z_weight=0.0).eval()
    ids, real = torch.arange(24).view(2, 12), torch.ones(2, 12, dtype=torch.bool)
    assert torch.allclose(sparse(ids, real), dense(ids, real), atol=1e-5)
    sparse.train()
    optimizer = torch.optim.AdamW(sparse.parameters(), lr=0.01)
    sparse(ids, real).square().sum().backward()
    optimizer.step()
    up_ECH = sparse.blocks[0].feedforward.experts.up_ECH
    assert not torch.allclose(up_ECH[0], up_ECH[1], atol=1e-4)
    with pytest.raises(ValueError, match="feedforward='moe_topk' cannot be upcycled; only 'dense' can"):
        upcycled(sparse, num_experts=4, top_k=2)


def test_networks_without_experts_have_no_statistics() -> None:
    assert router_statistics(nn.Linear(2, 2)) == {}
    assert router_statistics(moe()) == {}


class Recorder(nn.Module):
    def __init__(self, experts: nn.Module, chosen: list[torch.Tensor]) -> None:
        super().__init__()
        self.experts, self.chosen = experts, chosen

    def forward(self, x: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        self.chosen.append(counts)
        return self.experts(x, counts)
