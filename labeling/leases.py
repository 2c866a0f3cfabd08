"""Handing tasks out: the next one, signs of life, giving back, declining."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from catalog.database import among
from catalog.errors import ConflictError, DataError, GoneError, ServiceError
from catalog.tables.base import new_id
from catalog.tables.labeling import LabelAssignment, LabelEvent, LabelQueue, LabelTask
from labeling import gold
from labeling.mixing import random_why
from labeling.servable import (
    Offer,
    Place,
    Shown,
    left_over,
    met,
    read_offers,
    servable,
    servable_by_anybody,
    servable_locked,
)
from labeling.slots import (
    ANSWERED,
    Move,
    Slots,
    assignments_of,
    checked_text,
    expiry,
    lock_lease,
    move,
    move_all,
    open_queue,
    serialize_annotators,
)
from labeling.suggestions import newest_suggestions, suggested

WAIT_SECONDS = 2.0
"""How soon to ask again while a model is being fitted."""
RETRY_SECONDS = 0.2
"""How soon to ask again when another annotator is just now taking or answering the last free task."""
MAX_CLAIMS = 20
MAX_IN_HAND = 4
"""Leases that one annotator holds at once: the one on the screen, and those fetched ahead."""


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
    task_type: str
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Asking:
    """Somebody who asks for a task.

    Parameters
    ----------
    beside : leases that the annotator has in hand and wants another one to, so that it is there when these are
        answered; at most ``MAX_IN_HAND`` - 1.
    """

    annotator_id: str
    beside: Collection[str] = ()


def next_task(
    session: Session, *, now: datetime, queue_id: str, annotator_id: str, beside: Collection[str] = ()
) -> Served | NoTask:
    """Lease the best task of the current generation that this annotator may answer.

    An annotator who holds a live lease gets that one back, renewed: what was just undone comes before what was on the
    screen, and that before what was fetched ahead.

    Parameters
    ----------
    beside : as of ``Asking``.

    Raises
    ------
    NotFoundError : no such queue.
    GoneError : the queue is closed.
    DataError : more leases in hand than allowed.
    """
    asking = (Asking(annotator_id=annotator_id, beside=beside),)
    (found,) = next_tasks(session, now=now, queue_id=queue_id, asking=asking)
    if isinstance(found, ServiceError):
        raise found
    return found


def next_tasks(
    session: Session, *, now: datetime, queue_id: str, asking: Sequence[Asking]
) -> list[Served | NoTask | ServiceError]:
    """``next_task`` for several annotators of one queue in one transaction, in about as many statements as for one.

    Parameters
    ----------
    asking : each annotator once; who comes first chooses first.

    Returns
    -------
    For each what ``next_task`` returns, or the error that it would raise.

    Raises
    ------
    NotFoundError : no such queue.
    GoneError : the queue is closed.
    """
    queue = open_queue(session, queue_id)
    found: dict[str, Served | NoTask | ServiceError] = {}
    for one in asking:
        if len(one.beside) >= MAX_IN_HAND:
            found[one.annotator_id] = DataError(
                f"{len(one.beside)} leases in hand; at most {MAX_IN_HAND - 1} beside the one asked for"
            )
    serialize_annotators(session, {one.annotator_id for one in asking})
    for give in (_held, _known, _chosen):
        waiting = [one for one in asking if one.annotator_id not in found]
        if waiting:
            found |= give(session, queue, waiting, now)
    for one in asking:
        if one.annotator_id not in found:
            found[one.annotator_id] = _nothing(session, queue, one.annotator_id, now)
    return [found[one.annotator_id] for one in asking]


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


def _parameters(queue: LabelQueue, annotator_id: str, now: datetime) -> dict[str, Any]:
    return {"queue_id": queue.id, "generation": queue.generation, "annotator_id": annotator_id, "now": now}


def _held(session: Session, queue: LabelQueue, asking: Sequence[Asking], now: datetime) -> dict[str, Served]:
    """Live leases that are on nobody's screen, renewed; their tasks are locked, so that nobody takes them over.

    What was just undone, or given by a reviewer, the latest of it first; else the one that has been in hand longest.
    """
    urgent = case((LabelEvent.kind.in_(("undone", "reassigned")), LabelAssignment.event_id), else_=0)
    rows = session.scalars(
        select(LabelAssignment)
        .join(LabelEvent, LabelEvent.id == LabelAssignment.event_id)
        .where(
            LabelAssignment.queue_id == queue.id,
            among(session, LabelAssignment.annotator_id, [one.annotator_id for one in asking]),
            LabelAssignment.state == "leased",
            LabelAssignment.expires_at > now,
        )
        .order_by(urgent.desc(), LabelAssignment.event_id)
    )
    beside = {one.annotator_id: one.beside for one in asking}
    first: dict[str, LabelAssignment] = {}
    for lease in rows:
        if lease.id not in beside[lease.annotator_id]:
            first.setdefault(lease.annotator_id, lease)
    if not first:
        return {}
    locked = (
        select(LabelTask)
        .where(among(session, LabelTask.id, {lease.task_id for lease in first.values()}))
        .order_by(LabelTask.id)
        .with_for_update(key_share=True)
    )
    tasks = {task.id: task for task in session.scalars(locked, execution_options={"populate_existing": True})}
    again = select(LabelAssignment).where(among(session, LabelAssignment.id, [lease.id for lease in first.values()]))
    leases = session.scalars(again, execution_options={"populate_existing": True}).all()
    held = {lease.annotator_id: lease for lease in leases if lease.state == "leased"}
    for lease in held.values():
        lease.expires_at = now + timedelta(seconds=queue.lease_seconds)
        lease.schema_version = queue.schema["version"]
    session.flush()
    return {annotator_id: _served(queue, lease, _shown(tasks[lease.task_id])) for annotator_id, lease in held.items()}


def _known(session: Session, queue: LabelQueue, asking: Sequence[Asking], now: datetime) -> dict[str, Served]:
    """Tasks whose answer is known, for those who are due one."""
    if not queue.gold_every:
        return {}
    due = gold.due_tasks(session, queue, [one.annotator_id for one in asking], now)
    offers = {task.id: Offer(Place(0, 0.0, random_why(queue.strategy), "gold"), _shown(task)) for task in due.values()}
    wanted = [(annotator_id, [offers[task.id]]) for annotator_id, task in due.items()]
    return _lease(session, queue, wanted, now)


def _chosen(session: Session, queue: LabelQueue, asking: Sequence[Asking], now: datetime) -> dict[str, Served]:
    """The best tasks of the current generation."""
    if queue.generation == 0:
        return {}
    found: dict[str, Served] = {}
    if len(asking) > 1:
        # As many tasks as people: whoever finds none among the best that they may answer looks further alone.
        given = {"queue_id": queue.id, "generation": queue.generation, "now": now, "num_tasks": len(asking)}
        offers = read_offers(session, servable_by_anybody(), given)
        found = _lease(session, queue, [(one.annotator_id, offers) for one in asking], now)
    for one in asking:
        for _ in range(MAX_CLAIMS):
            if one.annotator_id in found:
                break
            offers = read_offers(session, servable_locked(), _parameters(queue, one.annotator_id, now))
            if not offers:
                break
            found |= _lease(session, queue, [(one.annotator_id, offers)], now)
    return found


def _lease(
    session: Session, queue: LabelQueue, wanted: Sequence[tuple[str, Sequence[Offer]]], now: datetime
) -> dict[str, Served]:
    """Give each annotator a slot of the first of these tasks that has one free and was not dealt with by them.

    The tasks must be locked. Annotators for whom there is none are missing in what is returned.
    """
    offered = {offer.task.id: offer.task for _, offers in wanted for offer in offers}
    if not offered:
        return {}
    assignments = assignments_of(session, offered)
    slots = {task_id: Slots(task.overlap, assignments[task_id]) for task_id, task in offered.items()}
    mine = {(row.task_id, row.annotator_id): row for rows in assignments.values() for row in rows}
    given: list[tuple[Offer, LabelAssignment, int]] = []
    expiries: list[Move] = []
    for annotator_id, offers in wanted:
        for offer in offers:
            lease = mine.get((offer.task.id, annotator_id))
            if lease is not None and (lease.state in ANSWERED or (lease.state == "leased" and lease.expires_at > now)):
                continue
            slot, expired = (None if lease is None else slots[offer.task.id].keep(lease)), None
            if slot is None:
                slot, expired = slots[offer.task.id].take(now)
            if slot is None:
                continue
            if expired is not None:
                expiries.append(expiry(expired, annotator_id))
            if lease is None:
                lease = LabelAssignment(
                    id=new_id(),
                    queue_id=queue.id,
                    task_id=offer.task.id,
                    annotator_id=annotator_id,
                    overlap=offer.task.overlap,
                )
            given.append((offer, lease, slot))
            break
    suggestions = newest_suggestions(session, queue, [offer.task for offer, _, _ in given if offer.task.is_suggested])
    moves = []
    for offer, lease, slot in given:
        lease.generation, lease.rank, lease.utility, lease.why, lease.kind = queue.generation, *offer.place
        lease.schema_version = queue.schema["version"]
        lease.suggestion = suggested(queue, offer.task, lease.annotator_id, suggestions)
        lease.expires_at = now + timedelta(seconds=queue.lease_seconds)
        detail = {"generation": queue.generation, **offer.place._asdict(), "suggestion": lease.suggestion}
        moves.append(Move(lease, "leased", slot, "served", detail))
    move_all(session, now, expiries + moves)
    return {lease.annotator_id: _served(queue, lease, offer.task) for offer, lease, _ in given}


def _shown(task: LabelTask) -> Shown:
    return Shown(task.id, task.record_id, task.text, task.overlap)


def _served(queue: LabelQueue, lease: LabelAssignment, task: Shown) -> Served:
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
        task_type=queue.schema["task"],
        suggestion=suggestion if suggestion is not None and suggestion["shown"] else None,
    )


def _nothing(session: Session, queue: LabelQueue, annotator_id: str, now: datetime) -> NoTask:
    parameters = _parameters(queue, annotator_id, now)
    if session.execute(servable(), parameters).first() is not None:
        return NoTask(reason="all_leased", retry_after_seconds=RETRY_SECONDS)
    expires_at = session.scalar(
        select(func.min(LabelAssignment.expires_at)).where(
            LabelAssignment.queue_id == queue.id,
            LabelAssignment.state == "leased",
            LabelAssignment.expires_at > now,
            ~met(LabelAssignment.task_id),
        ),
        parameters,
    )
    wait = None if expires_at is None else max((expires_at - now).total_seconds(), RETRY_SECONDS)
    if queue.waiting_for_model or _num_left(session, queue.id) > 0 or session.scalar(left_over(), parameters):
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
