"""Warm up, then fall along half a cosine."""

import math
from dataclasses import dataclass

from training.schedules import SCHEDULES


@dataclass(frozen=True, kw_only=True, slots=True)
class Cosine:
    """Half a cosine.

    Parameters
    ----------
    warmup : share of the steps over which the rate rises, in [0, 1].
    final : share of the peak that is left at the end, in [0, 1].
    """

    warmup: float = 0.1
    final: float = 0.1

    def __post_init__(self) -> None:
        for name in ("warmup", "final"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must lie in [0, 1]")


@SCHEDULES.register("cosine", Cosine)
def cosine(step: int, total_steps: int, config: Cosine) -> float:
    """Cosine decay without restarts (Loshchilov and Hutter 2017, equation 5), to a tenth as in Hoffmann et al. 2022."""
    rising = (step + 1) / (config.warmup * total_steps + 1)
    done = max(0.0, step - config.warmup * total_steps) / max(1.0, (1 - config.warmup) * total_steps)
    return min(rising, config.final + (1 - config.final) * (1 + math.cos(math.pi * done)) / 2)
