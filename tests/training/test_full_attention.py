"""Full attention leaves out what may not meet: packed documents, padding wherever it stands, rows of unequal length."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.training.test_attention import ORDERS, TOLERANCE, Largest, bias_of, dense, heads, member, pairs, rule
from training.attention import AttentionMask, Order
from training.attention.by_document import planned
from training.model import ModelConfig, Transformer


@pytest.mark.parametrize("bias", [None, "alibi"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("order", ORDERS)
def test_padding_anywhere_equals_a_dense_mask(order: Order, packed: bool, bias: str | None) -> None:
    # In front, in the middle, everywhere: no order hides it by itself.
    mask = rule(order, 75, packed=packed, bias=bias_of(bias, order))
    place = torch.arange(75)
    attends = torch.stack([place >= 20, (place < 9) | ((place > 15) & (place != 33)), place < 0])
    mask = dataclasses.replace(mask, attends_BT=attends)
    results = []
    for ours in (True, False):
        leaves = [x.clone().requires_grad_() for x in heads(75)]
        out = member("full")(*leaves, mask) if ours else dense(*leaves, pairs(mask), mask.bias, kernel=False)
        read = torch.where(attends[:, None, :, None], out, 0)
        (read * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
        results.append([read, *(leaf.grad for leaf in leaves)])
    for one, reference in zip(*results, strict=True):
        assert (one - reference).abs().max() <= TOLERANCE


@pytest.mark.parametrize("order", ["encoder", "causal"])
def test_rows_of_very_unequal_length_equal_a_dense_mask_and_stand_apart(order: Order) -> None:
    lengths = torch.tensor([300, 290, 40, 30, 20, 10])[:, None]
    q, k, v = (torch.randn(6, heads, 300, 8, generator=torch.Generator().manual_seed(heads)) for heads in (4, 2, 2))
    mask = AttentionMask(attends_BT=torch.arange(300) < lengths, order=order)
    assert [group.shape for group in planned(mask, 4).groups] == [(2, 300), (1, 40), (3, 30)]
    expected = dense(q, k, v, pairs(mask), None, kernel=False)
    out = member("full")(q, k, v, mask)
    assert (torch.where(mask.attends_BT[:, None, :, None], out - expected, 0)).abs().max() <= TOLERANCE


@pytest.mark.parametrize("bias", [None, "alibi"])
@pytest.mark.parametrize("order", ORDERS)
def test_packed_rows_never_make_anything_of_the_size_of_all_pairs(order: Order, bias: str | None) -> None:
    num_tokens = 4096
    place = torch.arange(num_tokens)
    mask = AttentionMask(
        attends_BT=(place < num_tokens - 50)[None],
        order=order,
        documents_BT=(place // 100)[None],
        prefix_BT=(place % 100 < 30)[None],
        bias=bias_of(bias, order),
    )
    assert largest(mask) <= 500 * num_tokens  # a matrix of pairs has 4096 numbers a token, those of documents 400


@pytest.mark.parametrize("order", ["encoder", "causal"])
def test_padded_rows_never_make_anything_of_the_size_of_all_pairs(order: Order) -> None:
    place = torch.arange(2048)
    assert largest(AttentionMask(attends_BT=(place < 2000)[None], order=order)) <= 100 * 2048


def largest(mask: AttentionMask) -> int:
    """Numbers in the largest tensor of a forward and backward pass."""
    size = mask.attends_BT.shape[1]
    leaves = [torch.randn(1, count, size, 8, requires_grad=True) for count in (4, 2, 2)]
    found = Largest()
    with found:
        member("full")(*leaves, mask).sum().backward()
    return found.numel


def test_what_a_batch_is_is_found_out_once_for_all_layers() -> None:
    looks = []
    for num_layers in (1, 3):
        torch.manual_seed(0)
        model = Transformer(ModelConfig(vocab_size=9, num_classes=2, dim=16, num_heads=2, num_layers=num_layers))
        ids = torch.randint(9, (2, 30))
        documents = (torch.arange(30) // 7).expand_as(ids)
        with Looks() as counted:
            model.hidden(ids, torch.ones_like(ids, dtype=torch.bool), documents=documents)
        looks.append(counted.count)
    assert looks[0] == looks[1] > 1


class Looks(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts how often it is looked up which tokens are real."""

    count = 0

    def __torch_dispatch__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten.nonzero.default
        return func(*args, **(kwargs or {}))
