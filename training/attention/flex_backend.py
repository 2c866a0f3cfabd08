"""Patterns through torch's flex_attention: fused kernels on CUDA that skip blocks without a link.

Not run on a GPU here: on a CPU flex has a forward pass only, and eagerly it computes every score, so tests compare the
rules, and the lists of blocks apart. Documented at torch.nn.attention.flex_attention (2.13).

Shapes: B records, M heads of a rule (1 or H), Q and K blocks of 128 queries and keys.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from training.attention import Order, ScoreBias, Tokens

BLOCK = 128
"""Side of the blocks that kernels skip or compute; flex's default."""

Rule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""flex's ``mask_mod``: (record, head, query, key) -> whether the query sees the key."""


def rule_of(tokens: Tokens, order: Order) -> Rule:
    """What order, padding and documents allow, as flex asks for it; fields are (B, 1 or H, T)."""
    num_heads = tokens.real.shape[1]

    def allowed(record: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        row = head if num_heads > 1 else head * 0
        seen = tokens.real[record, row, key]
        if order != "encoder":
            before = tokens.index[record, row, query] >= tokens.index[record, row, key]
            seen = seen & (before if tokens.prefix is None else before | tokens.prefix[record, row, key])
        if tokens.document is not None:
            seen = seen & (tokens.document[record, row, query] == tokens.document[record, row, key])
        return seen

    return allowed


def window_rule(size: int, shared_BT: Tensor | None) -> Rule:
    """A window, and global tokens that see and are seen by all."""

    def allowed(record: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:  # noqa: ARG001
        near = (query - key).abs() <= size
        return near if shared_BT is None else near | shared_BT[record, query] | shared_BT[record, key]

    return allowed


def window_links(num_tokens: int, size: int, shared_BT: Tensor | None, device: torch.device) -> Tensor:
    """Blocks that a window and global tokens may connect, (B or 1, 1, Q, K) bool."""
    block_Q = torch.arange(-(-num_tokens // BLOCK), device=device)
    links = ((block_Q[:, None] - block_Q).abs() - 1) * BLOCK < size
    if shared_BT is None:
        return links[None, None]
    shared_BQ = torch.unflatten(F.pad(shared_BT, (0, -num_tokens % BLOCK)), 1, (-1, BLOCK)).any(-1)
    return (links | shared_BQ[:, :, None] | shared_BQ[:, None, :])[:, None]


def order_links(order: Order, tokens: Tokens) -> Tensor:
    """Blocks that the order may connect, (B or 1, M, Q, K) bool."""
    num_blocks = -(-tokens.real.shape[-1] // BLOCK)
    links = torch.ones(num_blocks, num_blocks, dtype=torch.bool, device=tokens.real.device)
    if order == "encoder":
        return links[None, None]
    links = links.tril()[None, None]
    if tokens.prefix is None:
        return links
    prefix = torch.unflatten(F.pad(tokens.prefix, (0, -tokens.prefix.shape[-1] % BLOCK)), -1, (-1, BLOCK)).any(-1)
    return links | prefix[..., None, :]


def flex(
    q_BHTD: Tensor,
    k_BGTD: Tensor,
    v_BGTD: Tensor,
    rules: tuple[Rule, ...],
    links_BMQK: Tensor,
    bias: ScoreBias | None = None,
    kernel: Callable[..., Any] | None = None,
) -> Tensor:
    """Run flex_attention over the pairs that every rule allows.

    Parameters
    ----------
    q_BHTD, k_BGTD, v_BGTD : (B, H, T, D) and (B, G, T, D), H a multiple of G.
    rules : all must hold.
    links_BMQK : blocks that any pair allowed lies in; others are skipped.
    bias : what positions add to scores.
    kernel : flex_attention, or what it was compiled into; None takes the one for the device.
    """
    from torch.nn.attention.flex_attention import BlockMask, and_masks

    num_blocks_BMQ = links_BMQK.sum(-1, dtype=torch.int32)
    indices_BMQK = links_BMQK.to(torch.uint8).argsort(dim=-1, descending=True, stable=True).to(torch.int32)
    block_mask = BlockMask.from_kv_blocks(
        num_blocks_BMQ,
        indices_BMQK,
        BLOCK_SIZE=BLOCK,
        mask_mod=and_masks(*rules),
        seq_lengths=(q_BHTD.shape[2], k_BGTD.shape[2]),
    )

    def score(value: Tensor, record: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:  # noqa: ARG001
        assert bias is not None
        return value + bias.score(key - query, head)

    out: Tensor = (kernel or _kernel(q_BHTD.device.type))(
        q_BHTD,
        k_BGTD,
        v_BGTD,
        block_mask=block_mask,
        score_mod=score if bias else None,
        enable_gqa=q_BHTD.shape[1] != k_BGTD.shape[1],
    )
    return out


@cache
def compiled_kernel(*, dynamic: bool = True) -> Callable[..., Any]:
    """flex_attention compiled by inductor: once a process for every shape, or anew for each if not ``dynamic``."""
    from torch.nn.attention.flex_attention import flex_attention

    kernel: Callable[..., Any] = torch.compile(flex_attention, dynamic=dynamic)
    return kernel


def _kernel(device: str) -> Callable[..., Any]:
    """The compiled one where there are kernels to win; on a CPU plain blocks are as fast, and nothing is compiled."""
    from torch.nn.attention.flex_attention import flex_attention

    kernel: Callable[..., Any] = flex_attention
    return compiled_kernel() if device == "cuda" else kernel
