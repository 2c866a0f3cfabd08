"""No positions."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from training.attention import Acts
from training.positions import POSITIONS, PositionOptions, PositionShape


@dataclass(frozen=True, kw_only=True)
class Nowhere(PositionOptions):
    """No options."""

    acts: ClassVar[Acts] = "nothing"


@POSITIONS.register("none", Nowhere)
class NoPositions(nn.Module):
    """A causal network learns them from its mask (Kazemnejad et al. 2023, NoPE); an encoder is blind to order."""

    def __init__(self, shape: PositionShape, config: Nowhere) -> None:  # noqa: ARG002
        super().__init__()
