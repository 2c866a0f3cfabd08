"""All records, but those of small, or of large, training loss more often."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.pacing import PACING, Pool


@dataclass(frozen=True, kw_only=True, slots=True)
class _ByLoss:
    """How strongly the loss counts, and how often it is looked at.

    Parameters
    ----------
    every : steps between two looks; before the first, records are drawn by weight alone.
    pressure : how many times as often the first of the ranking is drawn as the last, at least 1.
    """

    every: int = 25
    pressure: float = 10.0

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"every={self.every} must be at least 1 step")
        if not 1 <= self.pressure <= 1e6:
            raise ValueError(f"pressure={self.pressure} must lie in [1, 1e6]")

    def _weighted(
        self, weight: npt.NDArray[np.float64], losses: npt.NDArray[np.float64], order: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        """``pressure`` at the first seen record of the order, falling geometrically to 1 at the last.

        Of what was not drawn yet nothing is known: it gets the middle.
        """
        seen = order[~np.isnan(losses[order]) & (weight[order] > 0)]
        factor = np.full(len(weight), np.sqrt(self.pressure))
        factor[seen] = self.pressure ** (1.0 - np.arange(len(seen)) / max(1, len(seen) - 1))
        new: npt.NDArray[np.float64] = weight * factor
        return new


@dataclass(frozen=True, kw_only=True, slots=True)
class LowLoss(_ByLoss):
    """Options of ``low_loss``."""

    def reweighted(
        self,
        weight: npt.NDArray[np.float64],
        losses: npt.NDArray[np.float64],
        progress: float,  # noqa: ARG002
        at_least: int,  # noqa: ARG002
    ) -> npt.NDArray[np.float64]:
        """Weights that fall with the rank of the loss."""
        return self._weighted(weight, losses, np.argsort(losses, kind="stable"))


@dataclass(frozen=True, kw_only=True, slots=True)
class HighLoss(_ByLoss):
    """Options of ``high_loss``."""

    def reweighted(
        self,
        weight: npt.NDArray[np.float64],
        losses: npt.NDArray[np.float64],
        progress: float,  # noqa: ARG002
        at_least: int,  # noqa: ARG002
    ) -> npt.NDArray[np.float64]:
        """Weights that rise with the rank of the loss."""
        return self._weighted(weight, losses, np.argsort(-losses, kind="stable"))


@PACING.register("low_loss", LowLoss)
def low_loss(progress: float, config: LowLoss) -> Pool:  # noqa: ARG001
    """Small training losses more often, by rank: what a learner cannot fit may be wrong (after Jiang et al. 2018)."""
    return Pool(fraction=1.0, first="any")


@PACING.register("high_loss", HighLoss)
def high_loss(progress: float, config: HighLoss) -> Pool:  # noqa: ARG001
    """Large training losses more often, by rank (Loshchilov and Hutter 2016, equation 4); for clean labels only."""
    return Pool(fraction=1.0, first="any")
