"""What reviewers do: see where annotators disagree, settle it, and give a task to somebody."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import String, cast, func, select
from sqlalchemy.orm import Session

from catalog.errors import ConflictError, NotFoundError
from catalog.tables.base import new_id
from catalog.tables.labeling import Annotation, LabelAssignment, LabelQueue, LabelTask
from labeling.results import Answer, current_answers
from labeling.schema import LabelSchema
from labeling.servable import Place
from labeling.slots import (
    ANSWERED,
    DECIDES,
    checked_text,
    free_slot,
    lock_task,
    move,
    open_queue,
    retract,
    serialize_annotator,
)
from labeling.tasks import canonical
from labeling.versions import SchemaHistory

BATCH = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class Opinion:
    """One annotator's answer to a task."""

    annotator_id: str
    value: Any
    late: bool
    seconds_spent: float | None
    created_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Disagreement:
    """A task that annotators answered differently, their answers side by side.

    Parameters
    ----------
    settled : what a reviewer decided, or None.
    """

    task_id: str
    record_id: str
    text: str
    opinions: tuple[Opinion, ...]
    settled: Opinion | None


def disagreements(
    session: Session, *, queue_id: str, after: str = "", limit: int = BATCH, settled: bool = False
) -> list[Disagreement]:
    """Tasks with more than one answer, by task id.

    Parameters
    ----------
    after : the last task id of the page before.
    settled : those that a reviewer has decided, instead of those that wait for it.

    Raises
    ------
    NotFoundError : no such queue.
    """
    queue = open_queue(session, queue_id, even_closed=True)
    ours = (Annotation.queue_id == queue_id, Annotation.retracted.is_(None))
    decided = select(Annotation.task_id).where(*ours, Annotation.origin == "adjudicator")
    differing = _differing(session, queue)
    wanted = LabelTask.id.in_(decided) if settled else LabelTask.id.in_(differing) & LabelTask.id.not_in(decided)
    tasks = session.scalars(
        select(LabelTask)
        .where(LabelTask.queue_id == queue_id, LabelTask.gold.is_(False), LabelTask.id > after, wanted)
        .order_by(LabelTask.id)
        .limit(limit)
    ).all()
    answers: dict[str, list[Answer]] = {task.id: [] for task in tasks}
    for one in current_answers(session, queue, task_ids=list(answers)):
        answers[one.task_id].append(one)
    return [_disagreement(task, sorted(answers[task.id], key=lambda one: one.annotator_id)) for task in tasks]


def _differing(session: Session, queue: LabelQueue) -> Any:
    """Tasks whose answers differ, as the present schema has them: a query, or their ids once the schema has changed."""
    if SchemaHistory.of(queue.schema).has_changed:
        said: dict[str, set[str]] = {}
        for one in current_answers(session, queue):
            if one.origin != "adjudicator":
                said.setdefault(one.task_id, set()).add(canonical(one.value))
        return [task_id for task_id, values in said.items() if len(values) > 1]
    return (
        select(Annotation.task_id)
        .where(Annotation.queue_id == queue.id, Annotation.retracted.is_(None), Annotation.origin != "adjudicator")
        .group_by(Annotation.task_id)
        .having(func.count(cast(Annotation.value, String).distinct()) > 1)
    )


def _disagreement(task: LabelTask, answers: Sequence[Answer]) -> Disagreement:
    return Disagreement(
        task_id=task.id,
        record_id=task.record_id,
        text=task.text,
        opinions=tuple(_opinion(one) for one in answers if one.origin != "adjudicator"),
        settled=next((_opinion(one) for one in answers if one.origin == "adjudicator"), None),
    )


def _opinion(one: Answer) -> Opinion:
    return Opinion(
        annotator_id=one.annotator_id.removeprefix(DECIDES),
        value=one.value,
        late=one.late,
        seconds_spent=one.seconds_spent,
        created_at=one.created_at,
    )


def adjudicate(
    session: Session, *, now: datetime, task_id: str, reviewer_id: str, value: object, key: str, note: str = ""
) -> str:
    """Settle a task: the reviewer's answer is its label, whatever the others said; return the answer's id.

    A later decision supersedes an earlier one, whoever made it. The same key sent again changes nothing. It works on a
    closed queue too.

    Raises
    ------
    NotFoundError : no such task.
    ConflictError : the key was used for another answer.
    DataError : the schema does not allow the value; the key or the note is too long.
    """
    checked_text("key", key, at_least=1, at_most=200)
    checked_text("note", note, at_least=0, at_most=2_000)
    task, queue = _task(session, task_id, even_closed=True)
    who = DECIDES + reviewer_id
    serialize_annotator(session, who)
    lock_task(session, task.id)
    answer = LabelSchema.from_json(queue.schema).validate(value, task.text)
    known = session.scalars(select(Annotation).where(Annotation.annotator_id == who, Annotation.key == key)).first()
    if known is not None:
        if known.task_id != task.id or known.value != answer:
            raise ConflictError(f"key {key!r} was already used for another answer; make a new key for every answer")
        return known.id
    for earlier in session.scalars(
        select(Annotation).where(
            Annotation.task_id == task.id, Annotation.origin == "adjudicator", Annotation.retracted.is_(None)
        )
    ):
        earlier.retracted, earlier.retracted_at = "superseded", now
    session.flush()
    lease = _assignment(session, queue, task, who, now, Place(0, 0.0, "adjudication", "assigned"))
    annotation = Annotation(
        queue_id=queue.id,
        task_id=task.id,
        annotator_id=who,
        lease_id=lease.id,
        value=answer,
        schema_version=queue.schema["version"],
        origin="adjudicator",
        key=key,
        late=True,
        created_at=now,
    )
    session.add(annotation)
    session.flush()
    # Beyond the overlap: a slot that it took would be one annotator fewer.
    detail = {"annotation_id": annotation.id, "note": note}
    move(session, lease, now, state="late", slot=None, kind="adjudicated", detail=detail)
    return annotation.id


def take_back(session: Session, *, now: datetime, queue_id: str, reviewer_id: str) -> Disagreement | None:
    """Take back the reviewer's last decision in this queue that still stands; its task waits for one again.

    The decision is marked, not removed, and one that it had superseded does not come back: whoever settles the task
    anew sees what annotators said. It works on a closed queue too.

    Returns
    -------
    the task as it waits now, or None when there is nothing left to take back.

    Raises
    ------
    NotFoundError : no such queue.
    """
    queue = open_queue(session, queue_id, even_closed=True)
    who = DECIDES + reviewer_id
    serialize_annotator(session, who)
    while True:
        lease = session.scalars(
            select(LabelAssignment)
            .join(Annotation, Annotation.lease_id == LabelAssignment.id)
            .where(
                LabelAssignment.queue_id == queue_id,
                LabelAssignment.annotator_id == who,
                LabelAssignment.state == "late",
                Annotation.retracted.is_(None),
            )
            .order_by(LabelAssignment.event_id.desc())
            .limit(1)
        ).first()
        if lease is None:
            return None
        lock_task(session, lease.task_id)
        annotation_id = retract(session, lease, now, "undone")
        if annotation_id is not None:
            break
        # Another reviewer has decided in that moment: what stands is not this one's.
    detail = {"was": "late", "annotation_id": annotation_id}
    move(session, lease, now, state="released", slot=None, kind="undone", detail=detail)
    answers = current_answers(session, queue, task_ids=[lease.task_id])
    task = session.get_one(LabelTask, lease.task_id)
    return _disagreement(task, sorted(answers, key=lambda one: one.annotator_id))


def reassign(session: Session, *, now: datetime, task_id: str, to: str, by: str) -> str:
    """Give a task to an annotator, whom it is served next; return the lease's id.

    Where every slot is taken by live leases, the one that ends first is taken from whoever holds it. The new lease runs
    out like any other: nothing waits for somebody who is absent.

    Raises
    ------
    NotFoundError : no such task. GoneError : the queue is closed.
    ConflictError : this annotator has answered or skipped it, or all its answers are there.
    """
    task, queue = _task(session, task_id)
    serialize_annotator(session, to)
    lock_task(session, task.id)
    place = Place(0, 0.0, "a reviewer asks for your answer", "assigned")
    lease = _assignment(session, queue, task, to, now, place)
    if lease.state in ANSWERED:
        raise ConflictError(f"{to!r} has {lease.state} this task already; choose somebody else, or undo it first")
    slot = lease.slot if lease.slot is not None else free_slot(session, task.id, to, task.overlap, now)
    taken_from = None
    if slot is None:
        victim = session.scalars(
            select(LabelAssignment)
            .where(LabelAssignment.task_id == task.id, LabelAssignment.state == "leased")
            .order_by(LabelAssignment.expires_at, LabelAssignment.id)
            .limit(1)
        ).first()
        if victim is None:
            raise ConflictError("all answers that this task is to have are there; adjudicate it instead")
        slot, taken_from = victim.slot, victim.annotator_id
        move(session, victim, now, state="released", slot=None, kind="reassigned", detail={"to": to, "by": by})
    lease.generation, lease.rank, lease.utility, lease.why, lease.kind = queue.generation, *place
    lease.expires_at = now + timedelta(seconds=queue.lease_seconds)
    detail = {"by": by, "from": taken_from, "generation": queue.generation, **place._asdict()}
    move(session, lease, now, state="leased", slot=slot, kind="reassigned", detail=detail)
    return lease.id


def _task(session: Session, task_id: str, *, even_closed: bool = False) -> tuple[LabelTask, LabelQueue]:
    task = session.get(LabelTask, task_id)
    if task is None:
        raise NotFoundError(f"no task {task_id[:40]!r}; a queue's tasks are those that it has offered")
    return task, open_queue(session, task.queue_id, even_closed=even_closed)


def _assignment(
    session: Session, queue: LabelQueue, task: LabelTask, who: str, now: datetime, place: Place
) -> LabelAssignment:
    """What this person has to do with the task; made if there is nothing yet."""
    lease = session.scalars(
        select(LabelAssignment).where(LabelAssignment.task_id == task.id, LabelAssignment.annotator_id == who),
        execution_options={"populate_existing": True},
    ).first()
    if lease is not None:
        return lease
    lease = LabelAssignment(
        id=new_id(),
        queue_id=queue.id,
        task_id=task.id,
        annotator_id=who,
        overlap=task.overlap,
        state="released",
        slot=None,
        generation=queue.generation,
        rank=place.rank,
        utility=place.utility,
        why=place.why,
        kind=place.kind,
        schema_version=queue.schema["version"],
        expires_at=now,
        event_id=0,
    )
    session.add(lease)
    session.flush()
    return lease
