"""Adam with decoupled weight decay."""

from dataclasses import dataclass
from typing import Any

import torch

from training.optimizers import OPTIMIZERS


@dataclass(frozen=True, kw_only=True, slots=True)
class AdamW:
    """Its averages.

    Parameters
    ----------
    beta1, beta2 : how much the averages of gradients and of their squares keep at each step, in [0, 1).
    eps : added to the root of the latter.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must lie in [0, 1)")
        if not 0 < self.eps < 1:
            raise ValueError(f"eps={self.eps} must lie in (0, 1)")


@OPTIMIZERS.register("adamw", AdamW)
def adamw(groups: list[dict[str, Any]], learning_rate: float, config: AdamW) -> torch.optim.Optimizer:
    """Two numbers of state a weight, in one kernel a step (Loshchilov and Hutter 2019, algorithm 2)."""
    devices = {one.device.type for group in groups for one in group["params"]}
    return torch.optim.AdamW(
        groups,
        lr=learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=devices <= {"cpu", "cuda"},
    )
