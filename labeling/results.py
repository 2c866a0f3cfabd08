"""What a queue has collected: progress, the labels as they now stand, and a record's label history."""

from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from catalog.tables.labeling import Annotation, LabelAssignment, LabelGold, LabelQueue, LabelTask
from labeling.slots import open_queue


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
    labels : of those, how many say what.
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
    value : the majority's answer; among equals the lexicographically smallest.
    num_votes : answers behind the decision.
    agreement : share of them that gave this value, in (0, 1].
    """

    record_id: str
    value: str
    num_votes: int
    agreement: float


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
    counts = (
        select(Annotation.annotator_id, Annotation.value, func.count())
        .where(
            Annotation.queue_id == queue_id,
            Annotation.retracted.is_(None),
            Annotation.origin != "adjudicator",
        )
        .group_by(Annotation.annotator_id, Annotation.value)
    )
    for annotator, value, count in session.execute(counts):
        annotators[annotator] += count
        labels[value] += count
    return Progress(
        num_tasks=queue.num_tasks,
        num_done=session.scalar(done) or 0,
        num_leased=session.scalar(leased) or 0,
        num_skipped=session.scalar(skipped) or 0,
        num_annotations=sum(annotators.values()),
        annotators=dict(sorted(annotators.items())),
        labels=dict(sorted(labels.items())),
    )


def current_labels(session: Session, *, queue_id: str) -> list[CurrentLabel]:
    """The answer to every answered record, in order of record id.

    What a reviewer decided, or what is known of the record, counts alone. Else the majority's: accepted answers vote;
    late ones are heard only where no accepted answer stands.

    Raises
    ------
    NotFoundError : no such queue.
    """
    open_queue(session, queue_id, even_closed=True)
    votes: dict[tuple[str, bool], Counter[str]] = defaultdict(Counter)
    rows = session.execute(
        select(LabelTask.record_id, Annotation.late, Annotation.value, Annotation.origin)
        .join(LabelTask, LabelTask.id == Annotation.task_id)
        .where(Annotation.queue_id == queue_id, Annotation.retracted.is_(None), LabelTask.gold.is_(False))
    )
    known = session.execute(select(LabelGold.record_id, LabelGold.value).where(LabelGold.queue_id == queue_id))
    decisions: dict[str, Any] = {record_id: value for record_id, value in known}  # noqa: C416 - rows are no pairs
    for record_id, late, value, origin in rows:
        if origin == "adjudicator":
            decisions[record_id] = value
        votes[record_id, late][value] += 1
    for record_id, value in decisions.items():
        votes[record_id, False] = Counter([value])
    decided = []
    for record_id in sorted({record_id for record_id, _ in votes}):
        counted = votes.get((record_id, False)) or votes[record_id, True]
        value, most = min(counted.items(), key=lambda item: (-item[1], item[0]))
        total = counted.total()
        decided.append(CurrentLabel(record_id=record_id, value=value, num_votes=total, agreement=most / total))
    return decided


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
