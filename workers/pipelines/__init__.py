"""Job kinds. A pipeline is a row of stages; a stage plans its units and works one of them.

To add a job kind: one module here that registers a ``Pipeline``, and one test.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import Session

from catalog.registry import Registry
from catalog.tables.engine import Run

if TYPE_CHECKING:
    from workers.engine import UnitResult
    from workers.execution import UnitContext


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One step of a pipeline.

    Parameters
    ----------
    name : permanent; shown to people and stored with the units.
    plan : the payloads of the stage's units, from the run and what earlier stages committed; quick, SQL only.
    work : does one unit; everything it hands over is in its result.
    needs : what its units need of a worker, one of ``catalog.settings.NEEDS``.
    """

    name: str
    plan: Callable[[Session, Run], Iterable[dict[str, Any]]]
    work: "Callable[[UnitContext], UnitResult]"
    needs: str = "cpu"


@dataclass(frozen=True, kw_only=True, slots=True)
class Pipeline:
    """The stages of one job kind, in order."""

    stages: tuple[Stage, ...]


PIPELINES: Registry[Pipeline] = Registry("job kind", "workers.pipelines")


def single(_session: Session, _run: Run) -> list[dict[str, Any]]:
    """The plan of a stage that is one unit over everything."""
    return [{}]
