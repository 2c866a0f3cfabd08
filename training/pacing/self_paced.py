"""What the learner finds easy first: records of small training loss, more and more of them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.pacing import PACING, Pool


@dataclass(frozen=True, kw_only=True, slots=True)
class SelfPaced:
    """How many records are kept, and how often they are chosen anew.

    Parameters
    ----------
    every : steps between two choices; before the first, all records are drawn.
    start : share of the seen records that the first choice keeps, in (0, 1].
    full_at : progress from which as many are kept as ever will be, in (0, 1].
    end : share that is kept in the end, in [start, 1]; below 1 the records of largest loss never come back.
    """

    every: int = 25
    start: float = 0.5
    full_at: float = 0.6
    end: float = 1.0

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"every={self.every} must be at least 1 step")
        for name in ("start", "full_at"):
            value = getattr(self, name)
            if not 0 < value <= 1:
                raise ValueError(f"{name}={value} must lie in (0, 1]")
        if not self.start <= self.end <= 1:
            raise ValueError(f"end={self.end} must lie in [start={self.start}, 1]")

    def reweighted(
        self, weight: npt.NDArray[np.float64], losses: npt.NDArray[np.float64], progress: float, at_least: int
    ) -> npt.NDArray[np.float64]:
        """Keep the seen records of smallest loss, and all that was not drawn yet."""
        share = min(self.end, self.start + (self.end - self.start) * progress / self.full_at)
        drawable = weight > 0
        seen, unseen = drawable & ~np.isnan(losses), drawable & np.isnan(losses)
        num_kept = max(int(np.ceil(share * seen.sum())), at_least - int(unseen.sum()))
        rows = np.flatnonzero(seen)
        kept = unseen.copy()
        kept[rows[np.argsort(losses[rows], kind="stable")[:num_kept]]] = True
        return np.where(kept, weight, 0.0)


@PACING.register("self_paced", SelfPaced)
def self_paced(progress: float, config: SelfPaced) -> Pool:  # noqa: ARG001
    """Records of smallest training loss, more with time (Kumar et al. 2010, section 4; a share for their threshold)."""
    return Pool(fraction=1.0, first="any")
