"""Positions: how a network knows where a token stands.

Shapes: B records, T tokens, N real tokens of the batch, C dim, H heads, D head dim.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from catalog.registry import Registry
from training.attention import Acts


@dataclass(frozen=True, kw_only=True, slots=True)
class PositionShape:
    """What a member has to know of the network around it.

    Parameters
    ----------
    dim : width of the residual stream.
    num_heads : query heads.
    head_dim : width of what is rotated of each head.
    max_tokens : longest document.
    sides : 2 where a query may see later tokens, 1 in causal order.
    """

    dim: int
    num_heads: int
    head_dim: int
    max_tokens: int
    sides: int = 2


class Rotation(Protocol):
    """What positions do to queries and keys."""

    def rotate(self, x_BHTD: Tensor, position_BT: Tensor) -> Tensor:
        """Turn each vector by its position."""
        ...


@dataclass(frozen=True, kw_only=True)
class PositionOptions:
    """Base of every member's options.

    Attributes
    ----------
    acts : where positions come in; an attention says which ways it holds for.
    """

    acts: ClassVar[Acts]

    def check(self, shape: PositionShape) -> None:
        """Refuse a network that the options do not fit.

        Raises
        ------
        ValueError : with value, limit and remedy.
        """


POSITIONS: Registry[Callable[[PositionShape, Any], nn.Module]] = Registry("positions", "training.positions")
"""Contract: ``(shape, config) -> nn.Module``. By ``config.acts`` it has the method

- ``input``: ``forward(position_N) -> (N, C)``, added to the token embeddings;
- ``rotation``: ``rotate(x_BHTD, position_BT) -> (B, H, T, D)``, of queries and of keys, whose product then depends on
  the difference of positions alone;
- ``scores``: ``score(distance, head)``, the ``ScoreBias`` of ``training.attention``;
- ``nothing``: none.

Positions count from 0 in each document. The config extends ``PositionOptions``."""
