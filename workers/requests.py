"""Jobs that wait for something else to end: ``clean``, then ``label``, then ``train``, asked for in one go.

A request names what it waits for: a run, a labeling queue, or another request. While that has not ended well the
request waits; a run that fails keeps it waiting, for the run may be resumed. Starting is safe to repeat, because the
same job asked for twice is the same run.
"""

import logging
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.engine import CursorResult
from sqlalchemy.orm import Session

from catalog.database import Catalog
from catalog.errors import ConflictError, NotFoundError, ServiceError, TransientError
from catalog.faults import fault
from catalog.tables.base import new_id
from catalog.tables.engine import Run
from catalog.tables.labeling import LabelEntry, LabelQueue
from catalog.tables.schedules import Request
from workers import beginnings, engine
from workers.jobs import Started, start_job
from workers.runs import check_steering

log = logging.getLogger(__name__)


def ask_after(
    session: Session,
    *,
    now: datetime,
    after: str,
    kind: str,
    dataset: str,
    config: dict[str, Any],
    requested_by: str | None = None,
    priority: int = 0,
    max_units: int | None = None,
    request_id: str | None = None,
) -> Request:
    """Write down a job to be started once something else has ended.

    Parameters
    ----------
    after : id of a run, a request or a labeling queue, or its first characters.
    kind, config : as ``workers.jobs`` takes them.
    request_id : of the request; random where it matters to nobody.

    Raises
    ------
    NotFoundError : nothing has that id. ConflictError : it has ended in a way that nothing follows.
    """
    check_steering(priority, max_units)
    request = Request(
        id=request_id or new_id(),
        dataset=dataset,
        kind=kind,
        config=config,
        priority=priority,
        max_units=max_units,
        requested_by=requested_by,
        created_at=now,
        **_awaited(session, after),
    )
    session.add(request)
    session.flush()
    return request


def _awaited(session: Session, after: str) -> dict[str, str]:
    request = session.scalars(_beginning(Request, after)).all() if len(after) >= 4 else []
    queue = session.scalars(_beginning(LabelQueue, after)).all() if len(after) >= 4 else []
    if len(request) == 1 and not queue:
        if request[0].state in ("refused", "cancelled"):
            raise ConflictError(f"request {request[0].id[:8]} was {request[0].state}; nothing can follow it")
        return {"after_request_id": request[0].id}
    if len(queue) == 1 and not request:
        return {"after_queue_id": queue[0].id}
    try:
        return {"after_run_id": engine.find_run(session, after).id}
    except NotFoundError as error:
        raise NotFoundError(
            f"no run, request or labeling queue begins with {after!r}; see `winnow runs` and `winnow requests`"
        ) from error


def _beginning(table: Any, beginning: str) -> Any:
    return select(table).where(table.id.startswith(beginning, autoescape=True)).limit(2)


def find_request(session: Session, request_id: str) -> Request:
    """One request by id or unique beginning of it.

    Raises
    ------
    NotFoundError : none, or several, begin so.
    """
    return beginnings.find(session, Request, request_id, what="request", see="`winnow requests`")


def cancel_request(request: Request, now: datetime, reason: str | None = None) -> None:
    """Let a waiting request never start.

    Parameters
    ----------
    reason : why, where that is not that somebody wanted it.

    Raises
    ------
    ConflictError : it waits no more.
    """
    if request.state != "waiting":
        raise ConflictError(f"request {request.id[:8]} is {request.state}; only a waiting request can be cancelled")
    request.state, request.reason, request.settled_at = "cancelled", reason, now


def waits_for(session: Session, request: Request) -> str:
    """What a waiting request waits for, in words."""
    if request.after_run_id is not None:
        run = session.get_one(Run, request.after_run_id)
        state = "paused" if run.state == "running" and run.paused_at is not None else run.state
        told = f"{run.kind} run {run.id[:8]}, which is {state}"
        if state == "failed" and run.kind == "ingest" and str(request.requested_by).startswith("schedule "):
            return f"{told}: where a file changed its schedule takes it in again, else `winnow resume {run.id[:8]}`"
        return f"{told}: `winnow resume {run.id[:8]}`" if state in ("failed", "cancelled", "paused") else told
    if request.after_queue_id is not None:
        return f"labeling queue {session.get_one(LabelQueue, request.after_queue_id).name!r}"
    before = session.get_one(Request, request.after_request_id)
    return f"request {before.id[:8]} ({before.kind}), which is {before.state}"


def settle_requests(catalog: Catalog) -> int:
    """Start what has waited long enough; return how much. In every worker, any number of them at once."""
    with catalog.read() as session:
        waiting = session.scalars(select(Request).where(Request.state == "waiting").order_by(Request.created_at)).all()
        due = [request for request in waiting if _may_start(session, request)]
    return sum(_start(catalog, request) for request in due)


def _may_start(session: Session, request: Request) -> bool:
    if request.after_run_id is not None:
        return _is_done(session, request.after_run_id)
    if request.after_queue_id is not None:
        return queue_has_ended(session, request.after_queue_id)
    before = session.get_one(Request, request.after_request_id)
    if before.state != "started" or before.run_id is None or not _is_done(session, before.run_id):
        return False
    return before.queue_id is None or queue_has_ended(session, before.queue_id)


def _is_done(session: Session, run_id: str) -> bool:
    return session.scalar(select(Run.state).where(Run.id == run_id)) == "done"


def queue_has_ended(session: Session, queue_id: str) -> bool:
    """Whether nothing is left to ask in a queue: it was closed, or all that it chose is answered."""
    queue = session.get_one(LabelQueue, queue_id)
    if queue.state == "closed":
        return True
    if queue.waiting_for_model or queue.generation == 0:
        return False
    left = select(LabelEntry.task_id).where(
        LabelEntry.queue_id == queue_id, LabelEntry.generation == queue.generation, LabelEntry.done.is_(False)
    )
    return session.scalar(left.limit(1)) is None


def _start(catalog: Catalog, request: Request) -> int:
    try:
        started: Started | ServiceError = start_job(
            catalog,
            kind=request.kind,
            dataset=request.dataset,
            config=request.config,
            requested_by=request.requested_by,
            priority=request.priority,
            max_units=request.max_units,
        )
    except TransientError as error:
        log.warning("request %s waits on: %s", request.id, error)
        return 0
    except ServiceError as error:
        started = error
    except Exception as error:
        # A job's bug must become a reason on its request: those behind it wait for their turn.
        log.exception("request %s failed", request.id)
        started = ServiceError(f"{type(error).__name__}: {error}")
    fault("request.before_record")
    with catalog.write() as session:
        values = (
            {"state": "refused", "reason": f"{started}"}
            if isinstance(started, ServiceError)
            else {"state": "started", "run_id": started.run_id, "queue_id": started.queue_id}
        )
        changed = session.execute(
            update(Request)
            .where(Request.id == request.id, Request.state == "waiting")
            .values(settled_at=catalog.now(session), **values)
            .execution_options(synchronize_session=False)
        )
        assert isinstance(changed, CursorResult)
        return changed.rowcount
