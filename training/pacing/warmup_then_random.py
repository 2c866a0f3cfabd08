"""A short easy start, then every record in random order."""

from dataclasses import dataclass

from training.pacing import PACING, Pool


@dataclass(frozen=True, kw_only=True, slots=True)
class WarmupThenRandom:
    """A curriculum used as a warm-up only.

    Parameters
    ----------
    easy : share of the records that the warm-up draws from, in (0, 1].
    warmup : share of the steps spent in the warm-up, in [0, 1].
    """

    easy: float = 0.5
    warmup: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.easy <= 1:
            raise ValueError(f"easy={self.easy} must lie in (0, 1]")
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"warmup={self.warmup} must lie in [0, 1]")


@PACING.register("warmup_then_random", WarmupThenRandom)
def warmup_then_random(progress: float, config: WarmupThenRandom) -> Pool:
    """The easiest records for the first steps, all of them after (warm-up curriculum, arXiv 2506.11300, section 3)."""
    return Pool(fraction=config.easy if progress < config.warmup else 1.0)
