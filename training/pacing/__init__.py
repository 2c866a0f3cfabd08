"""Pacings: how much of the manifest the stream may draw from, and from which end, as training goes on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from catalog.registry import Registry


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """The part of the manifest that a step draws from.

    Parameters
    ----------
    fraction : share of the records that are available, in (0, 1].
    first : which records become available first: the ``easiest``, the ``hardest``, or ``any`` (a seeded shuffle).
    shares : of each source in what is drawn, in any unit; sources that are not named are not drawn, and none named
        means all alike. The fraction is then that of each source. None draws by weight alone, whatever the source.
    """

    fraction: float
    first: Literal["easiest", "hardest", "any"] = "easiest"
    shares: Mapping[str, float] | None = None


@runtime_checkable
class Online(Protocol):
    """What the config of a pacing has that follows the training loss: a new manifest every so many steps."""

    @property
    def every(self) -> int:
        """Steps between two manifests."""
        ...

    def reweighted(
        self,
        weight: npt.NDArray[np.float64],
        losses: npt.NDArray[np.float64],
        progress: float,
        at_least: int,
    ) -> npt.NDArray[np.float64]:
        """Weights of the next manifest; a pure function of what it is given.

        Parameters
        ----------
        weight : (n,) of the manifest that the run began with; 0 stays 0.
        losses : (n,) latest training loss of each record in nats, NaN where it was not drawn yet.
        progress : step / total steps at which the new manifest is in force, in (0, 1).
        at_least : records that must keep a weight above 0: a batch.

        Returns
        -------
        (n,) float64, 0 or more.
        """
        ...


PACING: Registry[Callable[[float, Any], Pool]] = Registry("pacing", "training.pacing")
"""Contract: ``(progress, config) -> Pool``. ``progress`` is step / total steps in [0, 1]; the fraction lies in (0, 1]
and never shrinks as progress grows. Nothing else may influence the answer: the order of records is replayed from it.
A config that is ``Online`` is asked for new weights during the run as well."""
