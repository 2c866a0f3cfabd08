"""Easiest records first, the pool growing as the square root of progress."""

import math
from dataclasses import dataclass

from training.pacing import PACING, Pool


@dataclass(frozen=True, kw_only=True, slots=True)
class Root:
    """A pool that grows fast at first, so that new records arrive at an even rate per record known.

    Parameters
    ----------
    start : share of the records available at the first step (the initial competence), in (0, 1].
    full_at : progress from which all records are available, in (0, 1].
    """

    start: float = 0.2
    full_at: float = 0.6

    def __post_init__(self) -> None:
        for name in ("start", "full_at"):
            value = getattr(self, name)
            if not 0 < value <= 1:
                raise ValueError(f"{name}={value} must lie in (0, 1]")


@PACING.register("root", Root)
def root(progress: float, config: Root) -> Pool:
    """Square-root competence (Platanios et al. 2019, equation 8)."""
    squared = progress / config.full_at * (1.0 - config.start**2) + config.start**2
    return Pool(fraction=min(1.0, math.sqrt(squared)))
