"""The last tokens are kept, and those that were attended to most."""

from dataclasses import dataclass

import torch
from torch import Tensor

from training.caches import CACHES, GrowingCache, Kept, Stored, joined, size_in_bytes


@dataclass(frozen=True, kw_only=True)
class HeavyHitter:
    """What is kept.

    Parameters
    ----------
    num_recent : last tokens.
    num_heavy : tokens before them, those with the most attention so far, in each head its own.
    """

    num_recent: int = 64
    num_heavy: int = 64

    def __post_init__(self) -> None:
        for name in ("num_recent", "num_heavy"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")


@CACHES.register("heavy_hitter", HeavyHitter)
class HeavyHitterCache(GrowingCache):
    """Keep by accumulated attention (Zhang et al. 2023, H2O, section 4): heads that share keys add theirs up."""

    needs_weights = True

    def __init__(self, config: HeavyHitter) -> None:
        super().__init__()
        self.config = config
        self.capacity = config.num_recent + config.num_heavy
        self.stored: Stored | None = None
        self.position_BGK: Tensor | None = None
        self.score_BGK: Tensor | None = None

    @property
    def num_bytes(self) -> int:
        """Size of what is kept, scores included."""
        return size_in_bytes(*(self.stored or ()), self.score_BGK)

    def extend(self, stored: Stored, *, sees_ahead: bool) -> Kept:
        """Take in new tokens; ``observe`` drops what is too much."""
        first = self.num_seen == 0
        num_records, num_heads, num_new = stored[0].shape[:3]
        query_S = self.number(num_new, stored[0].device)
        self.stored = joined(self.stored, stored)
        new_BGS = query_S.expand(num_records, num_heads, -1)
        unseen_BGS = torch.zeros_like(new_BGS, dtype=torch.float32)
        if self.position_BGK is None or self.score_BGK is None:
            self.position_BGK, self.score_BGK = new_BGS, unseen_BGS
        else:
            self.position_BGK = torch.cat([self.position_BGK, new_BGS], -1)
            self.score_BGK = torch.cat([self.score_BGK, unseen_BGS], -1)
        allowed = query_S[:, None] >= self.position_BGK[..., None, :]
        return Kept(
            stored=self.stored,
            query_position=query_S[None],
            key_position=self.position_BGK,
            allowed=torch.ones_like(allowed) if first and sees_ahead else allowed,
        )

    def observe(self, weights_BHSK: Tensor) -> None:
        """Add up the weights; keep the last tokens and the heaviest before them."""
        assert self.stored is not None
        assert self.position_BGK is not None
        assert self.score_BGK is not None
        received_BHK = weights_BHSK.detach().float().sum(2)
        shared = received_BHK.shape[1] // self.score_BGK.shape[1]
        self.score_BGK = self.score_BGK + torch.unflatten(received_BHK, 1, (-1, shared)).sum(2)
        num_kept = self.score_BGK.shape[-1]
        if num_kept <= self.capacity:
            return
        early = num_kept - self.config.num_recent
        heavy = self.score_BGK[..., :early].topk(self.config.num_heavy, dim=-1).indices.sort(-1).values
        recent = torch.arange(early, num_kept, device=heavy.device).expand(*heavy.shape[:2], -1)
        index_BGK = torch.cat([heavy, recent], -1)
        self.score_BGK = self.score_BGK.gather(2, index_BGK)
        self.position_BGK = self.position_BGK.gather(2, index_BGK)
        keys, values = (x.gather(2, index_BGK[..., None].expand(-1, -1, -1, x.shape[-1])) for x in self.stored)
        self.stored = (keys, values)
