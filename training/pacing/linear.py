"""Easiest records first, the pool growing linearly."""

from dataclasses import dataclass

from training.pacing import PACING, Pool


@dataclass(frozen=True, kw_only=True, slots=True)
class Linear:
    """A pool that grows in a straight line.

    Parameters
    ----------
    start : share of the records available at the first step, in (0, 1].
    full_at : progress from which all records are available, in (0, 1].
    """

    start: float = 0.4
    full_at: float = 0.6

    def __post_init__(self) -> None:
        for name in ("start", "full_at"):
            value = getattr(self, name)
            if not 0 < value <= 1:
                raise ValueError(f"{name}={value} must lie in (0, 1]")

    def fraction(self, progress: float) -> float:
        """Share of the records available at ``progress``."""
        return min(1.0, self.start + (1.0 - self.start) * progress / self.full_at)


@PACING.register("linear", Linear)
def linear(progress: float, config: Linear) -> Pool:
    """Easiest first, growing linearly (Bengio et al. 2009, section 4; Platanios et al. 2019, section 2.2)."""
    return Pool(fraction=config.fraction(progress))
