"""What came of a time that a schedule was due: the runs that it started, and what became of them."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from catalog.tables.datasets import Dataset
from catalog.tables.engine import Run
from catalog.tables.schedules import Firing, Request


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What came of one firing.

    Parameters
    ----------
    run_id : the run that it started, of a watched folder that which reads the files; None where there is none.
    then_run_id : of a watched folder, the run of the job that followed.
    reason : why nothing was started, and what is worth a look about the runs; empty when all is well.
    """

    run_id: str | None
    then_run_id: str | None
    reason: str


def came_of(session: Session, firing: Firing) -> Outcome:
    """What came of a firing, as far as it is known by now."""
    request = session.get(Request, firing.detail.get("request", ""))
    run = session.get(Run, firing.run_id) if firing.run_id is not None else None
    then = session.get(Run, request.run_id) if request is not None and request.run_id is not None else None
    told = [firing.reason or "", *(_told(session, one) for one in (run, then) if one is not None)]
    if request is not None and request.state in ("refused", "cancelled") and request.reason not in told:
        told.append(f"{request.kind} {request.state}" + (f": {request.reason}" if request.reason else ""))
    return Outcome(
        run_id=firing.run_id,
        then_run_id=then.id if then is not None else None,
        reason="; ".join(one for one in told if one),
    )


def _told(session: Session, run: Run) -> str:
    """What is worth a look about a run: that it did not end well, what it left out."""
    if run.state in ("failed", "cancelled"):
        return f"{run.kind} {run.state}" + (f": {run.reason}" if run.reason else "")
    result: dict[str, Any] = run.result or {}
    if run.kind == "ingest":
        num_refused, num_rejected = len(result.get("refused", {})), result.get("rejected", 0)
        parts = [counted(num_refused, "file") + " refused"] * bool(num_refused)
        parts += [counted(num_rejected, "row") + " set aside"] * bool(num_rejected)
        name = session.get_one(Dataset, run.dataset_id).name
        return f"{', '.join(parts)}: `winnow rejected {name}`" if parts else ""
    if "kept" not in result or "records" not in result:
        return ""
    if result["records"] and not result["kept"]:
        name = session.get_one(Dataset, run.dataset_id).name
        return f"none of {counted(result['records'], 'record')} kept: `winnow report {name}` says why"
    return f"{result['kept']:,} of {counted(result['records'], 'record')} kept"


def counted(count: int, what: str) -> str:
    """A number of things, in words.

    >>> counted(1, "file"), counted(2000, "row")
    ('1 file', '2,000 rows')
    """
    return f"{count:,} {what}{'' if count == 1 else 's'}"
