"""Everything is kept."""

from dataclasses import dataclass

import torch

from training.caches import CACHES, GrowingCache, Kept, Stored, in_order, joined, size_in_bytes


@dataclass(frozen=True, kw_only=True)
class FullOptions:
    """No options."""


@CACHES.register("full", FullOptions)
class FullCache(GrowingCache):
    """Every token's keys and values: generation computes what it would without a cache."""

    def __init__(self, config: FullOptions) -> None:  # noqa: ARG002
        super().__init__()
        self.stored: Stored | None = None

    @property
    def num_bytes(self) -> int:
        """Size of what is kept."""
        return size_in_bytes(*(self.stored or ()))

    def extend(self, stored: Stored, *, sees_ahead: bool) -> Kept:
        """Keep the new tokens."""
        first = self.num_seen == 0
        query_position = self.number(stored[0].shape[2], stored[0].device)
        self.stored = joined(self.stored, stored)
        key_position = torch.arange(self.num_seen, device=query_position.device)
        return Kept(
            stored=self.stored,
            query_position=query_position[None],
            key_position=key_position[None],
            allowed=in_order(query_position, key_position, first=first, sees_ahead=sees_ahead),
        )
