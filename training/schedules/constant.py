"""Warm up, then stay."""

from dataclasses import dataclass

from training.schedules import SCHEDULES


@dataclass(frozen=True, kw_only=True, slots=True)
class Constant:
    """Linear warm-up to a constant rate.

    Parameters
    ----------
    warmup : share of the steps over which the rate rises from near 0 to its peak, in [0, 1].
    """

    warmup: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"warmup={self.warmup} must lie in [0, 1]")


@SCHEDULES.register("constant", Constant)
def constant(step: int, total_steps: int, config: Constant) -> float:
    """The rate at which a curriculum's gain does not vanish under decay (arXiv 2511.18903)."""
    return min(1.0, (step + 1) / (config.warmup * total_steps + 1))
