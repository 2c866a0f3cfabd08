"""Easiest records first, the pool growing in equal stages."""

import math
from dataclasses import dataclass

from training.pacing import PACING, Pool


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A pool that grows in jumps of equal size, equally far apart.

    Parameters
    ----------
    start : share of the records available in the first stage, in (0, 1].
    num_stages : pools of different size, the last one with all records; at least 2.
    full_at : progress at which the last stage begins, in (0, 1].
    """

    start: float = 0.25
    num_stages: int = 4
    full_at: float = 0.6

    def __post_init__(self) -> None:
        for name in ("start", "full_at"):
            value = getattr(self, name)
            if not 0 < value <= 1:
                raise ValueError(f"{name}={value} must lie in (0, 1]")
        if self.num_stages < 2:
            raise ValueError(f"num_stages={self.num_stages} must be at least 2")


@PACING.register("step", Step)
def step(progress: float, config: Step) -> Pool:
    """Easiest first in stages, each trained on for a while (Bengio et al. 2009, section 4; Wu et al. 2021, table 2)."""
    last = config.num_stages - 1
    stage = min(last, math.floor(progress / config.full_at * last))
    return Pool(fraction=config.start + (1.0 - config.start) * stage / last)
