"""Tokens of like content see one another, wherever they stand.

Shapes: R bits of a hash; the rest as in ``training.attention``.
"""

from dataclasses import dataclass
from typing import get_args

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from training.attention import (
    ATTENTION,
    Acts,
    AttentionMask,
    AttentionOptions,
    AttentionShape,
    Backend,
    Tokens,
    for_heads,
    uses_flex,
)
from training.attention.flex_backend import flex, order_links, rule_of, window_links, window_rule
from training.attention.windows import Window, windowed


@dataclass(frozen=True, kw_only=True)
class Lsh(AttentionOptions):
    """The pattern.

    Parameters
    ----------
    num_buckets : an even number of buckets that each document's tokens are hashed into.
    window : a token sees this many of its bucket on either side; on the left alone in causal order.
    seed : draws the hash functions, one a head.
    backend : ``plain`` blocks, ``flex`` kernels, which take no positions that are added to scores, or ``auto``: flex on
        CUDA, where positions allow it.
    """

    num_buckets: int = 32
    window: int = 64
    seed: int = 0
    backend: Backend = "auto"

    def __post_init__(self) -> None:
        if self.num_buckets < 2 or self.num_buckets % 2:
            raise ValueError(f"num_buckets={self.num_buckets} must be even and at least 2")
        if self.window < 1:
            raise ValueError(f"window={self.window} must be at least 1")
        if self.backend not in get_args(Backend):
            raise ValueError(f"backend={self.backend!r} must be one of {', '.join(get_args(Backend))}")

    def holds_for(self) -> frozenset[Acts]:
        """Not for a bias by distance where flex is asked for: its rows are sorted, and distances lost."""
        return self.positions - {"scores"} if self.backend == "flex" else self.positions


@ATTENTION.register("lsh", Lsh)
class LshAttention(nn.Module):
    """Attention within buckets of a locality-sensitive hash (Kitaev et al. 2020, Reformer, section 2).

    Ours differs: a token is hashed by its query and key together, so that the two need not be one projection; it sees
    the nearest ``window`` of its bucket instead of a chunk, so that neither padding, what is packed beside it nor a
    later token changes whom it sees; there is one round of hashing, another one in every head.
    """

    def __init__(self, shape: AttentionShape, config: Lsh) -> None:
        super().__init__()
        self.config = config
        generator = torch.Generator().manual_seed(config.seed)
        drawn = torch.randn(shape.num_heads, shape.head_dim, config.num_buckets // 2, generator=generator, device="cpu")
        # Drawn anew from the seed: no weight, and not part of a checkpoint.
        self.register_buffer("rotation_HDR", drawn, persistent=False)

    rotation_HDR: Tensor  # noqa: N815

    def forward(self, q_BHTD: Tensor, k_BGTD: Tensor, v_BGTD: Tensor, mask: AttentionMask) -> Tensor:
        """Sort by document and bucket, attend within a window of the sorted row, sort back."""
        k_BHTD, v_BHTD = (for_heads(x, q_BHTD.shape[1]) for x in (k_BGTD, v_BGTD))
        group_BHT = self.groups(q_BHTD, k_BHTD, mask)
        order_BHT = group_BHT.sort(dim=-1, stable=True).indices
        tokens = mask.tokens()

        def sorted_rows(x: Tensor) -> Tensor:
            index = order_BHT if x.ndim == 3 else order_BHT[..., None].expand_as(x)
            return x.expand(-1, order_BHT.shape[1], *x.shape[2:]).gather(2, index)

        group = sorted_rows(group_BHT)
        rows = Tokens(
            index=order_BHT,
            real=sorted_rows(tokens.real),
            document=group,
            prefix=None if tokens.prefix is None else sorted_rows(tokens.prefix),
        )
        q, k, v = (sorted_rows(x) for x in (q_BHTD, k_BHTD, v_BHTD))
        size = self.config.window
        if (mask.bias is None or self.config.backend == "flex") and uses_flex(self.config.backend, q_BHTD):
            if mask.bias:
                raise ValueError("flex lsh takes no score bias: its rows are sorted; use backend='plain'")
            # Sorted rows are in order only within a bucket, so the order of tokens says nothing of blocks.
            links = window_links(q.shape[2], size, None, q.device) & order_links("encoder", rows)
            out = flex(q, k, v, (rule_of(rows, mask.order), window_rule(size, None)), links)
        else:
            # A bucket may run backward over a block's end for a prefix alone; causal buckets never look ahead.
            out = windowed(q, k, v, rows, Window(order=mask.order, size=size), mask.bias)
        return torch.empty_like(out).scatter(2, order_BHT[..., None].expand_as(out), out)

    @torch.no_grad()
    def groups(self, q_BHTD: Tensor, k_BHTD: Tensor, mask: AttentionMask) -> Tensor:
        """Number of each token's document and bucket, (B, H, T): those of unequal numbers never meet."""
        both = F.normalize(q_BHTD.float(), dim=-1) + F.normalize(k_BHTD.float(), dim=-1)
        turned_BHTR = both @ self.rotation_HDR.to(both.dtype)
        bucket_BHT = torch.cat([turned_BHTR, -turned_BHTR], -1).argmax(-1)
        num_buckets = self.config.num_buckets
        document = 0 if mask.documents_BT is None else _ranks(mask.documents_BT)[:, None]
        group_BHT = bucket_BHT + num_buckets * document
        # Padding stands behind everything and in the way of nothing.
        return torch.where(mask.attends_BT[:, None], group_BHT, num_buckets * (q_BHTD.shape[2] + 1))


def _ranks(documents_BT: Tensor) -> Tensor:
    """Documents numbered from 0 in the order of the row."""
    return F.pad((documents_BT[:, 1:] != documents_BT[:, :-1]).long(), (1, 0)).cumsum(1)
