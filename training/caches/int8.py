"""Everything is kept, in a byte a number."""

from dataclasses import dataclass

import torch
from torch import Tensor

from training.caches import CACHES, GrowingCache, Kept, Stored, in_order, size_in_bytes


@dataclass(frozen=True, kw_only=True)
class Int8Options:
    """No options."""


@CACHES.register("int8", Int8Options)
class Int8Cache(GrowingCache):
    """Keys and values in int8, one scale for every token, head and kind (symmetric, as in KVQuant's per-token values).

    New tokens are seen as they will be kept, so that a token gets the same whether it came alone or with others.
    """

    def __init__(self, config: Int8Options) -> None:  # noqa: ARG002
        super().__init__()
        self.parts: tuple[tuple[Tensor, Tensor], ...] = ()

    @property
    def num_bytes(self) -> int:
        """Size of what is kept, scales included."""
        return sum(size_in_bytes(*part) for part in self.parts)

    def extend(self, stored: Stored, *, sees_ahead: bool) -> Kept:
        """Keep the new tokens."""
        first = self.num_seen == 0
        query_position = self.number(stored[0].shape[2], stored[0].device)
        new = tuple(_quantized(x) for x in stored)
        self.parts = (
            new
            if first
            else tuple(
                (torch.cat([old[0], more[0]], 2), torch.cat([old[1], more[1]], 2))
                for old, more in zip(self.parts, new, strict=True)
            )
        )
        key_position = torch.arange(self.num_seen, device=query_position.device)
        keys, values = ((code * scale.float()).to(stored[0].dtype) for code, scale in self.parts)
        return Kept(
            stored=(keys, values),
            query_position=query_position[None],
            key_position=key_position[None],
            allowed=in_order(query_position, key_position, first=first, sees_ahead=sees_ahead),
        )


def _quantized(x_BGTD: Tensor) -> tuple[Tensor, Tensor]:
    """Codes (B, G, T, D) in [-127, 127], and what one of them is worth (B, G, T, 1)."""
    if x_BGTD.shape[-1] == 0:
        return x_BGTD.to(torch.int8), x_BGTD.new_zeros(*x_BGTD.shape[:-1], 1).half()
    scale = (x_BGTD.abs().amax(-1, keepdim=True) / 127).clamp(min=torch.finfo(torch.float16).tiny).half()
    return (x_BGTD / scale.float()).round().clamp(-127, 127).to(torch.int8), scale
