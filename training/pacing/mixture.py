"""Sources in shares that are chosen, and may move during training."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from training.pacing import PACING, Pool


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixture:
    """Shares of sources at the start and in the end.

    Parameters
    ----------
    shares : of each source at the first step, in any unit, 0 or more; a source that is left out is not drawn. Empty
        means all sources alike.
    final : shares in the end, reached in a straight line; empty means the same as at the start.
    start : share of each source that is available at the first step, easiest first, in (0, 1].
    full_at : progress from which all records are available, in (0, 1].
    """

    shares: Mapping[str, float] = field(default_factory=dict)
    final: Mapping[str, float] = field(default_factory=dict)
    start: float = 1.0
    full_at: float = 0.6

    def __post_init__(self) -> None:
        for name in ("start", "full_at"):
            value = getattr(self, name)
            if not 0 < value <= 1:
                raise ValueError(f"{name}={value} must lie in (0, 1]")
        for name in ("shares", "final"):
            given = getattr(self, name)
            if not isinstance(given, Mapping):
                raise TypeError(f"{name}={given!r} must be a mapping of sources to their shares")
            for source, value in given.items():
                if not isinstance(source, str):
                    raise TypeError(f"{name}: source {source!r} must be text; put it in quotes")
                if isinstance(value, bool) or not isinstance(value, int | float):
                    raise TypeError(f"{name}: {source}={value!r} must be a number")
                if not (math.isfinite(value) and value >= 0):
                    raise ValueError(f"{name}: {source}={value} must be a finite number, 0 or more")
            if given and not sum(given.values()) > 0:
                raise ValueError(f"{name}: every share is 0; give at least one source a share above 0")
        if self.final and not self.shares:
            raise ValueError("final is given without shares to move from; give shares as well")


@PACING.register("mixture", Mixture)
def mixture(progress: float, config: Mixture) -> Pool:
    """Draw sources in given shares whatever their size, easiest of each first if asked for (Xie et al. 2023)."""
    fraction = min(1.0, config.start + (1.0 - config.start) * progress / config.full_at)
    first, last = _normalised(config.shares), _normalised(config.final or config.shares)
    # Sorted, so that the same shares in another order of keys are the same mixture.
    shares = {
        name: first.get(name, 0.0) + (last.get(name, 0.0) - first.get(name, 0.0)) * progress
        for name in sorted({*first, *last})
    }
    return Pool(fraction=fraction, first="easiest" if config.start < 1 else "any", shares=shares)


def _normalised(shares: Mapping[str, float]) -> dict[str, float]:
    total = sum(shares.values())
    return {name: value / total for name, value in shares.items()}
