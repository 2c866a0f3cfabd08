"""Taking in answers that were given elsewhere: append-only like all others, once however often they are imported."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from catalog.tables.base import new_id
from catalog.tables.labeling import Annotation, LabelAssignment, LabelEntry, LabelEvent, LabelQueue, LabelTask
from labeling.answers import settle
from labeling.queue import QueueEntry, offer_tasks
from labeling.slots import (
    checked_text,
    free_slot,
    move,
    open_queue,
    record_event,
    retract,
    serialize_annotator,
)
from labeling.tasks import canonical
from labeling.versions import SchemaHistory


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
    locked = select(LabelTask.id).where(LabelTask.id.in_(task_ids.values())).order_by(LabelTask.id)
    session.execute(locked.with_for_update(key_share=True))
    begun = set(
        session.scalars(
            select(LabelAssignment.task_id).where(LabelAssignment.task_id.in_(task_ids.values())).distinct()
        )
    )
    # Tasks that are known have slots of their own number.
    special = begun | set(
        session.scalars(select(LabelTask.id).where(LabelTask.id.in_(task_ids.values()), LabelTask.gold.is_(True)))
    )
    taken = Taken()
    fresh: list[tuple[str, Imported]] = []
    for record_id, given in by_record.items():
        ordered = sorted(given, key=lambda one: (one.at or now, one.annotator_id))
        once = len({one.annotator_id for one in given}) == len(given) and not any(one.retracted for one in given)
        if task_ids[record_id] not in special and once:
            fresh += [(task_ids[record_id], one) for one in ordered]
            continue
        for one in ordered:
            _take(session, queue, task_ids[record_id], one, now, why, taken)
    _take_fresh(session, queue, fresh, now, why, taken)
    offered = select(func.count()).where(LabelTask.queue_id == queue_id, LabelTask.gold.is_(False))
    queue.num_tasks = session.scalar(offered) or 0
    session.flush()
    return taken


def _take_fresh(
    session: Session, queue: LabelQueue, answers: list[tuple[str, Imported]], now: datetime, why: str, taken: Taken
) -> None:
    """Answers to tasks that nobody has dealt with, one an annotator: nothing has to be looked up, so all at once."""
    if not answers:
        return
    version = SchemaHistory.of(queue.schema).present.version
    used: Counter[str] = Counter()
    events, assignments, annotations = [], [], []
    for task_id, one in answers:
        is_late = one.late or used[task_id] >= queue.overlap
        lease_id, annotation_id = new_id(), new_id()
        held = {"state": "late", "slot": None} if is_late else {"state": "accepted", "slot": used[task_id]}
        place = {"generation": queue.generation, "rank": 0, "why": why}
        detail = {"lease_id": lease_id, **held, **place, "annotation_id": annotation_id, "imported": why}
        events.append(
            {
                "at": now,
                "queue_id": queue.id,
                "task_id": task_id,
                "annotator_id": one.annotator_id,
                "kind": "late" if is_late else "submitted",
                "detail": detail,
            }
        )
        assignments.append(_assignment_row(queue, task_id, one.annotator_id, now, why) | {"id": lease_id} | held)
        annotations.append(
            {
                "id": annotation_id,
                "queue_id": queue.id,
                "task_id": task_id,
                "annotator_id": one.annotator_id,
                "lease_id": lease_id,
                "value": one.value,
                "schema_version": version,
                "origin": "import",
                "key": _key(queue.id, one),
                "late": is_late,
                "seconds_spent": one.seconds_spent,
                "created_at": min(one.at or now, now),
            }
        )
        used[task_id] += not is_late
        taken.num_late += is_late
    ids = session.scalars(insert(LabelEvent).returning(LabelEvent.id, sort_by_parameter_order=True), events).all()
    for row, event_id in zip(assignments, ids, strict=True):
        row["event_id"] = event_id
    session.execute(insert(LabelAssignment), assignments)
    session.execute(insert(Annotation), annotations)
    full = [task_id for task_id, count in used.items() if count == queue.overlap]
    session.execute(update(LabelTask).where(LabelTask.id.in_(full)).values(done=True))
    ours = (LabelEntry.queue_id == queue.id, LabelEntry.generation == queue.generation, LabelEntry.task_id.in_(full))
    session.execute(update(LabelEntry).where(*ours).values(done=True))
    taken.num_new += len(answers)


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
    lease, is_new = _assignment(session, queue, task_id, one.annotator_id, now, why)
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
    version = SchemaHistory.of(queue.schema).present.version
    annotation = Annotation(
        queue_id=queue.id,
        task_id=task_id,
        annotator_id=one.annotator_id,
        lease_id=lease.id,
        value=one.value,
        schema_version=version,
        origin="import",
        key=key,
        late=slot is None if over is None else one.late,
        retracted=over,
        retracted_at=None if over is None else now,
        seconds_spent=one.seconds_spent,
        created_at=at,
    )
    session.add(annotation)
    session.flush()
    place = {"generation": queue.generation, "rank": 0, "why": why} if is_new else {}
    detail = {**place, "annotation_id": annotation.id, "imported": why}
    if over is not None:
        event_id = record_event(
            session,
            now=now,
            queue_id=queue.id,
            task_id=task_id,
            annotator_id=one.annotator_id,
            kind="imported",
            detail={"lease_id": lease.id, **({"state": lease.state, "slot": lease.slot} if is_new else {}), **detail},
        )
        if is_new:
            lease.event_id = event_id
            session.flush()
        taken.num_history += 1
        return
    state, kind = ("late", "late") if slot is None else ("accepted", "submitted")
    move(session, lease, now, state=state, slot=slot, kind=kind, detail=detail)
    settle(session, queue, (task_id,))
    taken.num_new += 1
    taken.num_late += slot is None


def _assignment(
    session: Session, queue: LabelQueue, task_id: str, annotator_id: str, now: datetime, why: str
) -> tuple[LabelAssignment, bool]:
    """The annotator's row for the task, and whether it is new: then as of a task that was given back."""
    found = session.scalars(
        select(LabelAssignment).where(LabelAssignment.task_id == task_id, LabelAssignment.annotator_id == annotator_id),
        execution_options={"populate_existing": True},
    ).first()
    if found is not None:
        return found, False
    overlap = session.get_one(LabelTask, task_id).overlap
    made = LabelAssignment(**_assignment_row(queue, task_id, annotator_id, now, why) | {"overlap": overlap})
    session.add(made)
    session.flush()
    return made, True


def _assignment_row(queue: LabelQueue, task_id: str, annotator_id: str, now: datetime, why: str) -> dict[str, Any]:
    return {
        "id": new_id(),
        "queue_id": queue.id,
        "task_id": task_id,
        "annotator_id": annotator_id,
        "overlap": queue.overlap,
        "slot": None,
        "state": "released",
        "generation": queue.generation,
        "rank": 0,
        "utility": 0.0,
        "why": why,
        "expires_at": now,
        "event_id": 0,
    }


def _key(queue_id: str, one: Imported) -> str:
    """The same answer imported again has the same key, so the database itself keeps it from being stored twice."""
    told = [queue_id, one.record_id, one.annotator_id, one.value, one.at.isoformat() if one.at else None]
    return f"import-{hashlib.sha256(canonical(told).encode()).hexdigest()[:48]}"
