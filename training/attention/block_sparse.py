"""Blocks of tokens see the blocks beside them, the first ones, and a few drawn by chance.

Shapes: N query blocks, C tokens of a block, S blocks that a block sees; the rest as in ``training.attention``.
"""

from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from training.attention import (
    ATTENTION,
    AttentionMask,
    AttentionOptions,
    AttentionShape,
    Backend,
    Order,
    for_heads,
    may_attend,
    score_mask,
    uses_flex,
)
from training.attention.flex_backend import BLOCK, flex, order_links, rule_of


@dataclass(frozen=True, kw_only=True)
class BlockSparse(AttentionOptions):
    """The pattern.

    Parameters
    ----------
    block_size : tokens of a block.
    num_side_blocks : blocks that each block sees on either side, besides itself.
    num_global_blocks : first blocks of the row, which see and are seen by all.
    num_random_blocks : further blocks that each block sees.
    seed : draws those.
    backend : ``plain`` blocks, ``flex`` kernels, or ``auto``: flex on CUDA.
    """

    block_size: int = 64
    num_side_blocks: int = 1
    num_global_blocks: int = 1
    num_random_blocks: int = 3
    seed: int = 0
    backend: Backend = "auto"

    def __post_init__(self) -> None:
        if self.block_size < 1:
            raise ValueError(f"block_size={self.block_size} must be at least 1")
        for name in ("num_side_blocks", "num_global_blocks", "num_random_blocks", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must be 0 or more")
        if self.backend not in get_args(Backend):
            raise ValueError(f"backend={self.backend!r} must be one of {', '.join(get_args(Backend))}")
        if self.backend == "flex" and max(BLOCK, self.block_size) % min(BLOCK, self.block_size):
            raise ValueError(f"block_size={self.block_size} must divide {BLOCK} or be a multiple of it for flex")


@ATTENTION.register("block_sparse", BlockSparse)
class BlockSparseAttention(nn.Module):
    """Window, global and random blocks (Zaheer et al. 2020, BigBird, section 2 and appendix D).

    The random blocks are drawn for ``max_tokens``, and those beyond a row's end are left out: so that what a record
    gets depends on no padding. Global blocks are the row's first, whatever is packed into it. In causal order blocks
    are drawn from earlier ones.
    """

    def __init__(self, shape: AttentionShape, config: BlockSparse) -> None:
        super().__init__()
        self.config = config
        self.max_blocks = -(-shape.max_tokens // config.block_size)
        self._links: dict[Order, Tensor] = {}

    def forward(self, q_BHTD: Tensor, k_BGTD: Tensor, v_BGTD: Tensor, mask: AttentionMask) -> Tensor:
        """Attend from each block to the blocks that it is linked to."""
        size, num_tokens = self.config.block_size, q_BHTD.shape[2]
        num_blocks = -(-num_tokens // size)
        links_NS = self.links(mask.order, q_BHTD.device)[:num_blocks]
        tokens = mask.tokens()
        if uses_flex(self.config.backend, q_BHTD):
            adjacent = self.adjacency(links_NS)
            links = _coarsened(adjacent, size)[None, None] & order_links(mask.order, tokens)

            def linked(record: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:  # noqa: ARG001
                return adjacent[query // size, key // size]

            return flex(q_BHTD, k_BGTD, v_BGTD, (rule_of(tokens, mask.order), linked), links, mask.bias)
        extra = num_blocks * size - num_tokens
        tokens = tokens.apply(lambda field: F.pad(field, (0, extra)))
        q, k, v = (F.pad(x, (0, 0, 0, extra)) for x in (q_BHTD, k_BGTD, v_BGTD))
        k, v = (for_heads(x, q.shape[1]) for x in (k, v))
        exists_NS = (links_NS >= 0) & (links_NS < num_blocks)
        chosen = links_NS.clamp(0, num_blocks - 1).flatten()

        def linked_to(x: Tensor, dim: int) -> Tensor:
            blocks = torch.unflatten(x, dim, (num_blocks, size)).index_select(dim, chosen)
            return torch.unflatten(blocks, dim, (num_blocks, -1)).flatten(dim + 1, dim + 2)

        queries = tokens.apply(lambda field: torch.unflatten(field, -1, (-1, size)))
        keys = tokens.apply(lambda field: linked_to(field, 2))
        exists = exists_NS.repeat_interleave(size, dim=1)[:, None]
        allowed = may_attend(queries, keys, mask.order) & exists
        distance = keys.index[..., None, :] - queries.index[..., :, None]
        # Blocks count as records: the fused kernel takes four dimensions, and masks without copies for every head.
        q_N, k_N, v_N, allowed, distance = (
            x.transpose(1, 2).flatten(0, 1)
            for x in (torch.unflatten(q, 2, (-1, size)), linked_to(k, 2), linked_to(v, 2), allowed, distance)
        )
        attn_mask = score_mask(allowed, mask.bias, distance, q.shape[1])
        out = F.scaled_dot_product_attention(q_N, k_N, v_N, attn_mask=attn_mask)
        out = torch.unflatten(out, 0, (-1, num_blocks)).transpose(1, 2).flatten(2, 3)
        first = min(self.config.num_global_blocks, num_blocks) * size
        if first:
            asking = tokens.apply(lambda field: field[..., :first])
            distance = tokens.index[..., None, :] - asking.index[..., :, None]
            attn_mask = score_mask(may_attend(asking, tokens, mask.order), mask.bias, distance, q.shape[1])
            far = F.scaled_dot_product_attention(q[:, :, :first], k, v, attn_mask=attn_mask)
            out = torch.cat([far, out[:, :, first:]], 2)
        return out[:, :, :num_tokens]

    def links(self, order: Order, device: torch.device) -> Tensor:
        """Blocks that each block of a longest row sees, (N, S) int64, -1 where it sees fewer."""
        if order not in self._links:
            self._links[order] = torch.from_numpy(_links(self.config, self.max_blocks, order))
        return self._links[order].to(device)

    def adjacency(self, links_NS: Tensor) -> Tensor:
        """The same as a matrix of blocks, (N, N) bool, with what global blocks see."""
        num_blocks = len(links_NS)
        exists = (links_NS >= 0) & (links_NS < num_blocks)
        counted = torch.zeros(num_blocks, num_blocks, dtype=torch.int64, device=links_NS.device)
        counted.scatter_add_(1, links_NS.clamp(0, num_blocks - 1), exists.long())
        counted[: self.config.num_global_blocks] = 1
        return counted > 0


def _links(config: BlockSparse, num_blocks: int, order: Order) -> np.ndarray:
    forward = 0 if order == "causal" else config.num_side_blocks
    rows = []
    for block in range(num_blocks):
        beside = range(max(0, block - config.num_side_blocks), min(num_blocks, block + forward + 1))
        first = range(min(config.num_global_blocks, num_blocks if forward else block + 1))
        low = range(len(first), max(len(first), beside.start))
        high = range(max(beside.stop, len(first)), num_blocks if order != "causal" else 0)
        rng = np.random.default_rng([config.seed, block])
        count = min(config.num_random_blocks, len(low) + len(high))
        drawn = rng.choice(len(low) + len(high), count, replace=False).tolist() if count else []
        chosen = [low[one] if one < len(low) else high[one - len(low)] for one in drawn]
        rows.append(sorted({*beside, *first, *chosen}))
    width = max(len(row) for row in rows)
    return np.array([row + [-1] * (width - len(row)) for row in rows], dtype=np.int64)


def _coarsened(adjacent: Tensor, size: int) -> Tensor:
    """Links between flex's blocks out of links between ours."""
    if size >= BLOCK:
        times = size // BLOCK
        return adjacent.repeat_interleave(times, 0).repeat_interleave(times, 1)
    times = BLOCK // size
    extra = -len(adjacent) % times
    padded = F.pad(adjacent, (0, extra, 0, extra))
    return torch.unflatten(torch.unflatten(padded, 0, (-1, times)), 2, (-1, times)).any(3).any(1)
