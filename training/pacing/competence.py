"""Easiest records first, as the learner's competence grows."""

from dataclasses import dataclass

from training.pacing import PACING, Pool


@dataclass(frozen=True, kw_only=True, slots=True)
class Competence:
    """A competence that grows as a root of progress.

    Parameters
    ----------
    initial : competence at the first step, in (0, 1].
    full_at : progress from which the learner is fully competent, in (0, 1].
    root : 1 grows linearly, 2 as the square root; the higher, the faster at first. At least 1.
    """

    initial: float = 0.1
    full_at: float = 0.6
    root: float = 2.0

    def __post_init__(self) -> None:
        for name in ("initial", "full_at"):
            value = getattr(self, name)
            if not 0 < value <= 1:
                raise ValueError(f"{name}={value} must lie in (0, 1]")
        if not 1 <= self.root <= 100:
            raise ValueError(f"root={self.root} must lie in [1, 100]")


@PACING.register("competence", Competence)
def competence(progress: float, config: Competence) -> Pool:
    """Records whose difficulty percentile is within the competence (Platanios et al. 2019, equations 6 to 8)."""
    start = config.initial**config.root
    grown = progress / config.full_at * (1.0 - start) + start
    return Pool(fraction=min(1.0, grown ** (1.0 / config.root)))
