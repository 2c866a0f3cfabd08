"""Attention variants.

Shapes: B records, H heads, G key-value heads (H is a multiple), T tokens, D head dim, M heads of a rule (1 or H).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from catalog.errors import ConfigError
from catalog.registry import Registry

Order = Literal["encoder", "causal", "prefix"]
Acts = Literal["input", "rotation", "scores", "nothing"]
"""Where positions come in: added to the embeddings, rotating queries and keys, added to scores, or not at all."""
Backend = Literal["auto", "plain", "flex"]


class ScoreBias(Protocol):
    """What positions add to the score of a query and a key."""

    def score(self, distance: Tensor, head: Tensor) -> Tensor:
        """Bias at each distance (the key's position minus the query's, int64) for each head, broadcast together."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionMask:
    """Who may attend to whom, as a rule rather than a (T, T) matrix, so that sparse members stay sparse.

    Parameters
    ----------
    attends_BT : (B, T) bool, True where a token is real; padding is attended to by nobody.
    order : ``encoder`` sees both sides, ``causal`` sees itself and what came before, ``prefix`` sees that and the
        whole prefix.
    documents_BT : (B, T) int64, which document of a packed row each token belongs to: it sees no other's tokens.
        Equal numbers must stand together. None where a row is one document.
    prefix_BT : (B, T) bool, True at the tokens of the prefix; needed by order ``prefix`` and ignored by others.
    bias : what positions add to scores, before the softmax.
    all_real : True promises that ``attends_BT`` is True everywhere, which saves members a mask.
    plan : what ``Prepares.prepared`` made of all this.
    """

    attends_BT: Tensor  # noqa: N815
    order: Order = "encoder"
    documents_BT: Tensor | None = None  # noqa: N815
    prefix_BT: Tensor | None = None  # noqa: N815
    bias: ScoreBias | None = None
    all_real: bool = False
    plan: object = None

    def __post_init__(self) -> None:
        if self.order == "prefix" and self.prefix_BT is None:
            raise ValueError("order='prefix' needs prefix_BT, True at the tokens that everybody may see")

    def tokens(self) -> "Tokens":
        """The same rule token by token, with one head for all."""
        num_tokens = self.attends_BT.shape[1]
        return Tokens(
            index=torch.arange(num_tokens, device=self.attends_BT.device).expand_as(self.attends_BT)[:, None],
            real=self.attends_BT[:, None],
            document=None if self.documents_BT is None else self.documents_BT[:, None],
            prefix=None if self.order != "prefix" or self.prefix_BT is None else self.prefix_BT[:, None],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokens:
    """What the mask needs to know of each token, all of one shape (..., T).

    Parameters
    ----------
    index : int64, place in the row.
    real : bool, False at padding.
    document : int64; tokens of different numbers never meet. None where all may.
    prefix : bool, True where every token of the document sees it whatever the order. None where nobody is so.
    """

    index: Tensor
    real: Tensor
    document: Tensor | None = None
    prefix: Tensor | None = None

    def apply(self, change: Callable[[Tensor], Tensor]) -> "Tokens":
        """Reorder, cut or reshape every field alike."""
        return Tokens(
            index=change(self.index),
            real=change(self.real),
            document=None if self.document is None else change(self.document),
            prefix=None if self.prefix is None else change(self.prefix),
        )


def may_attend(queries: Tokens, keys: Tokens, order: Order) -> Tensor:
    """What order, padding and documents allow: bool (..., Q, K) of queries (..., Q) and keys (..., K)."""
    allowed = keys.real[..., None, :]
    if order != "encoder":
        seen = queries.index[..., :, None] >= keys.index[..., None, :]
        if keys.prefix is not None:
            seen = seen | keys.prefix[..., None, :]
        allowed = allowed & seen
    if queries.document is not None and keys.document is not None:
        allowed = allowed & (queries.document[..., :, None] == keys.document[..., None, :])
    return allowed


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionShape:
    """What a member has to know of the network around it.

    Parameters
    ----------
    num_heads : query heads.
    num_kv_heads : heads of keys and values; ``num_heads`` is a multiple.
    head_dim : width of a head.
    max_tokens : longest row.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_tokens: int


@dataclass(frozen=True, kw_only=True)
class AttentionOptions:
    """Base of every member's options: what it holds for.

    Attributes
    ----------
    orders : orders of tokens that it can keep to.
    positions : ways in which positions may come in.
    packs : whether a row may hold several documents.
    """

    orders: ClassVar[frozenset[Order]] = frozenset({"encoder", "causal", "prefix"})
    positions: ClassVar[frozenset[Acts]] = frozenset({"input", "rotation", "scores", "nothing"})
    packs: ClassVar[bool] = True

    def holds_for(self) -> frozenset[Acts]:
        """Ways in which positions may come in under these very options."""
        return self.positions


@runtime_checkable
class Prepares(Protocol):
    """A member with something to work out of the rule, the same in every layer."""

    def prepared(self, mask: AttentionMask) -> AttentionMask:
        """The same rule with a ``plan``, for this forward pass alone."""
        ...


ATTENTION: Registry[Callable[[AttentionShape, Any], nn.Module]] = Registry("attention", "training.attention")
"""Contract: ``(shape, config) -> nn.Module`` mapping ``(q_BHTD, k_BGTD, v_BGTD, mask)`` to out_BHTD, with G the
key-value heads, scaled by 1/sqrt(D), equal to the softmax over the keys that the member's pattern and the mask allow,
or to what its docstring says instead. A query without any allowed key gets zeros, never NaN. Outputs at padding are
undefined. What a record gets depends neither on padding nor on the tokens of other documents in its row. A member that
``Prepares`` is asked to once a forward pass, before the first layer, and does without where it is not. The config
extends ``AttentionOptions``."""


def for_heads(x_BGTD: Tensor, num_heads: int) -> Tensor:
    """Repeat each key-value head for the query heads that share it: (B, G, T, D) to (B, H, T, D)."""
    repeats = num_heads // x_BGTD.shape[1]
    return x_BGTD if repeats == 1 else x_BGTD.repeat_interleave(repeats, dim=1)


def head_numbers(num_heads: int, device: torch.device) -> Tensor:
    """Numbers of the heads, (H, 1, 1), to broadcast against distances (..., 1 or H, Q, K)."""
    return torch.arange(num_heads, device=device)[:, None, None]


def score_mask(allowed_XMQK: Tensor, bias: ScoreBias | None, distance_XMQK: Tensor, num_heads: int) -> Tensor:
    """What SDPA takes as its mask: the booleans themselves, or the bias with -inf where attending is not allowed."""
    if bias is None:
        return allowed_XMQK
    added = bias.score(distance_XMQK, head_numbers(num_heads, allowed_XMQK.device))
    return torch.where(allowed_XMQK, added, -torch.inf)


def uses_flex(backend: Backend, q_BHTD: Tensor) -> bool:
    """Whether to run flex_attention: where asked for, or on CUDA unless told otherwise.

    Raises
    ------
    ConfigError : asked for on a CPU with gradients, where torch has no backward of it.
    """
    on_cpu = q_BHTD.device.type == "cpu"
    if backend == "flex" and on_cpu and q_BHTD.requires_grad and torch.is_grad_enabled():
        raise ConfigError("backend='flex' of the attention cannot train on a CPU; set it to auto or plain")
    return backend == "flex" or (backend == "auto" and q_BHTD.device.type == "cuda")
