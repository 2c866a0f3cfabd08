"""Adam's second moment as a row and a column a matrix, and no first moment."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from training.optimizers import OPTIMIZERS


@dataclass(frozen=True, kw_only=True, slots=True)
class Adafactor:
    """Its averages and limits.

    Parameters
    ----------
    beta2_decay : the average of squares at step t keeps ``1 - t ** beta2_decay``; at most 0.
    clip : largest root mean square of an update, before the learning rate; above 0.
    """

    needs_whole: ClassVar[bool] = True

    beta2_decay: float = -0.8
    clip: float = 1.0

    def __post_init__(self) -> None:
        if not self.beta2_decay <= 0:
            raise ValueError(f"beta2_decay={self.beta2_decay} must be at most 0")
        if not 0 < self.clip < float("inf"):
            raise ValueError(f"clip={self.clip} must be above 0 and finite")


@OPTIMIZERS.register("adafactor", Adafactor)
def adafactor(groups: list[dict[str, Any]], learning_rate: float, config: Adafactor) -> torch.optim.Optimizer:
    """State of a row and a column a matrix, 1/100 of Adam's; updates follow the weights' size (Shazeer and Stern 2018).

    A step is the learning rate, or 1/sqrt(t) where that is less, times the weight's root mean square: take about ten
    times the rate of ``adamw``.
    """
    return torch.optim.Adafactor(groups, lr=learning_rate, beta2_decay=config.beta2_decay, d=config.clip)
