"""Taking answers in, exactly once, and taking them back."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, func, insert, or_, select, update
from sqlalchemy.orm import Session

from catalog.database import among
from catalog.errors import ConflictError, DataError, GoneError, NotFoundError, ServiceError
from catalog.faults import fault
from catalog.tables.base import new_id
from catalog.tables.labeling import Annotation, LabelAssignment, LabelEntry, LabelQueue, LabelTask
from labeling.gold_scores import Judged, judge
from labeling.slots import (
    ANSWERED,
    Move,
    Slots,
    TaskState,
    assignments_of,
    checked_text,
    closed_message,
    expiry,
    free_slot,
    lock_task,
    lock_tasks_of,
    move,
    move_all,
    no_lease,
    open_queue,
    retract,
    serialize_annotator,
    serialize_annotators,
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
    queue_id: str
    late: bool
    repeated: bool
    judged: Judged | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """An answer as it arrives.

    Parameters
    ----------
    value : checked against the queue's schema, by the task's text where the task type needs it.
    key : made by the client, once an answer; sending it again is safe.
    seconds_spent : how long the annotator looked at the task, if known.
    schema_version : of the schema that the annotator saw; by default the one by which the task was last served. An
        answer by an earlier schema is kept as it was given, and seen through the versions since.
    """

    lease_id: str
    annotator_id: str
    value: object
    key: str
    seconds_spent: float | None = None
    schema_version: int | None = None


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
    value, key, seconds_spent, schema_version : as of ``Given``.

    Raises
    ------
    NotFoundError : no such lease, or it is another annotator's.
    ConflictError : the key was used for another answer, or the schema has changed so that this is no answer any more.
    DataError : the schema does not allow the value; the key or the seconds are out of range.
    GoneError : the queue is closed (an answer that had arrived before is still confirmed).
    """
    given = Given(
        lease_id=lease_id,
        annotator_id=annotator_id,
        value=value,
        key=key,
        seconds_spent=seconds_spent,
        schema_version=schema_version,
    )
    (stored,) = submit_all(session, now=now, answers=(given,))
    if isinstance(stored, ServiceError):
        raise stored
    return stored


def submit_all(session: Session, *, now: datetime, answers: Sequence[Given]) -> list[Submitted | ServiceError]:
    """``submit`` for several annotators in one transaction, in about as many statements as for one.

    Parameters
    ----------
    answers : one of each annotator at most.

    Returns
    -------
    For each what ``submit`` returns, or the error that it would raise: then nothing of it is stored.
    """
    serialize_annotators(session, {one.annotator_id for one in answers})
    # What no database could look for is not looked for.
    batch = _Batch.of(session, [one for one in answers if _refused(one) is None], now)
    found: list[Submitted | ServiceError | _Accepted] = []
    for one in answers:
        try:
            found.append(_refused(one) or batch.decide(one))
        except ServiceError as error:
            found.append(error)
    accepted = [one for one in found if isinstance(one, _Accepted)]
    if accepted:
        batch.store(accepted)
        fault("annotation.before_commit")
    return [batch.submitted(one) if isinstance(one, _Accepted) else one for one in found]


def _refused(given: Given) -> ServiceError | None:
    try:
        checked_text("key", given.key, at_least=1, at_most=200)
    except ServiceError as error:
        return error
    if given.seconds_spent is not None and not 0 <= given.seconds_spent < 1e9:
        return DataError(f"seconds_spent={given.seconds_spent} must lie in [0, 1e9); leave it out if unknown")
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Accepted:
    """An answer that will be stored."""

    given: Given
    lease: LabelAssignment
    annotation_id: str
    answer: Any
    version: int
    slot: int | None
    expired: LabelAssignment | None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Batch:
    """What the database says of the tasks that are answered together, while these are locked."""

    session: Session
    now: datetime
    tasks: dict[str, TaskState]
    leases: dict[str, LabelAssignment]
    queues: dict[str, LabelQueue]
    histories: dict[str, SchemaHistory]
    texts: dict[str, str]
    by_key: dict[tuple[str, str], Annotation]
    current: dict[tuple[str, str], Annotation]
    slots: dict[str, Slots]

    @classmethod
    def of(cls, session: Session, answers: Sequence[Given], now: datetime) -> "_Batch":
        fresh = {"populate_existing": True}
        lease_ids = {one.lease_id for one in answers}
        who = {one.annotator_id for one in answers}
        tasks = lock_tasks_of(session, lease_ids)
        rows = session.execute(
            select(LabelAssignment, LabelQueue)
            .join(LabelQueue, LabelQueue.id == LabelAssignment.queue_id)
            .where(among(session, LabelAssignment.id, lease_ids)),
            execution_options=fresh,
        ).all()
        leases: dict[str, LabelAssignment] = {row[0].id: row[0] for row in rows}
        queues: dict[str, LabelQueue] = {row[1].id: row[1] for row in rows}
        histories = {queue.id: SchemaHistory.of(queue.schema) for queue in queues.values()}
        # Where the text says nothing about the answer it is not read: it may be long.
        reads = {queue_id for queue_id, one in histories.items() if any(kind.kind.reads_text for kind in one.schemas)}
        read = {lease.task_id for lease in leases.values() if lease.queue_id in reads}
        texts = (
            session.execute(select(LabelTask.id, LabelTask.text).where(among(session, LabelTask.id, read)))
            if read
            else ()
        )
        theirs = among(session, Annotation.annotator_id, who)
        same_key = and_(theirs, among(session, Annotation.key, {one.key for one in answers}))
        current = and_(theirs, among(session, Annotation.task_id, tasks), Annotation.retracted.is_(None))
        earlier = session.scalars(select(Annotation).where(or_(same_key, current)), execution_options=fresh).all()
        homeless = {lease.task_id for lease in leases.values() if lease.slot is None}
        assignments = assignments_of(session, homeless) if homeless else {}
        return cls(
            session=session,
            now=now,
            tasks=tasks,
            leases=leases,
            queues=queues,
            histories=histories,
            texts={row[0]: row[1] for row in texts},
            by_key={(one.annotator_id, one.key): one for one in earlier},
            current={(one.task_id, one.annotator_id): one for one in earlier if one.retracted is None},
            slots={task_id: Slots(tasks[task_id].overlap, rows) for task_id, rows in assignments.items()},
        )

    def decide(self, given: Given) -> Submitted | _Accepted:
        """What becomes of an answer; nothing is changed yet."""
        lease = self.leases.get(given.lease_id)
        if lease is None or lease.annotator_id != given.annotator_id:
            raise NotFoundError(no_lease(given.lease_id))
        queue, history = self.queues[lease.queue_id], self.histories[lease.queue_id]
        text = self.texts.get(lease.task_id, "")
        stored = self.by_key.get((given.annotator_id, given.key))
        if stored is not None:
            if stored.lease_id != lease.id or not _is_same(history, stored.value, given.value, text):
                raise ConflictError(
                    f"key {given.key!r} was already used for another answer; make a new key for every answer"
                )
            return Submitted(annotation_id=stored.id, queue_id=queue.id, late=stored.late, repeated=True)
        if queue.state != "open":
            raise GoneError(closed_message(queue))
        asked = history.under(lease.schema_version if given.schema_version is None else given.schema_version)
        answer = asked.validate(given.value, text)
        seen = history.seen(answer, asked.version, text)
        if seen.state == "invalid":
            raise ConflictError(f"the label schema changed while this was being answered: {seen.reason}; answer again")
        slot, expired = lease.slot, None
        if lease.task_id in self.slots:
            # Somebody before this one may have taken the slot.
            slot = self.slots[lease.task_id].keep(lease)
            if slot is None:
                slot, expired = self.slots[lease.task_id].take(self.now)
        return _Accepted(
            given=given,
            lease=lease,
            annotation_id=new_id(),
            answer=answer,
            version=asked.version,
            slot=slot,
            expired=expired,
        )

    def store(self, accepted: Sequence[_Accepted]) -> None:
        """Write down what was decided."""
        for one in accepted:
            current = self.current.get((one.lease.task_id, one.lease.annotator_id))
            if current is not None:
                current.retracted, current.retracted_at = "superseded", self.now
        self.session.flush()
        rows = [
            {
                "id": one.annotation_id,
                "queue_id": one.lease.queue_id,
                "task_id": one.lease.task_id,
                "annotator_id": one.lease.annotator_id,
                "lease_id": one.lease.id,
                "value": one.answer,
                "schema_version": one.version,
                "origin": "annotator",
                "key": one.given.key,
                "late": one.slot is None,
                "seconds_spent": one.given.seconds_spent,
                "created_at": self.now,
            }
            for one in accepted
        ]
        self.session.execute(insert(Annotation), rows)
        expiries = [expiry(one.expired, one.lease.annotator_id) for one in accepted if one.expired is not None]
        moves = [
            Move(
                one.lease,
                "late" if one.slot is None else "accepted",
                one.slot,
                "late" if one.slot is None else "submitted",
                {"annotation_id": one.annotation_id},
            )
            for one in accepted
        ]
        move_all(self.session, self.now, expiries + moves)
        for queue in self.queues.values():
            task_ids = {one.lease.task_id for one in accepted if one.lease.queue_id == queue.id}
            settle(self.session, queue, task_ids)

    def submitted(self, one: _Accepted) -> Submitted:
        """What whoever answered is told."""
        judged = None
        if one.lease.kind == "gold":
            record_id = self.tasks[one.lease.task_id].record_id
            judged = judge(self.session, queue_id=one.lease.queue_id, record_id=record_id, value=one.answer)
        return Submitted(
            annotation_id=one.annotation_id,
            queue_id=one.lease.queue_id,
            late=one.slot is None,
            repeated=False,
            judged=judged,
        )


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
    settle(session, queue, (lease.task_id,))
    return lease.task_id


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


def settle(session: Session, queue: LabelQueue, task_ids: Collection[str]) -> None:
    """Bring ``done`` of tasks in line with their accepted answers, and their entries with it. All must be locked."""
    accepted = (
        select(func.count())
        .where(LabelAssignment.task_id == LabelTask.id, LabelAssignment.state == "accepted")
        .correlate(LabelTask)
        .scalar_subquery()
    )
    changed = session.execute(
        update(LabelTask)
        .where(among(session, LabelTask.id, task_ids), LabelTask.done != (accepted == LabelTask.overlap))
        .values(done=~LabelTask.done)
        .returning(LabelTask.id, LabelTask.done),
        execution_options={"synchronize_session": False},
    ).all()
    for done in (True, False):
        turned = [row.id for row in changed if row.done == done]
        if turned:
            session.execute(
                update(LabelEntry)
                .where(
                    LabelEntry.queue_id == queue.id,
                    LabelEntry.generation == queue.generation,
                    among(session, LabelEntry.task_id, turned),
                )
                .values(done=done),
                execution_options={"synchronize_session": False},
            )
