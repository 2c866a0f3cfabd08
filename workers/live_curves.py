"""Losses of a training that is under way, written while it trains so that people can follow it."""

import threading
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, event, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from catalog.tables.engine import Unit
from catalog.tables.training import LossPoint
from workers.engine import Claim

if TYPE_CHECKING:
    from training.fit import Beginning

CHUNK_ROWS = 5_000


class LiveCurve:
    """One arm's losses: added by the thread that trains, written by the one that keeps the lease.

    ``write`` and ``cut`` belong into a transaction that only the unit's present owner can commit.

    Parameters
    ----------
    mine : the unit that trains the arm.
    arm : its name.
    """

    def __init__(self, mine: Claim, arm: str) -> None:
        self.memory: dict[str, int] | None = None
        """What a step takes, in bytes, once it is known."""
        self._mine, self._arm = mine, arm
        self._points: list[tuple[int, float]] = []
        self._lock = threading.Lock()
        self._resumed_at: int | None = None

    def begin(self, beginning: "Beginning") -> None:
        """Go on from what earlier attempts did."""
        with self._lock:
            self.memory = beginning.memory.to_json() | {"free_bytes": beginning.free_bytes}
            self._resumed_at = len(beginning.losses)
            # They may have ended before their last points were written.
            self._points = list(enumerate(beginning.losses, start=1))

    def add(self, step: int, loss: float) -> None:
        """One more update, counted from 1."""
        with self._lock:
            self._points.append((step, loss))

    def write(self, session: Session) -> None:
        """Write what has come since the last transaction that was committed."""
        with self._lock:
            points, memory, resumed_at = list(self._points), self.memory, self._resumed_at
        if not points and resumed_at is None:
            return
        if resumed_at is not None:
            self.cut(session, resumed_at)
            told = update(Unit).where(Unit.id == self._mine.unit_id).values(result={"memory": memory})
            session.execute(told.execution_options(synchronize_session=False))
        dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
        statement = dialect.insert(LossPoint)
        statement = statement.on_conflict_do_update(
            index_elements=["run_id", "arm", "step"], set_={"loss": statement.excluded["loss"]}
        )
        rows: list[dict[str, Any]] = [
            {"run_id": self._mine.run_id, "arm": self._arm, "step": step, "loss": loss} for step, loss in points
        ]
        for start in range(0, len(rows), CHUNK_ROWS):
            session.execute(statement, rows[start : start + CHUNK_ROWS])

        def forget(_session: Session) -> None:
            with self._lock:
                del self._points[: len(points)]
                if resumed_at is not None:
                    self._resumed_at = None

        event.listen(session, "after_commit", forget, once=True)

    def cut(self, session: Session, num_steps: int) -> None:
        """Remove points beyond so many steps: an earlier attempt made them, and they will be made anew or never."""
        of_arm = (LossPoint.run_id == self._mine.run_id, LossPoint.arm == self._arm)
        session.execute(delete(LossPoint).where(*of_arm, LossPoint.step > num_steps))


def memory_of_arms(session: Session, run_id: str, *, skip: Collection[int] = ()) -> dict[int, dict[str, Any]]:
    """What a step of each arm that has begun takes, in bytes, by the unit's position; ``arm`` is its name.

    Parameters
    ----------
    skip : positions that are known already.
    """
    of_run = (Unit.run_id == run_id, Unit.stage_name == "fit", Unit.result.is_not(None), Unit.position.not_in(skip))
    units = session.execute(select(Unit.position, Unit.payload, Unit.result).where(*of_run).order_by(Unit.position))
    return {
        position: {"arm": payload["arm"]} | result["memory"]
        for position, payload, result in units
        if result.get("memory")
    }
