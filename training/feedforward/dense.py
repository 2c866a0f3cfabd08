"""The plain two-layer feed-forward."""

from dataclasses import dataclass

from torch import nn

from training.feedforward import FEEDFORWARD


@dataclass(frozen=True, kw_only=True, slots=True)
class Dense:
    """Size of the hidden layer.

    Parameters
    ----------
    hidden : units of the hidden layer.
    """

    hidden: int = 512

    def __post_init__(self) -> None:
        if self.hidden < 1:
            raise ValueError(f"hidden={self.hidden} must be at least 1")


@FEEDFORWARD.register("dense", Dense)
def dense(dim: int, config: Dense) -> nn.Module:
    """Linear, GELU, linear (Vaswani et al. 2017, section 3.3, with GELU for ReLU)."""
    return nn.Sequential(nn.Linear(dim, config.hidden), nn.GELU(), nn.Linear(config.hidden, dim))
