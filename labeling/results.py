"""What a queue has collected: progress, the labels as they now stand, and a record's label history."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import case, func, literal, select
from sqlalchemy.orm import Session

from catalog.tables.labeling import Annotation, LabelAssignment, LabelGold, LabelQueue, LabelTask
from labeling.slots import open_queue
from labeling.tasks import canonical
from labeling.versions import SchemaHistory

NUM_HOURS = 24


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a queue is.

    Parameters
    ----------
    num_tasks : records that a generation ever offered.
    num_done : tasks answered by as many annotators as the overlap asks for.
    num_leased : live leases.
    num_skipped : pairs of task and annotator that stand skipped.
    num_annotations : answers that count, late ones included.
    annotators : of those, how many by whom.
    labels : how often what was said: an answer with several labels or spans counts once for each, one with none as
        ``(none)``, a written one as ``(text)``.
    """

    num_tasks: int
    num_done: int
    num_leased: int
    num_skipped: int
    num_annotations: int
    annotators: dict[str, int]
    labels: dict[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class CurrentLabel:
    """A record's label as it now stands.

    Parameters
    ----------
    value : the majority's answer, whole: two spans that differ in one character are two answers. Among equals the
        lexicographically smallest.
    num_votes : answers behind the decision.
    agreement : share of them that gave this value, in (0, 1].
    is_settled : a reviewer decided it, or it is known: no vote counts.
    """

    record_id: str
    value: Any
    num_votes: int
    agreement: float
    is_settled: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelHistory:
    """One answer in a record's history, whether or not it still counts."""

    annotation_id: str
    queue: str
    annotator_id: str
    value: Any
    late: bool
    retracted: str | None
    seconds_spent: float | None
    why: str
    created_at: datetime


def progress(session: Session, *, now: datetime, queue_id: str) -> Progress:
    """Count what is done and under way; works on closed queues too.

    Raises
    ------
    NotFoundError : no such queue.
    """
    queue = open_queue(session, queue_id, even_closed=True)
    ours = (LabelAssignment.queue_id == queue_id,)
    leased = select(func.count()).where(*ours, LabelAssignment.state == "leased", LabelAssignment.expires_at > now)
    skipped = select(func.count()).where(*ours, LabelAssignment.state == "skipped")
    done = select(func.count()).where(LabelTask.queue_id == queue_id, LabelTask.done.is_(True))
    annotators: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    history = SchemaHistory.of(queue.schema)
    for annotator, value, count in _counts(session, queue, history):
        annotators[annotator] += count
        for label in history.present.kind.counted(value):
            labels[label] += count
    return Progress(
        num_tasks=queue.num_tasks,
        num_done=session.scalar(done) or 0,
        num_leased=session.scalar(leased) or 0,
        num_skipped=session.scalar(skipped) or 0,
        num_annotations=sum(annotators.values()),
        annotators=dict(sorted(annotators.items())),
        labels=dict(sorted(labels.items())),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Throughput:
    """How fast a queue is answered.

    Parameters
    ----------
    per_hour : answers in each of the last ``NUM_HOURS`` hours, the last hour last; those taken back count as well.
    hours_left : for the answers that offered tasks still lack, at the pace of the last hour, or of the one before it
        while the last has none; None when nobody answers or nothing is lacking.
    """

    per_hour: tuple[int, ...]
    hours_left: float | None


def throughput(session: Session, *, now: datetime, queue_id: str) -> Throughput:
    """Count answers by hour; what was imported or settled by a reviewer is nobody's pace.

    Raises
    ------
    NotFoundError : no such queue.
    """
    queue = open_queue(session, queue_id, even_closed=True)
    bounds = [now - timedelta(hours=hours) for hours in range(NUM_HOURS, -1, -1)]
    counts = [
        func.sum(case(((Annotation.created_at > start) & (Annotation.created_at <= end), 1), else_=0))
        for start, end in itertools.pairwise(bounds)
    ]
    ours = (Annotation.queue_id == queue_id, Annotation.created_at > bounds[0], Annotation.origin == "annotator")
    per_hour = tuple(int(count or 0) for count in session.execute(select(*counts).where(*ours)).one())
    wanted = select(func.sum(LabelTask.overlap)).where(LabelTask.queue_id == queue_id, LabelTask.gold.is_(False))
    accepted = (
        select(func.count())
        .select_from(LabelAssignment)
        .join(LabelTask, LabelTask.id == LabelAssignment.task_id)
        .where(LabelAssignment.queue_id == queue_id, LabelAssignment.state == "accepted", LabelTask.gold.is_(False))
    )
    lacking = (session.scalar(wanted) or 0) - (session.scalar(accepted) or 0)
    pace = per_hour[-1] or per_hour[-2]
    is_known = pace > 0 and lacking > 0 and queue.state == "open"
    return Throughput(per_hour=per_hour, hours_left=lacking / pace if is_known else None)


def current_labels(session: Session, *, queue_id: str) -> list[CurrentLabel]:
    """The answer to every answered record, in order of record id.

    What a reviewer decided, or what is known of the record, counts alone. Else the majority's: accepted answers vote;
    late ones are heard only where no accepted answer stands.

    Raises
    ------
    NotFoundError : no such queue.
    """
    queue = open_queue(session, queue_id, even_closed=True)
    votes: dict[tuple[str, bool], Counter[str]] = defaultdict(Counter)
    known = session.execute(select(LabelGold.record_id, LabelGold.value).where(LabelGold.queue_id == queue_id))
    decisions: dict[str, Any] = {record_id: value for record_id, value in known}  # noqa: C416 - rows are no pairs
    values: dict[str, Any] = {}
    for one in current_answers(session, queue):
        if one.origin == "adjudicator":
            decisions[one.record_id] = one.value
            continue
        # Lists and objects are no keys; equal answers have equal canonical text.
        key = _key(one.value)
        values[key] = one.value
        votes[one.record_id, one.late][key] += 1
    for record_id, value in decisions.items():
        key = _key(value)
        values[key] = value
        votes[record_id, False] = Counter([key])
    decided = []
    for record_id in sorted({record_id for record_id, _ in votes}):
        counted = votes.get((record_id, False)) or votes[record_id, True]
        key, most = min(counted.items(), key=lambda item: (-item[1], item[0]))
        total = counted.total()
        decided.append(
            CurrentLabel(
                record_id=record_id,
                value=values[key],
                num_votes=total,
                agreement=most / total,
                is_settled=record_id in decisions,
            )
        )
    return decided


def _key(value: Any) -> str:
    return value if isinstance(value, str) else canonical(value)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """An answer that counts, as the present schema has it.

    Parameters
    ----------
    value : seen through the versions of the schema since it was given.
    version : of the schema that it was given under.
    given : as it is stored.
    origin : ``annotator``, ``adjudicator`` or ``import``.
    reason : why it is no answer any more; ``value`` is then None. Only ``invalid_answers`` has such.
    """

    annotation_id: str
    task_id: str
    record_id: str
    annotator_id: str
    value: Any
    late: bool
    seconds_spent: float | None
    created_at: datetime
    version: int
    given: Any
    origin: str
    reason: str | None = None


def current_answers(session: Session, queue: LabelQueue, *, task_ids: Sequence[str] | None = None) -> Iterator[Answer]:
    """Every answer that counts, in no order. Those that a later schema does not allow any more are left out.

    Parameters
    ----------
    task_ids : only of these tasks, at most a few hundred.
    """
    return (one for one in _all_answers(session, queue, task_ids) if one.reason is None)


def invalid_answers(session: Session, queue: LabelQueue) -> list[Answer]:
    """Answers that count no more because the schema changed, each with the reason, by time."""
    found = (one for one in _all_answers(session, queue) if one.reason is not None)
    return sorted(found, key=lambda one: (one.created_at, one.annotation_id))


def _all_answers(session: Session, queue: LabelQueue, task_ids: Sequence[str] | None = None) -> Iterator[Answer]:
    history = SchemaHistory.of(queue.schema)
    # Answers to tasks that are known measure people, and say nothing about the record.
    ours = (Annotation.queue_id == queue.id, Annotation.retracted.is_(None), LabelTask.gold.is_(False))
    query = select(Annotation, LabelTask.record_id, LabelTask.text if history.reads_text() else literal("")).join(
        LabelTask, LabelTask.id == Annotation.task_id
    )
    if task_ids is not None:
        query = query.where(LabelTask.id.in_(task_ids))
    row: Any
    for row in session.execute(query.where(*ours)):
        annotation: Annotation = row[0]
        seen = history.seen(annotation.value, annotation.schema_version, row[2])
        yield Answer(
            annotation_id=annotation.id,
            task_id=annotation.task_id,
            record_id=row[1],
            annotator_id=annotation.annotator_id,
            value=seen.value,
            late=annotation.late,
            seconds_spent=annotation.seconds_spent,
            created_at=annotation.created_at,
            version=history.under(annotation.schema_version).version,
            given=annotation.value,
            origin=annotation.origin,
            reason=seen.reason,
        )


def arrivals(session: Session, *, queue_id: str) -> dict[str, tuple[datetime, bool]]:
    """Of each answered record when its first answer came that counts, and whether chance drew it."""
    rows = session.execute(
        select(
            LabelTask.record_id,
            func.min(Annotation.created_at),
            func.max(case((LabelAssignment.kind == "random", 1), else_=0)),
        )
        .join(LabelTask, LabelTask.id == Annotation.task_id)
        .join(LabelAssignment, LabelAssignment.id == Annotation.lease_id)
        .where(Annotation.queue_id == queue_id, Annotation.retracted.is_(None), LabelTask.gold.is_(False))
        .group_by(LabelTask.record_id)
    )
    return {record_id: (at, bool(by_chance)) for record_id, at, by_chance in rows}


def _counts(session: Session, queue: LabelQueue, history: SchemaHistory) -> Iterator[tuple[str, Any, int]]:
    """Annotator, answer and how often; grouped by the database while every answer means what it says."""
    if history.has_changed:
        answers = (one for one in current_answers(session, queue) if one.origin != "adjudicator")
        yield from ((one.annotator_id, one.value, 1) for one in answers)
        return
    counts = (
        select(Annotation.annotator_id, Annotation.value, func.count())
        .where(Annotation.queue_id == queue.id, Annotation.retracted.is_(None), Annotation.origin != "adjudicator")
        .group_by(Annotation.annotator_id, Annotation.value)
    )
    yield from ((row[0], row[1], row[2]) for row in session.execute(counts))


def labels_of_record(session: Session, *, dataset_id: str, record_id: str) -> list[LabelHistory]:
    """Every answer ever given to a record in any queue of the dataset, oldest first. Unknown records have none."""
    rows = session.execute(
        select(Annotation, LabelQueue.name, LabelAssignment.why)
        .join(LabelTask, LabelTask.id == Annotation.task_id)
        .join(LabelQueue, LabelQueue.id == LabelTask.queue_id)
        .join(LabelAssignment, LabelAssignment.id == Annotation.lease_id)
        .where(LabelQueue.dataset_id == dataset_id, LabelTask.record_id == record_id)
        .order_by(Annotation.created_at, Annotation.id)
    )
    return [
        LabelHistory(
            annotation_id=annotation.id,
            queue=name,
            annotator_id=annotation.annotator_id,
            value=annotation.value,
            late=annotation.late,
            retracted=annotation.retracted,
            seconds_spent=annotation.seconds_spent,
            why=why,
            created_at=annotation.created_at,
        )
        for annotation, name, why in rows
    ]
