"""Slots and leases, as every act on a queue needs them: who holds what, who may take it, and what is written down.

A task has ``overlap`` slots; a live lease or an accepted answer occupies one. Whether a slot is free is decided under
the task's row lock, and the unique constraint on ``(task, slot)`` stands behind it. Expiry is part of the question "is
this slot taken", so nothing has to clean up after an annotator who went away.

On PostgreSQL every act takes its annotator's advisory lock first and then waits for at most one task. Acts that are
done together take all their annotators first and then all their tasks, each in the order of their ids: so no two
transactions can wait for each other. On SQLite the caller holds the one write transaction.
"""

import uuid
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import TextClause, insert, select, text
from sqlalchemy.orm import Session

from catalog.database import among
from catalog.errors import DataError, GoneError, NotFoundError
from catalog.tables.labeling import Annotation, LabelAssignment, LabelEvent, LabelQueue, LabelTask

TASK_NAMESPACE = uuid.UUID("8a7a6f0e-6c54-4f0a-9d0b-6a3c1a5f7d21")
DECIDES = "adjudicator/"
"""Before a reviewer's id where a task is settled: whoever settles it may have answered it too, and both stand."""
ANSWERED = ("accepted", "skipped", "late")
"""States after which an annotator is not asked about the task again."""
_ONE_AT_A_TIME: TextClause = text(
    "SELECT count(pg_advisory_xact_lock(hashtextextended('label:' || who, 0))) FROM unnest(CAST(:who AS text[])) AS who"
)


class TaskState(NamedTuple):
    """A task as it stands while it is locked."""

    id: str
    record_id: str
    overlap: int
    done: bool


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
    serialize_annotators(session, (annotator_id,))


def serialize_annotators(session: Session, annotator_ids: Collection[str]) -> None:
    """The same of several, who act in one transaction."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(_ONE_AT_A_TIME, {"who": sorted(annotator_ids)})


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
        raise NotFoundError(no_lease(lease_id))
    queue = open_queue(session, lease.queue_id, even_closed=even_closed)
    lock_task(session, lease.task_id)
    session.refresh(lease)
    return queue, lease


def lock_task(session: Session, task_id: str) -> None:
    """Wait until nobody else changes this task's slots."""
    session.execute(select(LabelTask.id).where(LabelTask.id == task_id).with_for_update(key_share=True))


def lock_tasks_of(session: Session, lease_ids: Collection[str]) -> dict[str, TaskState]:
    """Wait until nobody else changes the slots of these leases' tasks; the tasks by id."""
    theirs = select(LabelAssignment.task_id).where(among(session, LabelAssignment.id, lease_ids))
    columns = (LabelTask.id, LabelTask.record_id, LabelTask.overlap, LabelTask.done)
    locked = select(*columns).where(LabelTask.id.in_(theirs)).order_by(LabelTask.id).with_for_update(key_share=True)
    return {row.id: TaskState(*row) for row in session.execute(locked)}


def assignments_of(session: Session, task_ids: Collection[str]) -> dict[str, list[LabelAssignment]]:
    """Everything that anybody has or had to do with these tasks. What it says of slots holds while they are locked."""
    found: dict[str, list[LabelAssignment]] = {task_id: [] for task_id in task_ids}
    rows = select(LabelAssignment).where(among(session, LabelAssignment.task_id, task_ids))
    for row in session.scalars(rows, execution_options={"populate_existing": True}):
        found[row.task_id].append(row)
    return found


def free_slot(session: Session, task_id: str, annotator_id: str, overlap: int, now: datetime) -> int | None:
    """A slot nobody lives in, a never used one first; whoever let it run out loses it. The task must be locked."""
    held = select(LabelAssignment).where(LabelAssignment.task_id == task_id, LabelAssignment.slot.is_not(None))
    slots = Slots(overlap, session.scalars(held, execution_options={"populate_existing": True}))
    slot, expired = slots.take(now)
    if expired is not None:
        move_all(session, now, [expiry(expired, annotator_id)])
    return slot


class Slots:
    """A locked task's slots, and who lives in them, through the acts of one transaction."""

    def __init__(self, overlap: int, assignments: Iterable[LabelAssignment]) -> None:
        self._overlap = overlap
        self._holders: dict[int, LabelAssignment | None] = {
            row.slot: row for row in assignments if row.slot is not None
        }

    def take(self, now: datetime) -> tuple[int | None, LabelAssignment | None]:
        """A slot nobody lives in, and who has let it run out and loses it now, if somebody has.

        A slot that was never used comes first. (None, None) where all are taken.
        """
        for slot in range(self._overlap):
            if slot not in self._holders:
                self._holders[slot] = None
                return slot, None
        for slot in range(self._overlap):
            row = self._holders[slot]
            if row is not None and row.state == "leased" and row.expires_at <= now:
                self._holders[slot] = None
                return slot, row
        return None, None

    def keep(self, lease: LabelAssignment) -> int | None:
        """The slot that a lease still holds, however long ago it ran out; from now on nobody takes it over."""
        if lease.slot is None or self._holders[lease.slot] is not lease:
            return None
        self._holders[lease.slot] = None
        return lease.slot


class Move(NamedTuple):
    """What happens to a lease."""

    lease: LabelAssignment
    state: str
    slot: int | None
    kind: str
    detail: dict[str, Any]


def expiry(lease: LabelAssignment, taken_by: str) -> Move:
    """A lease that ran out loses its slot to somebody."""
    return Move(lease, "expired", None, "expired", {"taken_by": taken_by})


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
    move_all(session, now, [Move(lease, state, slot, kind, detail)])


def move_all(session: Session, now: datetime, moves: Sequence[Move]) -> None:
    """The same of several leases, in this order. Whoever gives a slot up comes before whoever takes it."""
    rows = [
        {
            "at": now,
            "queue_id": one.lease.queue_id,
            "task_id": one.lease.task_id,
            "annotator_id": one.lease.annotator_id,
            "kind": one.kind,
            "detail": {"lease_id": one.lease.id, "state": one.state, "slot": one.slot, **one.detail},
        }
        for one in moves
    ]
    with session.no_autoflush:
        statement = insert(LabelEvent).returning(LabelEvent.id, sort_by_parameter_order=True)
        ids = session.scalars(statement, rows).all() if rows else []
        given_up = False
        for one, event_id in zip(moves, ids, strict=True):
            if given_up and one.slot is not None:
                session.flush()
                given_up = False
            given_up = given_up or one.slot is None
            one.lease.event_id, one.lease.state, one.lease.slot = event_id, one.state, one.slot
            session.add(one.lease)
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


def no_lease(lease_id: str) -> str:
    """What somebody is told who has no lease of this id."""
    return f"no lease {lease_id!r} of yours; ask for the next task"


def closed_message(queue: LabelQueue) -> str:
    """What somebody who comes too late is told."""
    return f"label queue {queue.name!r} is closed; its answers are kept, and no new ones are taken"
