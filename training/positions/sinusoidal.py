"""Fixed waves of every length."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from training.attention import Acts
from training.positions import POSITIONS, PositionOptions, PositionShape


@dataclass(frozen=True, kw_only=True)
class Sinusoidal(PositionOptions):
    """The waves.

    Parameters
    ----------
    base : the longest wave is ``2 * pi * base`` tokens long.
    scale : what the waves are multiplied by; token embeddings start at a standard deviation of 0.02.
    """

    acts: ClassVar[Acts] = "input"
    base: float = 10_000.0
    scale: float = 0.02

    def __post_init__(self) -> None:
        if not self.base > 1:
            raise ValueError(f"base={self.base} must be above 1")
        if not self.scale > 0:
            raise ValueError(f"scale={self.scale} must be above 0")

    def check(self, shape: PositionShape) -> None:
        """Sines and cosines come in pairs."""
        if shape.dim % 2:
            raise ValueError(f"dim={shape.dim} must be even for sinusoidal positions")


@POSITIONS.register("sinusoidal", Sinusoidal)
class SinusoidalPositions(nn.Module):
    """Sines and cosines of geometrically growing length, added to the embeddings (Vaswani et al. 2017, section 3.5)."""

    def __init__(self, shape: PositionShape, config: Sinusoidal) -> None:
        super().__init__()
        self.config = config
        exponent = torch.arange(0, shape.dim, 2, dtype=torch.float64) / shape.dim
        self.register_buffer("frequency", config.base**-exponent, persistent=False)

    frequency: Tensor

    def forward(self, position_N: Tensor) -> Tensor:
        """Vectors (N, C) of any positions (N,)."""
        angle = position_N[:, None] * self.frequency
        return (self.config.scale * torch.stack([angle.sin(), angle.cos()], -1).flatten(1)).float()
