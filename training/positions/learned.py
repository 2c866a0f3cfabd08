"""A learned vector for every position."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from training.attention import Acts
from training.positions import POSITIONS, PositionOptions, PositionShape


@dataclass(frozen=True, kw_only=True)
class Learned(PositionOptions):
    """No options."""

    acts: ClassVar[Acts] = "input"


@POSITIONS.register("learned", Learned)
class LearnedPositions(nn.Embedding):
    """A vector for each of ``max_tokens`` positions, added to the embeddings (Gehring et al. 2017, section 3.1)."""

    def __init__(self, shape: PositionShape, config: Learned) -> None:  # noqa: ARG002
        super().__init__(shape.max_tokens, shape.dim)
