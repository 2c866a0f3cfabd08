"""Warm up, then fall in a straight line."""

from dataclasses import dataclass

from training.schedules import SCHEDULES


@dataclass(frozen=True, kw_only=True, slots=True)
class Linear:
    """A triangle.

    Parameters
    ----------
    warmup : share of the steps over which the rate rises, in [0, 1].
    final : share of the peak that is left at the end, in [0, 1].
    """

    warmup: float = 0.1
    final: float = 0.0

    def __post_init__(self) -> None:
        for name in ("warmup", "final"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must lie in [0, 1]")


@SCHEDULES.register("linear", Linear)
def linear(step: int, total_steps: int, config: Linear) -> float:
    """Linear decay (Devlin et al. 2019, appendix A.2); to 0 it is what Bergsma et al. 2025 recommend."""
    rising = (step + 1) / (config.warmup * total_steps + 1)
    done = max(0.0, step - config.warmup * total_steps) / max(1.0, (1 - config.warmup) * total_steps)
    return min(rising, config.final + (1 - config.final) * (1 - done))
