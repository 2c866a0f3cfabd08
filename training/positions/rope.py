"""Rotary positions, and three ways to use them beyond the length they were trained on.

Shapes: R = D / 2 pairs that are rotated; the rest as in ``training.positions``.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from training.attention import Acts
from training.positions import POSITIONS, PositionOptions, PositionShape

Scaling = Literal["none", "linear", "ntk", "yarn"]


@dataclass(frozen=True, kw_only=True)
class Rope(PositionOptions):
    """The rotations.

    Parameters
    ----------
    base : the slowest pair turns once in about ``2 * pi * base`` tokens.
    scaling : ``linear`` divides positions by ``factor``; ``ntk`` raises the base so that slow pairs are stretched by it
        and fast ones hardly; ``yarn`` stretches pairs that turn rarely within ``original_tokens``, leaves those that
        turn often, and sharpens the softmax.
    factor : length to be used over length trained on, at least 1.
    original_tokens : length trained on; needed by ``yarn``.
    beta_fast, beta_slow : turns within ``original_tokens`` above which ``yarn`` leaves a pair, and below which it
        stretches it fully.
    """

    acts: ClassVar[Acts] = "rotation"
    base: float = 10_000.0
    scaling: Scaling = "none"
    factor: float = 1.0
    original_tokens: int = 0
    beta_fast: float = 32.0
    beta_slow: float = 1.0

    def __post_init__(self) -> None:
        if not self.base > 1:
            raise ValueError(f"base={self.base} must be above 1")
        if self.scaling not in get_args(Scaling):
            raise ValueError(f"scaling={self.scaling!r} must be one of {', '.join(get_args(Scaling))}")
        if not 1 <= self.factor < math.inf:
            raise ValueError(f"factor={self.factor} must be at least 1")
        if self.scaling == "none" and self.factor != 1:
            raise ValueError(f"factor={self.factor} has no effect with scaling='none'; choose linear, ntk or yarn")
        if (self.scaling == "yarn") != (self.original_tokens > 0):
            raise ValueError(
                f"original_tokens={self.original_tokens} must be above 0 for scaling='yarn', and 0 for every other"
            )
        if not self.beta_fast > self.beta_slow > 0:
            raise ValueError(f"beta_fast={self.beta_fast} must be above beta_slow={self.beta_slow}, that above 0")

    def check(self, shape: PositionShape) -> None:
        """Rotations act on pairs."""
        if shape.head_dim % 2:
            raise ValueError(f"head dim {shape.head_dim} (dim / num_heads) must be even for rope")


@POSITIONS.register("rope", Rope)
class RopePositions(nn.Module):
    """Pairs of a query's and a key's coordinates are turned by their position (Su et al. 2021, RoFormer, section 3.2).

    Scaling: linear (Chen et al. 2023), NTK-aware (bloc97 2023), YaRN (Peng et al. 2023, section 3). A pair is
    coordinate r and coordinate r + D/2, as in the transformers library.
    """

    def __init__(self, shape: PositionShape, config: Rope) -> None:
        super().__init__()
        frequency, self.magnitude = frequencies(config, shape.head_dim)
        self.register_buffer("frequency_R", frequency, persistent=False)

    frequency_R: Tensor  # noqa: N815

    def rotate(self, x_BHTD: Tensor, position_BT: Tensor) -> Tensor:
        """Turn each vector by its position, in float32."""
        angle = (position_BT[:, None, :, None] * self.frequency_R).float()
        cos, sin = angle.cos() * self.magnitude, angle.sin() * self.magnitude
        first, second = x_BHTD.float().chunk(2, -1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(x_BHTD.dtype)


def frequencies(config: Rope, head_dim: int) -> tuple[Tensor, float]:
    """Radians a token of each pair, (D / 2,) float64, and what rotated vectors are multiplied by."""
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim
    if config.scaling == "ntk":
        return (config.base * config.factor ** (head_dim / max(head_dim - 2, 1))) ** -exponent, 1.0
    plain = config.base**-exponent
    if config.scaling == "none":
        return plain, 1.0
    if config.scaling == "linear":
        return plain / config.factor, 1.0

    def pair_with(turns: float) -> float:
        """The (real) number of the pair that turns this often within the original length."""
        return head_dim * math.log(config.original_tokens / (turns * 2 * math.pi)) / (2 * math.log(config.base))

    low = max(math.floor(pair_with(config.beta_fast)), 0)
    high = min(math.ceil(pair_with(config.beta_slow)), head_dim - 1)
    ramp = (torch.arange(head_dim // 2, dtype=torch.float64) - low) / max(high - low, 1e-3)
    stretched = ramp.clamp(0, 1)
    frequency = plain / config.factor * stretched + plain * (1 - stretched)
    return frequency, 0.1 * math.log(config.factor) + 1.0
