"""Caches of keys and values: what generation keeps of the tokens before.

Shapes: B records, H heads, G key-value heads, S new tokens, K kept tokens (new ones last), D head dim.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from catalog.registry import Registry
from training.attention import ScoreBias, for_heads, score_mask

Stored = tuple[Tensor, Tensor]
"""What attention asks to be kept of tokens, two of (B, G, T, width): unrotated keys and values, or a latent vector and
a shared key."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """What new tokens may attend to.

    Parameters
    ----------
    stored : the tokens kept, the new ones last.
    query_position : (1, S) int64, positions of the new tokens.
    key_position : (1, K) or (B, G, K) int64, positions of those kept.
    allowed : (1 or B, 1 or G, S, K) bool, who sees whom.
    """

    stored: Stored
    query_position: Tensor
    key_position: Tensor
    allowed: Tensor


class KeyValueCache(Protocol):
    """Contract of a member; one object a layer.

    Attributes
    ----------
    num_seen : tokens taken in so far.
    needs_weights : whether ``observe`` wants to be told attention weights.
    one_by_one : whether tokens have to come singly once it is full.
    capacity : tokens that it keeps at most; 0 for no limit.
    renumbers : whether positions count what is kept, so that they never outgrow the model.
    num_bytes : size of what is kept.
    """

    num_seen: int
    needs_weights: bool
    one_by_one: bool
    capacity: int
    renumbers: bool

    @property
    def num_bytes(self) -> int:
        """Size of what is kept."""
        ...

    def stands_for(self, attention: str, options: Any) -> bool:
        """Whether a model that was trained with this attention may be continued from the cache."""
        ...

    def extend(self, stored: Stored, *, sees_ahead: bool) -> Kept:
        """Take in new tokens; say what they may attend to. ``sees_ahead`` lets the first tokens see one another all."""
        ...

    def observe(self, weights_BHSK: Tensor) -> None:
        """Hear the attention weights of the last tokens taken in."""
        ...


CACHES: Registry[Callable[[Any], KeyValueCache]] = Registry("cache", "training.caches")
"""Contract: ``(config) -> KeyValueCache``."""


class GrowingCache:
    """Keeps what it is given: the base of the members."""

    needs_weights = False
    one_by_one = False
    renumbers = False
    capacity = 0

    def __init__(self) -> None:
        self.num_seen = 0
        self.position_K: Tensor | None = None

    def stands_for(self, attention: str, options: Any) -> bool:  # noqa: ARG002
        """Full attention sees whatever is kept."""
        return attention == "full"

    def observe(self, weights_BHSK: Tensor) -> None:
        """Nothing to learn."""

    def number(self, num_new: int, device: torch.device) -> Tensor:
        """Positions (S,) of new tokens, which are counted."""
        position_S = torch.arange(self.num_seen, self.num_seen + num_new, device=device)
        self.num_seen += num_new
        return position_S


def in_order(query_position_S: Tensor, key_position_K: Tensor, *, first: bool, sees_ahead: bool) -> Tensor:
    """(1, 1, S, K) bool: earlier keys, or all of the first tokens where these see ahead."""
    allowed_SK = query_position_S[:, None] >= key_position_K
    if first and sees_ahead:
        allowed_SK = torch.ones_like(allowed_SK)
    return allowed_SK[None, None]


def joined(kept: Stored | None, new: Stored) -> Stored:
    """Kept tokens, then new ones."""
    return new if kept is None else (torch.cat([kept[0], new[0]], 2), torch.cat([kept[1], new[1]], 2))


def size_in_bytes(*tensors: Tensor | None) -> int:
    """Bytes of the tensors' numbers."""
    return sum(one.numel() * one.element_size() for one in tensors if one is not None)


def attend_to_kept(
    q_BHSD: Tensor, k_BGKD: Tensor, v_BGKD: Tensor, kept: Kept, bias: ScoreBias | None, *, with_weights: bool
) -> tuple[Tensor, Tensor | None]:
    """Softmax attention of new tokens to what is kept.

    Returns
    -------
    out (B, H, S, D), and the weights (B, H, S, K) if asked for.
    """
    num_heads = q_BHSD.shape[1]
    k_BHKD, v_BHKD = (for_heads(x, num_heads) for x in (k_BGKD, v_BGKD))
    position = kept.key_position if kept.key_position.ndim == 3 else kept.key_position[:, None]
    distance = position[..., None, :] - kept.query_position[:, None, :, None]
    allowed, distance = (for_heads(x, num_heads) if x.shape[1] > 1 else x for x in (kept.allowed, distance))
    attn_mask = score_mask(allowed, bias, distance, num_heads)
    if not with_weights:
        return F.scaled_dot_product_attention(q_BHSD, k_BHKD, v_BHKD, attn_mask=attn_mask), None
    scores = q_BHSD @ k_BHKD.transpose(-1, -2) / math.sqrt(q_BHSD.shape[-1])
    scores = scores.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    weights = scores.softmax(-1)
    return weights @ v_BHKD, weights
