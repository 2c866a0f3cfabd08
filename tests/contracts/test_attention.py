"""Every attention equals the plain softmax it stands for."""

import math
from typing import Literal

import pytest
import torch
from torch import Tensor

from training.attention import ATTENTION, AttentionMask

NAMES = sorted(ATTENTION.load())
TOLERANCE = 1e-5  # float32 sums of 17 keys in another order


def plain(q_BHTD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor, allowed_BTT: Tensor) -> Tensor:
    scores = q_BHTD @ k_BHTD.transpose(-1, -2) / math.sqrt(q_BHTD.shape[-1])
    weight = torch.where(allowed_BTT[:, None], scores.exp(), 0.0)
    return weight / weight.sum(-1, keepdim=True).clamp(min=1e-30) @ v_BHTD


def inputs(order: Literal["encoder", "causal"]) -> tuple[Tensor, Tensor, Tensor, AttentionMask, Tensor]:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(3, 2, 17, 8, generator=generator) for _ in range(3))
    attends = torch.ones(3, 17, dtype=torch.bool)
    attends[1, 9:] = False
    attends[2, 1:] = False
    allowed = attends[:, None, :].expand(3, 17, 17)
    if order == "causal":
        allowed = allowed & (torch.arange(17)[:, None] >= torch.arange(17)[None])
    return q, k, v, AttentionMask(attends_BT=attends, order=order), allowed


@pytest.mark.parametrize("order", ["encoder", "causal"])
@pytest.mark.parametrize("name", NAMES)
def test_attention_equals_plain_softmax_forward_and_backward(name: str, order: Literal["encoder", "causal"]) -> None:
    q, k, v, mask, allowed = inputs(order)
    results = []
    for function in (
        lambda *qkv: ATTENTION[name].member(*qkv, mask, ATTENTION[name].configured()),
        lambda *qkv: plain(*qkv, allowed),
    ):
        leaves = [one.clone().requires_grad_() for one in (q, k, v)]
        out = function(*leaves)
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
        results.append([out, *(one.grad for one in leaves)])
    for ours, reference in zip(*results, strict=True):
        assert torch.allclose(ours, reference, atol=TOLERANCE), (ours - reference).abs().max()


@pytest.mark.parametrize("name", NAMES)
def test_padding_is_not_attended_to(name: str) -> None:
    q, k, v, mask, _ = inputs("encoder")
    changed_k, changed_v = k.clone(), v.clone()
    changed_k[1, :, 9:], changed_v[1, :, 9:] = 1e3, -1e3
    config = ATTENTION[name].configured()
    before = ATTENTION[name].member(q, k, v, mask, config)
    assert torch.equal(before, ATTENTION[name].member(q, changed_k, changed_v, mask, config))


@pytest.mark.parametrize("name", NAMES)
def test_causal_order_hides_the_future(name: str) -> None:
    q, k, v, mask, _ = inputs("causal")
    changed = v.clone()
    changed[:, :, 8:] = 1e3
    config = ATTENTION[name].configured()
    before, after = (ATTENTION[name].member(q, k, one, mask, config) for one in (v, changed))
    assert torch.equal(before[:, :, :8], after[:, :, :8])
    assert not torch.equal(before[:, :, 8:], after[:, :, 8:])


@pytest.mark.parametrize("name", NAMES)
def test_a_query_without_keys_gets_zeros(name: str) -> None:
    q, k, v, _, _ = inputs("encoder")
    mask = AttentionMask(attends_BT=torch.zeros(3, 17, dtype=torch.bool))
    assert ATTENTION[name].member(q, k, v, mask, ATTENTION[name].configured()).abs().max() == 0
