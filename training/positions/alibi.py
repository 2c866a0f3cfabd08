"""Scores that fall with distance."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from training.attention import Acts
from training.positions import POSITIONS, PositionOptions, PositionShape


@dataclass(frozen=True, kw_only=True)
class Alibi(PositionOptions):
    """No options."""

    acts: ClassVar[Acts] = "scores"


@POSITIONS.register("alibi", Alibi)
class AlibiPositions(nn.Module):
    """A penalty proportional to the distance, another slope in every head (Press et al. 2021, ALiBi, section 3).

    Where a query sees later tokens too, distance counts the same on both sides.
    """

    def __init__(self, shape: PositionShape, config: Alibi) -> None:  # noqa: ARG002
        super().__init__()
        self.register_buffer("slope_H", torch.tensor(slopes(shape.num_heads)), persistent=False)

    slope_H: Tensor  # noqa: N815

    def score(self, distance: Tensor, head: Tensor) -> Tensor:
        """Minus slope times distance."""
        return -self.slope_H[head] * distance.abs()


def slopes(num_heads: int) -> list[float]:
    """Slope of each head: powers of two, and for other numbers of heads every second of twice as many behind them."""
    largest = 2 ** math.floor(math.log2(num_heads))
    powers = [2 ** (-8 * (head + 1) / largest) for head in range(largest)]
    between = [2 ** (-4 * (head + 1) / largest) for head in range(0, 2 * largest, 2)]
    return powers + between[: num_heads - largest]
