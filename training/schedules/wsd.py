"""Warm up, stay, decay."""

from dataclasses import dataclass

from training.schedules import SCHEDULES


@dataclass(frozen=True, kw_only=True, slots=True)
class WarmupStableDecay:
    """A trapezoid.

    Parameters
    ----------
    warmup : share of the steps over which the rate rises, in [0, 1].
    decay : share of the steps, at the end, over which it falls towards 0, in [0, 1].
    """

    warmup: float = 0.1
    decay: float = 0.2

    def __post_init__(self) -> None:
        for name in ("warmup", "decay"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"{name}={value} must lie in [0, 1]")
        if self.warmup + self.decay > 1:
            raise ValueError(f"warmup + decay = {self.warmup + self.decay:g} must be at most 1; shorten one")


@SCHEDULES.register("wsd", WarmupStableDecay)
def wsd(step: int, total_steps: int, config: WarmupStableDecay) -> float:
    """Warm-up, stable, linear decay (Hu et al. 2024, MiniCPM, section 4; linear as in Hägele et al. 2024)."""
    rising = (step + 1) / (config.warmup * total_steps + 1)
    falling = (total_steps - step) / (config.decay * total_steps + 1)
    return min(1.0, rising, falling)
