"""Taking in answers that were given elsewhere: append-only like all others, once however often they are imported."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from catalog.tables.base import new_id
from catalog.tables.labeling import Annotation, LabelAssignment, LabelQueue, LabelTask
from labeling.answers import settle
from labeling.queue import QueueEntry, offer_tasks
from labeling.schema import LabelSchema
from labeling.slots import (
    checked_text,
    free_slot,
    lock_task,
    move,
    open_queue,
    record_event,
    retract,
    serialize_annotator,
)
from labeling.tasks import canonical


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """An answer from elsewhere.

    Parameters
    ----------
    annotator_id : of an account, or any name.
    value : as the queue's present schema has validated it.
    at : when it was given, None if unknown; it then counts as given now.
    late : it was kept beyond the overlap there, and is so here.
    retracted : it did not count any more there; it is kept as history.
    """

    record_id: str
    annotator_id: str
    value: Any
    at: datetime | None = None
    seconds_spent: float | None = None
    late: bool = False
    retracted: str | None = None


@dataclass(kw_only=True, slots=True)
class Taken:
    """What became of imported answers.

    Parameters
    ----------
    num_new : stored now and counting; those beyond the overlap are late ones.
    num_late : of those, beyond the overlap.
    num_history : stored, but not counting: retracted there, or the same annotator has answered later.
    num_repeated : were there already.
    """

    num_new: int = 0
    num_late: int = 0
    num_history: int = 0
    num_repeated: int = 0


def import_answers(
    session: Session,
    *,
    now: datetime,
    queue_id: str,
    answers: Sequence[Imported],
    texts: Mapping[str, str],
    source: str,
) -> Taken:
    """Store answers as if their annotators had taken the tasks and answered; what was there already stays as it is.

    An answer takes a free slot of its task, else it is late. Where its annotator has answered since, it is history.

    Parameters
    ----------
    texts : what the queue shows of each record, by record id.
    source : name of the file, for the event log and the line that says why.

    Raises
    ------
    NotFoundError : no such queue.
    GoneError : it is closed.
    DataError : an annotator's name is empty, too long, or one that databases refuse.
    """
    # The order of all locks: the queue (nobody publishes or changes the schema meanwhile), annotators, tasks. Acts of
    # annotators take one of each of the latter two, in that order, so nobody waits in a circle.
    session.execute(select(LabelQueue.id).where(LabelQueue.id == queue_id).with_for_update(key_share=True))
    queue = open_queue(session, queue_id)
    for annotator_id in sorted({one.annotator_id for one in answers}):
        serialize_annotator(session, checked_text("annotator", annotator_id, at_least=1, at_most=200))
    why = f"imported from {source}"[:2000]
    by_record: dict[str, list[Imported]] = defaultdict(list)
    for one in answers:
        by_record[one.record_id].append(one)
    entries = [QueueEntry(record_id=one, text=texts[one], utility=0.0, why=why) for one in by_record]
    task_ids = dict(zip(by_record, offer_tasks(session, queue, entries), strict=True))
    taken = Taken()
    for record_id in sorted(by_record, key=task_ids.__getitem__):
        lock_task(session, task_ids[record_id])
        for one in sorted(by_record[record_id], key=lambda given: (given.at or now, given.annotator_id)):
            _take(session, queue, task_ids[record_id], one, now, why, taken)
    queue.num_tasks = session.scalar(select(func.count()).where(LabelTask.queue_id == queue_id)) or 0
    session.flush()
    return taken


def _take(
    session: Session, queue: LabelQueue, task_id: str, one: Imported, now: datetime, why: str, taken: Taken
) -> None:
    at = min(one.at or now, now)
    earlier = session.scalars(
        select(Annotation).where(Annotation.task_id == task_id, Annotation.annotator_id == one.annotator_id)
    ).all()
    key = _key(queue.id, one)
    for stored in earlier:
        same = canonical(stored.value) == canonical(one.value) and (one.at is None or stored.created_at == at)
        if stored.key == key or same:
            taken.num_repeated += 1
            return
    lease = _assignment(session, queue, task_id, one.annotator_id, now, why)
    current = next((stored for stored in earlier if stored.retracted is None), None)
    over = one.retracted or ("superseded" if current is not None and current.created_at > at else None)
    slot = None
    if over is None:
        retract(session, lease, now, "superseded")
        if not one.late:
            slot = (
                lease.slot
                if lease.slot is not None
                else free_slot(session, task_id, lease.annotator_id, lease.overlap, now)
            )
    annotation = Annotation(
        queue_id=queue.id,
        task_id=task_id,
        annotator_id=one.annotator_id,
        lease_id=lease.id,
        value=one.value,
        key=key,
        late=slot is None if over is None else one.late,
        retracted=over,
        retracted_at=None if over is None else now,
        seconds_spent=one.seconds_spent,
        created_at=at,
    )
    session.add(annotation)
    session.flush()
    version = LabelSchema.from_json(queue.schema).version
    detail = {"annotation_id": annotation.id, "schema_version": version, "imported": why}
    if over is not None:
        record_event(
            session,
            now=now,
            queue_id=queue.id,
            task_id=task_id,
            annotator_id=one.annotator_id,
            kind="imported",
            detail={"lease_id": lease.id, **detail},
        )
        taken.num_history += 1
        return
    state, kind = ("late", "late") if slot is None else ("accepted", "submitted")
    move(session, lease, now, state=state, slot=slot, kind=kind, detail=detail)
    settle(session, queue, task_id, lease.overlap)
    taken.num_new += 1
    taken.num_late += slot is None


def _assignment(
    session: Session, queue: LabelQueue, task_id: str, annotator_id: str, now: datetime, why: str
) -> LabelAssignment:
    """The annotator's row for the task; a new one is of a task that was given back."""
    found = session.scalars(
        select(LabelAssignment).where(LabelAssignment.task_id == task_id, LabelAssignment.annotator_id == annotator_id),
        execution_options={"populate_existing": True},
    ).first()
    if found is not None:
        return found
    made = LabelAssignment(
        id=new_id(),
        queue_id=queue.id,
        task_id=task_id,
        annotator_id=annotator_id,
        overlap=queue.overlap,
        slot=None,
        state="released",
        generation=queue.generation,
        rank=0,
        utility=0.0,
        why=why,
        expires_at=now,
        event_id=0,
    )
    session.add(made)
    move(session, made, now, state="released", slot=None, kind="imported", detail={"from": why})
    return made


def _key(queue_id: str, one: Imported) -> str:
    """The same answer imported again has the same key, so the database itself keeps it from being stored twice."""
    told = [queue_id, one.record_id, one.annotator_id, one.value, one.at.isoformat() if one.at else None]
    return f"import-{hashlib.sha256(canonical(told).encode()).hexdigest()[:48]}"
