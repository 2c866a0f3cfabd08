"""Taking answers in, exactly once, and taking them back."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from catalog.errors import ConflictError, DataError, GoneError
from catalog.faults import fault
from catalog.tables.labeling import Annotation, LabelAssignment, LabelEntry, LabelQueue, LabelTask
from labeling import gold
from labeling.slots import (
    ANSWERED,
    checked_text,
    closed_message,
    free_slot,
    lock_lease,
    lock_task,
    move,
    open_queue,
    retract,
    serialize_annotator,
)
from labeling.tasks import canonical
from labeling.versions import SchemaHistory


@dataclass(frozen=True, kw_only=True, slots=True)
class Submitted:
    """What became of an answer.

    Parameters
    ----------
    late : every slot had gone to others; the answer is kept beyond the overlap.
    repeated : the same answer had arrived before under the same key.
    judged : the answer beside the known one, where the task's answer was known.
    """

    annotation_id: str
    late: bool
    repeated: bool
    judged: gold.Judged | None = None


def submit(
    session: Session,
    *,
    now: datetime,
    lease_id: str,
    annotator_id: str,
    value: object,
    key: str,
    seconds_spent: float | None = None,
    schema_version: int | None = None,
) -> Submitted:
    """Store an answer exactly once.

    An answer to a lease that is over takes a free slot if the task has one, else it is kept and marked late. A second
    answer of the same annotator to the same task under a new key supersedes the first.

    Parameters
    ----------
    value : checked against the queue's schema, by the task's text where the task type needs it.
    key : made by the client, once an answer; sending it again is safe.
    seconds_spent : how long the annotator looked at the task, if known.
    schema_version : of the schema that the annotator saw; by default the one by which the task was last served. An
        answer by an earlier schema is kept as it was given, and seen through the versions since.

    Raises
    ------
    NotFoundError : no such lease, or it is another annotator's.
    ConflictError : the key was used for another answer, or the schema has changed so that this is no answer any more.
    DataError : the schema does not allow the value; the key or the seconds are out of range.
    GoneError : the queue is closed (an answer that had arrived before is still confirmed).
    """
    checked_text("key", key, at_least=1, at_most=200)
    if seconds_spent is not None and not 0 <= seconds_spent < 1e9:
        raise DataError(f"seconds_spent={seconds_spent} must lie in [0, 1e9); leave it out if unknown")
    queue, lease = lock_lease(session, lease_id, annotator_id, even_closed=True)
    history = SchemaHistory.of(queue.schema)
    # Where the text says nothing about the answer it is not read: it may be long.
    reads_text = any(one.kind.reads_text for one in history.schemas)
    text = session.get_one(LabelTask, lease.task_id).text if reads_text else ""
    stored = _stored_answer(session, history, lease, value, text, key)
    if stored is not None:
        return Submitted(annotation_id=stored.id, late=stored.late, repeated=True)
    if queue.state != "open":
        raise GoneError(closed_message(queue))
    asked = history.under(lease.schema_version if schema_version is None else schema_version)
    answer = asked.validate(value, text)
    seen = history.seen(answer, asked.version, text)
    if seen.state == "invalid":
        raise ConflictError(f"the label schema changed while this was being answered: {seen.reason}; answer again")
    retract(session, lease, now, "superseded")
    slot = lease.slot if lease.slot is not None else free_slot(session, lease.task_id, annotator_id, lease.overlap, now)
    late = slot is None
    annotation = Annotation(
        queue_id=queue.id,
        task_id=lease.task_id,
        annotator_id=annotator_id,
        lease_id=lease.id,
        value=answer,
        schema_version=asked.version,
        key=key,
        late=late,
        seconds_spent=seconds_spent,
        created_at=now,
    )
    session.add(annotation)
    session.flush()
    state, kind = ("late", "late") if late else ("accepted", "submitted")
    detail = {"annotation_id": annotation.id}
    move(session, lease, now, state=state, slot=slot, kind=kind, detail=detail)
    settle(session, queue, lease.task_id, lease.overlap)
    fault("annotation.before_commit")
    judged = None
    if lease.kind == "gold":
        record_id = session.get_one(LabelTask, lease.task_id).record_id
        judged = gold.judge(session, queue_id=queue.id, record_id=record_id, value=answer)
    return Submitted(annotation_id=annotation.id, late=late, repeated=False, judged=judged)


def undo(session: Session, *, now: datetime, queue_id: str, annotator_id: str) -> str | None:
    """Take back the annotator's last answer or skip in this queue; the task comes back to that annotator.

    The answer is marked, not removed. After a late answer or a skip whose slots have all gone to others, the task only
    becomes askable again.

    Returns
    -------
    The task's id, or None when there is nothing left to undo.

    Raises
    ------
    NotFoundError : no such queue.
    GoneError : the queue is closed.
    """
    queue = open_queue(session, queue_id)
    serialize_annotator(session, annotator_id)
    lease = session.scalars(
        select(LabelAssignment)
        .where(
            LabelAssignment.queue_id == queue_id,
            LabelAssignment.annotator_id == annotator_id,
            LabelAssignment.state.in_(ANSWERED),
        )
        .order_by(LabelAssignment.event_id.desc())
        .limit(1)
    ).first()
    if lease is None:
        return None
    lock_task(session, lease.task_id)
    session.refresh(lease)
    was = lease.state
    annotation_id = retract(session, lease, now, "undone")
    slot = lease.slot if lease.slot is not None else free_slot(session, lease.task_id, annotator_id, lease.overlap, now)
    lease.expires_at = now + timedelta(seconds=queue.lease_seconds)
    detail = {"was": was, "annotation_id": annotation_id}
    move(session, lease, now, state="released" if slot is None else "leased", slot=slot, kind="undone", detail=detail)
    settle(session, queue, lease.task_id, lease.overlap)
    return lease.task_id


def _stored_answer(
    session: Session, history: SchemaHistory, lease: LabelAssignment, value: object, text: str, key: str
) -> Annotation | None:
    stored = session.scalars(
        select(Annotation).where(Annotation.annotator_id == lease.annotator_id, Annotation.key == key)
    ).first()
    if stored is None:
        return None
    if stored.lease_id != lease.id or not _is_same(history, stored.value, value, text):
        raise ConflictError(f"key {key!r} was already used for another answer; make a new key for every answer")
    return stored


def _is_same(history: SchemaHistory, stored: Any, value: object, text: str) -> bool:
    """Whether a value is the stored answer, under whichever schema it was given: a retry must outlive a new schema."""
    for schema in reversed(history.schemas):
        try:
            if canonical(schema.validate(value, text)) == canonical(stored):
                return True
        except DataError:
            if len(history.schemas) == 1:
                raise
    return False


def settle(session: Session, queue: LabelQueue, task_id: str, overlap: int) -> None:
    """Bring the task's ``done`` in line with its accepted answers, and its entry with it."""
    accepted = session.scalar(
        select(func.count()).where(LabelAssignment.task_id == task_id, LabelAssignment.state == "accepted")
    )
    done = accepted == overlap
    changed = session.execute(
        update(LabelTask)
        .where(LabelTask.id == task_id, LabelTask.done.is_not(done))
        .values(done=done)
        .returning(LabelTask.id),
        execution_options={"synchronize_session": False},
    ).first()
    if changed is None:
        return
    session.execute(
        update(LabelEntry)
        .where(
            LabelEntry.queue_id == queue.id,
            LabelEntry.generation == queue.generation,
            LabelEntry.task_id == task_id,
        )
        .values(done=done),
        execution_options={"synchronize_session": False},
    )
