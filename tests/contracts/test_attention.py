"""Laws of every attention. What each computes is compared with a dense mask in tests/training/test_attention.py."""

from typing import Any

import pytest
import torch
from torch import Tensor

from training.attention import ATTENTION, AttentionMask, AttentionOptions, AttentionShape, Order

NAMES = sorted(ATTENTION.load())
T = 75  # odd, and several blocks of whatever size
SMALL: dict[str, dict[str, Any]] = {
    "block_sparse": {"block_size": 8, "num_random_blocks": 2},
    "linear": {"chunk_size": 16},
    "linformer": {"num_projected": 9},
    "local_global": {"window": 5, "num_global_tokens": 3},
    "lsh": {"num_buckets": 4, "window": 6},
}
"""Options that leave some tokens out of sight of others."""
EVERY = [(name, order) for name in NAMES for order in sorted(ATTENTION[name].config.orders)]


def member(name: str) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        shape = AttentionShape(num_heads=4, num_kv_heads=2, head_dim=8, max_tokens=96)
        return ATTENTION[name].member(shape, ATTENTION[name].configured(SMALL.get(name)))


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def heads(num_tokens: int = T) -> tuple[Tensor, Tensor, Tensor]:
    return drawn(3, 4, num_tokens, 8), drawn(3, 2, num_tokens, 8, seed=1), drawn(3, 2, num_tokens, 8, seed=2)


def rule(order: Order, lengths: tuple[int, ...] = (T, 40, 1), **fields: Any) -> AttentionMask:
    attends = torch.arange(T) < torch.tensor(lengths)[:, None]
    prefix = (torch.arange(T) < torch.tensor([[20], [7], [0]])) if order == "prefix" else None
    return AttentionMask(attends_BT=attends, order=order, prefix_BT=prefix, **fields)


@pytest.mark.parametrize(("name", "order"), EVERY)
def test_padding_changes_nothing(name: str, order: Order) -> None:
    q, k, v = heads()
    layer, mask = member(name), rule(order)
    before = layer(q, k, v, mask)
    padding = ~mask.attends_BT[:, None, :, None]
    changed = layer(*(torch.where(padding, 1e3, x) for x in (q, k, v)), mask)
    for record, length in enumerate((T, 40, 1)):
        assert torch.equal(before[record, :, :length], changed[record, :, :length])
        prefix = None if mask.prefix_BT is None else mask.prefix_BT[record, None, :length]
        cut = AttentionMask(attends_BT=mask.attends_BT[record, None, :length], order=order, prefix_BT=prefix)
        alone = layer(*(x[record, None, :, :length] for x in (q, k, v)), cut)
        assert torch.allclose(alone[0], before[record, :, :length], atol=1e-5)


@pytest.mark.parametrize(("name", "order"), [one for one in EVERY if one[1] != "encoder"])
def test_the_future_is_hidden(name: str, order: Order) -> None:
    q, k, v = heads()
    layer, mask = member(name), rule(order)
    later = torch.arange(T)[:, None] >= 30  # behind every prefix
    before = layer(q, k, v, mask)
    after = layer(*(torch.where(later, drawn(*x.shape, seed=9), x) for x in (q, k, v)), mask)
    assert torch.allclose(before[:, :, :30], after[:, :, :30], atol=1e-6)
    assert not torch.allclose(before[0, :, 30:], after[0, :, 30:], atol=1e-2)


@pytest.mark.parametrize("name", [name for name in NAMES if "prefix" in ATTENTION[name].config.orders])
def test_a_prefix_is_seen_from_before(name: str) -> None:
    q, k, v = heads()
    changed = v.clone()
    changed[0, :, 2] += 1  # not the first token, which may be a global one
    layer, mask = member(name), rule("prefix")
    before, after = layer(q, k, v, mask), layer(q, k, changed, mask)
    assert not torch.equal(before[0, :, :2], after[0, :, :2])


@pytest.mark.parametrize(("name", "order"), [one for one in EVERY if ATTENTION[one[0]].config.packs])
def test_documents_of_a_packed_row_see_nothing_of_one_another(name: str, order: Order) -> None:
    q, k, v = heads()
    documents = torch.zeros(3, T, dtype=torch.int64)
    documents[:, 13:] = 7
    documents[:, 50:] = 3
    layer, mask = member(name), rule(order, (T, T, T), documents_BT=documents)
    before = layer(q, k, v, mask)
    others = (documents != 7)[:, None, :, None]
    after = layer(*(torch.where(others, drawn(*x.shape, seed=9), x) for x in (q, k, v)), mask)
    assert torch.allclose(before[:, :, 13:50], after[:, :, 13:50], atol=1e-6)
    assert not torch.allclose(before[:, :, :13], after[:, :, :13], atol=1e-2)
    if name == "block_sparse":  # blocks are cut from the row's start: what is linked depends on the place
        return
    for start, end in ((0, 13), (13, 50), (50, T)):
        prefix = None if mask.prefix_BT is None else mask.prefix_BT[:, start:end]
        cut = AttentionMask(attends_BT=mask.attends_BT[:, start:end], order=order, prefix_BT=prefix)
        alone = layer(*(x[:, :, start:end] for x in (q, k, v)), cut)
        assert torch.allclose(alone, before[:, :, start:end], atol=1e-5)


@pytest.mark.parametrize(("name", "order"), EVERY)
def test_a_query_without_keys_gets_zeros_and_finite_gradients(name: str, order: Order) -> None:
    leaves = [x.requires_grad_() for x in heads()]
    out = member(name)(*leaves, rule(order, (0, 30, 0)))
    assert out[[0, 2]].abs().max() == 0
    out.square().sum().backward()
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves)


@pytest.mark.parametrize("name", NAMES)
def test_weights_sum_to_one(name: str) -> None:
    q, k, v = heads()
    out = member(name)(q, k, torch.ones_like(v), rule("encoder"))
    if name != "linformer":  # which mixes values before it weighs them
        assert torch.allclose(out[0], torch.ones_like(out[0]), atol=1e-5)


@pytest.mark.parametrize(("name", "order"), EVERY)
def test_shared_key_value_heads_equal_repeated_ones(name: str, order: Order) -> None:
    q, k, v = heads()
    layer, mask = member(name), rule(order)
    repeated = layer(q, k.repeat_interleave(2, dim=1), v.repeat_interleave(2, dim=1), mask)
    assert torch.allclose(layer(q, k, v, mask), repeated, atol=1e-6)


@pytest.mark.parametrize(("name", "order"), EVERY)
def test_bfloat16_autocast_stays_close(name: str, order: Order) -> None:
    q, k, v = heads()
    layer, mask = member(name), rule(order)
    with torch.autocast("cpu", torch.bfloat16):
        close = layer(q.bfloat16(), k.bfloat16(), v.bfloat16(), mask)
    assert close.dtype == torch.bfloat16
    exact = layer(*(x.bfloat16().float() for x in (q, k, v)), mask)
    assert (close.float() - exact).norm() < 0.02 * exact.norm()  # 8 bits of mantissa


def test_options_say_what_they_hold_for() -> None:
    assert all(issubclass(ATTENTION[name].config, AttentionOptions) for name in NAMES)
    with pytest.raises(ValueError, match="order='prefix' needs prefix_BT"):
        AttentionMask(attends_BT=torch.ones(1, 3, dtype=torch.bool), order="prefix")
