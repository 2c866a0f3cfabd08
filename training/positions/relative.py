"""A learned score for every range of distances."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from training.attention import Acts
from training.positions import POSITIONS, PositionOptions, PositionShape


@dataclass(frozen=True, kw_only=True)
class Relative(PositionOptions):
    """The ranges.

    Parameters
    ----------
    num_buckets : ranges of distances; half of them for either side where a query sees both.
    max_distance : all longer distances share one range, in tokens.
    """

    acts: ClassVar[Acts] = "scores"
    num_buckets: int = 32
    max_distance: int = 128

    def __post_init__(self) -> None:
        if self.num_buckets < 4 or self.num_buckets % 4:
            raise ValueError(f"num_buckets={self.num_buckets} must be a multiple of 4 and at least 4")
        if self.max_distance <= self.num_buckets // 2:
            raise ValueError(f"max_distance={self.max_distance} must be above num_buckets / 2={self.num_buckets // 2}")


@POSITIONS.register("relative", Relative)
class RelativePositions(nn.Module):
    """A learned score for each range of distances and head, the same in all layers (Raffel et al. 2020, T5, 2.1)."""

    def __init__(self, shape: PositionShape, config: Relative) -> None:
        super().__init__()
        self.config, self.sides = config, shape.sides
        self.weight = nn.Parameter(torch.empty(config.num_buckets, shape.num_heads))
        nn.init.normal_(self.weight, std=0.02)

    def score(self, distance: Tensor, head: Tensor) -> Tensor:
        """The learned score of the distance's range."""
        return self.weight[bucket_of(distance, self.config, self.sides), head]


def bucket_of(distance: Tensor, config: Relative, sides: int) -> Tensor:
    """Range of each distance: one each for near ones, logarithmically wider ones behind."""
    num_buckets = config.num_buckets // sides
    bucket = torch.where(distance > 0, num_buckets, 0) if sides == 2 else torch.zeros_like(distance)
    far = distance.abs() if sides == 2 else (-distance).clamp(min=0)
    exact = num_buckets // 2
    scale = (num_buckets - exact) / math.log(config.max_distance / exact)
    grown = exact + ((far.clamp(min=1).float() / exact).log() * scale).long()
    return bucket + torch.where(far < exact, far, grown.clamp(max=num_buckets - 1))
