"""Handing tasks out: the next one, signs of life, giving back, declining."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Literal, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, bindparam, case, exists, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from catalog.errors import ConflictError, DataError, GoneError
from catalog.tables.base import Moment, new_id
from catalog.tables.labeling import LabelAssignment, LabelEntry, LabelEvent, LabelQueue, LabelSuggestion, LabelTask
from labeling import gold
from labeling.slots import (
    ANSWERED,
    checked_text,
    free_slot,
    lock_lease,
    lock_task,
    move,
    open_queue,
    serialize_annotator,
)

WAIT_SECONDS = 2.0
"""How soon to ask again while a model is being fitted."""
RETRY_SECONDS = 0.2
"""How soon to ask again when another annotator is just now taking or answering the last free task."""
MAX_CLAIMS = 20
MAX_IN_HAND = 4
"""Leases that one annotator holds at once: the one on the screen, and those fetched ahead."""


class Place(NamedTuple):
    """Why a task is next: its place in the order, and who put it there."""

    rank: int
    utility: float
    why: str
    kind: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """A task handed to an annotator, and why this one."""

    lease_id: str
    task_id: str
    record_id: str
    text: str
    why: str
    utility: float
    rank: int
    generation: int
    expires_at: datetime
    schema_version: int | None
    suggestion: dict[str, Any] | None
    """Value, score and source of what a model says; None where none does, or it is kept from this annotator."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NoTask:
    """There is nothing to hand out, why, and when to ask again (None: never).

    ``waiting_for_model`` also while no generation is being computed, when records are left that the present one does
    not offer: whoever serves the annotator then asks for the next.
    """

    reason: Literal["done", "all_leased", "waiting_for_model"]
    retry_after_seconds: float | None


def next_task(
    session: Session, *, now: datetime, queue_id: str, annotator_id: str, beside: Collection[str] = ()
) -> Served | NoTask:
    """Lease the best task of the current generation that this annotator may answer.

    An annotator who holds a live lease gets that one back, renewed: what was just undone comes before what was on the
    screen, and that before what was fetched ahead.

    Parameters
    ----------
    beside : leases that the annotator has in hand and wants another one to, so that it is there when these are
        answered; at most ``MAX_IN_HAND`` - 1.

    Raises
    ------
    NotFoundError : no such queue.
    GoneError : the queue is closed.
    DataError : more leases in hand than allowed.
    """
    if len(beside) >= MAX_IN_HAND:
        raise DataError(f"{len(beside)} leases in hand; at most {MAX_IN_HAND - 1} beside the one asked for")
    queue = open_queue(session, queue_id)
    serialize_annotator(session, annotator_id)
    held = _held_lease(session, queue_id, annotator_id, now, beside)
    if held is not None:
        held.expires_at = now + timedelta(seconds=queue.lease_seconds)
        held.schema_version = queue.schema["version"]
        return _served(held, session.get_one(LabelTask, held.task_id))
    known = gold.due_task(session, queue, annotator_id, now)
    if known is not None:
        lease = _lease(session, queue, known, annotator_id, now, Place(0, 0.0, gold.WHY, "gold"))
        if lease is not None:
            return _served(lease, known)
    if queue.generation == 0:
        return NoTask(reason="waiting_for_model", retry_after_seconds=WAIT_SECONDS)
    parameters = _parameters(queue, annotator_id, now)
    for _ in range(MAX_CLAIMS):
        found = session.execute(_servable_locked(), parameters, execution_options={"populate_existing": True}).first()
        if found is None:
            break
        lease = _lease(session, queue, found.LabelTask, annotator_id, now, Place(*found[:4]))
        if lease is not None:
            return _served(lease, found.LabelTask)
    return _nothing(session, queue, annotator_id, now)


def heartbeat(session: Session, *, now: datetime, lease_id: str, annotator_id: str) -> datetime:
    """Renew a lease; return its new expiry. A lease that ran out is revived while nobody has taken its slot.

    Raises
    ------
    NotFoundError : no such lease, or it is another annotator's.
    GoneError : the queue is closed, or the lease is over (answered, given back, or taken over).
    """
    queue, lease = lock_lease(session, lease_id, annotator_id)
    if lease.state != "leased":
        raise GoneError(f"lease {lease_id} is {lease.state}; an answer to it is still kept, or ask for the next task")
    lease.expires_at = now + timedelta(seconds=queue.lease_seconds)
    session.flush()
    return lease.expires_at


def release(session: Session, *, now: datetime, lease_id: str, annotator_id: str) -> None:
    """Give a task back unanswered; it is at once free for anybody. A lease already over stays as it is.

    Raises
    ------
    NotFoundError : no such lease, or it is another annotator's.
    GoneError : the queue is closed.
    """
    _, lease = lock_lease(session, lease_id, annotator_id)
    if lease.state == "leased":
        move(session, lease, now, state="released", slot=None, kind="released", detail={})


def skip(session: Session, *, now: datetime, lease_id: str, annotator_id: str, reason: str) -> None:
    """Decline a task: this annotator is not asked again, others are. Skipping twice changes nothing.

    Raises
    ------
    NotFoundError : no such lease, or it is another annotator's.
    ConflictError : the task was already answered.
    GoneError : the queue is closed.
    DataError : the reason has more than 500 characters, or characters databases refuse.
    """
    _, lease = lock_lease(session, lease_id, annotator_id)
    if lease.state in ("accepted", "late"):
        raise ConflictError(f"lease {lease_id} is already answered; undo the answer before skipping")
    checked_text("reason", reason, at_least=0, at_most=500)
    if lease.state != "skipped":
        move(session, lease, now, state="skipped", slot=None, kind="skipped", detail={"reason": reason})


@cache
def _servable() -> Select[int, float, str, str, LabelTask]:
    """The best task of the current generation with a free slot that this annotator has not dealt with.

    Built once: putting the statement together costs more than running it. It stops at the first row of the index of
    open entries that fits.
    """
    return (
        select(LabelEntry.rank, LabelEntry.utility, LabelEntry.why, LabelEntry.kind, LabelTask)
        .join(LabelTask, LabelTask.id == LabelEntry.task_id)
        .where(
            LabelEntry.queue_id == bindparam("queue_id"),
            LabelEntry.generation == bindparam("generation"),
            LabelEntry.done.is_(False),
            *_answerable(LabelEntry.task_id),
        )
        .order_by(LabelEntry.rank)
        .limit(1)
    )


@cache
def _left_over() -> Select[str]:
    """Any open task that this annotator may answer, whether or not the current generation has it."""
    return (
        select(LabelTask.id)
        .where(
            LabelTask.queue_id == bindparam("queue_id"),
            LabelTask.done.is_(False),
            LabelTask.gold.is_(False),
            *_answerable(LabelTask.id),
        )
        .limit(1)
    )


def _answerable(task_id: InstrumentedAttribute[str]) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """This annotator has not dealt with the task and has it not in hand, and one of its slots is free."""
    taken = aliased(LabelAssignment)
    num_taken = (
        select(func.count())
        .where(
            taken.task_id == task_id,
            or_(
                taken.state == "accepted",
                and_(taken.state == "leased", taken.expires_at > bindparam("now", type_=Moment)),
            ),
        )
        .correlate_except(taken)
        .scalar_subquery()
    )
    return ~_met(task_id), num_taken < LabelTask.overlap


def _met(task_id: InstrumentedAttribute[str]) -> ColumnElement[bool]:
    """This annotator has dealt with the task, or has it in hand."""
    mine = aliased(LabelAssignment)
    return exists().where(
        mine.task_id == task_id,
        mine.annotator_id == bindparam("annotator_id"),
        or_(mine.state.in_(ANSWERED), and_(mine.state == "leased", mine.expires_at > bindparam("now", type_=Moment))),
    )


@cache
def _servable_locked() -> Select[int, float, str, str, LabelTask]:
    """The same, passing over tasks that somebody else is changing and locking the one it finds."""
    return _servable().with_for_update(of=LabelTask, skip_locked=True, key_share=True)


def _parameters(queue: LabelQueue, annotator_id: str, now: datetime) -> dict[str, Any]:
    return {"queue_id": queue.id, "generation": queue.generation, "annotator_id": annotator_id, "now": now}


def _held_lease(
    session: Session, queue_id: str, annotator_id: str, now: datetime, beside: Collection[str]
) -> LabelAssignment | None:
    """The live lease that comes first, with its task locked so that nobody takes it over meanwhile.

    What was just undone, or given by a reviewer, the latest of it first; else the one that has been in hand longest.
    """
    urgent = case((LabelEvent.kind.in_(("undone", "reassigned")), LabelAssignment.event_id), else_=0)
    lease = session.scalars(
        select(LabelAssignment)
        .join(LabelEvent, LabelEvent.id == LabelAssignment.event_id)
        .where(
            LabelAssignment.queue_id == queue_id,
            LabelAssignment.annotator_id == annotator_id,
            LabelAssignment.state == "leased",
            LabelAssignment.expires_at > now,
            *([LabelAssignment.id.not_in(beside)] if beside else []),
        )
        .order_by(urgent.desc(), LabelAssignment.event_id)
        .limit(1)
    ).first()
    if lease is None:
        return None
    lock_task(session, lease.task_id)
    session.refresh(lease)
    return lease if lease.state == "leased" else None


def _lease(
    session: Session, queue: LabelQueue, task: LabelTask, annotator_id: str, now: datetime, place: Place
) -> LabelAssignment | None:
    """Give one of the task's slots to the annotator; None when none is free. The task must be locked."""
    lease = session.scalars(
        select(LabelAssignment).where(LabelAssignment.task_id == task.id, LabelAssignment.annotator_id == annotator_id),
        execution_options={"populate_existing": True},
    ).first()
    mine = lease.slot if lease is not None else None
    slot = mine if mine is not None else free_slot(session, task.id, annotator_id, task.overlap, now)
    if slot is None:
        return None
    suggestion = None if place.kind == "gold" else _suggestion(session, queue, task, annotator_id)
    if lease is None:
        lease = LabelAssignment(
            id=new_id(), queue_id=queue.id, task_id=task.id, annotator_id=annotator_id, overlap=task.overlap, event_id=0
        )
        session.add(lease)
    lease.generation, lease.rank, lease.utility, lease.why, lease.kind = queue.generation, *place
    lease.schema_version = queue.schema["version"]
    lease.suggestion = suggestion
    lease.expires_at = now + timedelta(seconds=queue.lease_seconds)
    detail = {"generation": queue.generation, **place._asdict(), "suggestion": lease.suggestion}
    move(session, lease, now, state="leased", slot=slot, kind="served", detail=detail)
    return lease


def _suggestion(session: Session, queue: LabelQueue, task: LabelTask, annotator_id: str) -> dict[str, Any] | None:
    """The newest suggestion for a task, and whether this annotator may see it: always the same for the two."""
    found = session.execute(
        select(LabelSuggestion.value, LabelSuggestion.score, LabelSuggestion.source)
        .where(LabelSuggestion.queue_id == queue.id, LabelSuggestion.record_id == task.record_id)
        .order_by(LabelSuggestion.created_at.desc(), LabelSuggestion.source)
        .limit(1)
    ).first()
    if found is None:
        return None
    digest = hashlib.blake2b(f"{queue.seed} {task.id} {annotator_id}".encode(), digest_size=8).digest()
    is_shown = int.from_bytes(digest, "big") / 2**64 >= queue.hidden_share
    return {"value": found.value, "score": found.score, "source": found.source, "shown": is_shown}


def _served(lease: LabelAssignment, task: LabelTask) -> Served:
    suggestion = lease.suggestion
    return Served(
        lease_id=lease.id,
        task_id=lease.task_id,
        record_id=task.record_id,
        text=task.text,
        why=lease.why,
        utility=lease.utility,
        rank=lease.rank,
        generation=lease.generation,
        expires_at=lease.expires_at,
        schema_version=lease.schema_version,
        suggestion=suggestion if suggestion is not None and suggestion["shown"] else None,
    )


def _nothing(session: Session, queue: LabelQueue, annotator_id: str, now: datetime) -> NoTask:
    parameters = _parameters(queue, annotator_id, now)
    if session.execute(_servable(), parameters).first() is not None:
        return NoTask(reason="all_leased", retry_after_seconds=RETRY_SECONDS)
    expires_at = session.scalar(
        select(func.min(LabelAssignment.expires_at)).where(
            LabelAssignment.queue_id == queue.id,
            LabelAssignment.state == "leased",
            LabelAssignment.expires_at > now,
            ~_met(LabelAssignment.task_id),
        ),
        parameters,
    )
    wait = None if expires_at is None else max((expires_at - now).total_seconds(), RETRY_SECONDS)
    if queue.waiting_for_model or _num_left(session, queue.id) > 0 or session.scalar(_left_over(), parameters):
        return NoTask(reason="waiting_for_model", retry_after_seconds=min(wait or WAIT_SECONDS, WAIT_SECONDS))
    return NoTask(reason="done" if wait is None else "all_leased", retry_after_seconds=wait)


def _num_left(session: Session, queue_id: str) -> int:
    """How many records the current generation left out, as it said when it was published."""
    detail = session.scalars(
        select(LabelEvent.detail)
        .where(LabelEvent.queue_id == queue_id, LabelEvent.kind == "published")
        .order_by(LabelEvent.id.desc())
        .limit(1)
    ).first()
    return 0 if detail is None else int(detail.get("num_left", 0))
