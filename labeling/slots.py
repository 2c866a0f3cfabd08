"""Slots and leases, as every act on a queue needs them: who holds what, who may take it, and what is written down.

A task has ``overlap`` slots; a live lease or an accepted answer occupies one. Whether a slot is free is decided under
the task's row lock, and the unique constraint on ``(task, slot)`` stands behind it. Expiry is part of the question "is
this slot taken", so nothing has to clean up after an annotator who went away.

On PostgreSQL every act takes its annotator's advisory lock first and then waits for at most one task, so two acts can
never wait for each other. On SQLite the caller holds the one write transaction.
"""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from catalog.errors import DataError, GoneError, NotFoundError
from catalog.tables.labeling import Annotation, LabelAssignment, LabelEvent, LabelQueue, LabelTask

TASK_NAMESPACE = uuid.UUID("8a7a6f0e-6c54-4f0a-9d0b-6a3c1a5f7d21")
DECIDES = "adjudicator/"
"""Before a reviewer's id where a task is settled: whoever settles it may have answered it too, and both stand."""
ANSWERED = ("accepted", "skipped", "late")
"""States after which an annotator is not asked about the task again."""


def task_id_of(queue_id: str, record_id: str) -> str:
    """The task of a record in a queue: a function of both, so that making it again finds it."""
    return str(uuid.uuid5(TASK_NAMESPACE, f"{queue_id}/{record_id}"))


def open_queue(session: Session, queue_id: str, *, even_closed: bool = False) -> LabelQueue:
    """The queue as it now stands.

    Raises
    ------
    NotFoundError : no such queue.
    GoneError : it is closed.
    """
    queue = session.get(LabelQueue, queue_id, populate_existing=True)
    if queue is None:
        raise NotFoundError(f"no label queue {queue_id!r}")
    if queue.state != "open" and not even_closed:
        raise GoneError(closed_message(queue))
    return queue


def serialize_annotator(session: Session, annotator_id: str) -> None:
    """Make the acts of one annotator, from however many tabs, follow one another. SQLite's writers already do."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"label:{annotator_id}", 0))))


def lock_lease(
    session: Session, lease_id: str, annotator_id: str, *, even_closed: bool = False
) -> tuple[LabelQueue, LabelAssignment]:
    """The annotator's own lease and its queue, with the task locked and the lease as it now stands.

    Raises
    ------
    NotFoundError : no such lease, or it is another annotator's.
    GoneError : the queue is closed.
    """
    serialize_annotator(session, annotator_id)
    lease = session.get(LabelAssignment, lease_id)
    if lease is None or lease.annotator_id != annotator_id:
        raise NotFoundError(f"no lease {lease_id!r} of yours; ask for the next task")
    queue = open_queue(session, lease.queue_id, even_closed=even_closed)
    lock_task(session, lease.task_id)
    session.refresh(lease)
    return queue, lease


def lock_task(session: Session, task_id: str) -> None:
    """Wait until nobody else changes this task's slots."""
    session.execute(select(LabelTask.id).where(LabelTask.id == task_id).with_for_update(key_share=True))


def free_slot(session: Session, task_id: str, annotator_id: str, overlap: int, now: datetime) -> int | None:
    """A slot nobody lives in, a never used one first; whoever let it run out loses it. The task must be locked."""
    held = select(LabelAssignment).where(LabelAssignment.task_id == task_id, LabelAssignment.slot.is_not(None))
    holders = {row.slot: row for row in session.scalars(held, execution_options={"populate_existing": True})}
    for slot in range(overlap):
        if slot not in holders:
            return slot
    for slot in range(overlap):
        row = holders[slot]
        if row.state == "leased" and row.expires_at <= now:
            move(session, row, now, state="expired", slot=None, kind="expired", detail={"taken_by": annotator_id})
            return slot
    return None


def move(
    session: Session,
    lease: LabelAssignment,
    now: datetime,
    *,
    state: str,
    slot: int | None,
    kind: str,
    detail: dict[str, Any],
) -> None:
    """Write down what happens to a lease, then let it happen.

    Flushed at once: the database must see a slot given up before it sees it taken.
    """
    lease.event_id = record_event(
        session,
        now=now,
        queue_id=lease.queue_id,
        task_id=lease.task_id,
        annotator_id=lease.annotator_id,
        kind=kind,
        detail={"lease_id": lease.id, "state": state, "slot": slot, **detail},
    )
    lease.state, lease.slot = state, slot
    session.flush()


def retract(session: Session, lease: LabelAssignment, now: datetime, how: str) -> str | None:
    """Mark the annotator's current answer to the task, if any, as no longer counting; return its id."""
    current = session.scalars(
        select(Annotation).where(
            Annotation.task_id == lease.task_id,
            Annotation.annotator_id == lease.annotator_id,
            Annotation.retracted.is_(None),
        )
    ).first()
    if current is None:
        return None
    current.retracted, current.retracted_at = how, now
    session.flush()
    return current.id


def record_event(
    session: Session,
    *,
    now: datetime,
    queue_id: str,
    kind: str,
    detail: dict[str, Any],
    task_id: str | None = None,
    annotator_id: str | None = None,
) -> int:
    """Append to the event log; return the event's id, which rises."""
    values = {"at": now, "queue_id": queue_id, "task_id": task_id, "annotator_id": annotator_id, "kind": kind}
    with session.no_autoflush:
        statement = insert(LabelEvent).values(**values, detail=detail).returning(LabelEvent.id)
        return session.execute(statement).scalar_one()


def checked_text(name: str, value: str, *, at_least: int, at_most: int) -> str:
    """Refuse text that is too long, or that one of the databases could not hold.

    Raises
    ------
    DataError : the length is out of range, or it holds a NUL or half a surrogate pair.
    """
    if not at_least <= len(value) <= at_most:
        raise DataError(f"{name} has {len(value)} characters; it must have {at_least} to {at_most}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{name} holds half a surrogate pair, which databases refuse; remove it") from error
    if "\x00" in value:
        raise DataError(f"{name} holds a NUL, which PostgreSQL refuses; remove it")
    return value


def closed_message(queue: LabelQueue) -> str:
    """What somebody who comes too late is told."""
    return f"label queue {queue.name!r} is closed; its answers are kept, and no new ones are taken"
