"""What a new generation must take along: tasks that somebody has dealt with and others may still answer."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from catalog.tables.labeling import LabelAssignment, LabelTask
from labeling.slots import ANSWERED


@dataclass(frozen=True, kw_only=True, slots=True)
class Unfinished:
    """An open task with a free slot that somebody has answered or skipped.

    Parameters
    ----------
    is_answered : it has an answer and waits for the others that the overlap asks for; else it was only skipped.
    dealt_with_by : annotators who are not asked again.
    utility, why : of the place where it was last dealt with.
    """

    record_id: str
    is_answered: bool
    dealt_with_by: frozenset[str]
    utility: float
    why: str


def unfinished(session: Session, *, now: datetime, queue_id: str) -> list[Unfinished]:
    """Every unfinished task with a free slot: those with an answer first, then the longest waiting first."""
    taken = taken_records(session, now=now, queue_id=queue_id)
    rows = session.execute(
        select(
            LabelTask.record_id,
            LabelAssignment.annotator_id,
            LabelAssignment.state,
            LabelAssignment.utility,
            LabelAssignment.why,
        )
        .join(LabelAssignment, LabelAssignment.task_id == LabelTask.id)
        .where(
            LabelTask.queue_id == queue_id,
            LabelTask.done.is_(False),
            LabelTask.gold.is_(False),
            LabelAssignment.state.in_(ANSWERED),
        )
        .order_by(LabelAssignment.event_id)
    )
    dealings = defaultdict(list)
    for row in rows:
        if row.record_id not in taken:
            dealings[row.record_id].append(row)
    found = [
        Unfinished(
            record_id=record_id,
            is_answered=any(row.state != "skipped" for row in dealt),
            dealt_with_by=frozenset(row.annotator_id for row in dealt),
            utility=dealt[-1].utility,
            why=dealt[-1].why,
        )
        for record_id, dealt in dealings.items()
    ]
    return sorted(found, key=lambda one: not one.is_answered)


def taken_records(session: Session, *, now: datetime, queue_id: str) -> set[str]:
    """Records whose every slot holds an accepted answer or a live lease: nobody can be asked about them now."""
    live = or_(
        LabelAssignment.state == "accepted", and_(LabelAssignment.state == "leased", LabelAssignment.expires_at > now)
    )
    query = (
        select(LabelTask.record_id)
        .join(LabelAssignment, LabelAssignment.task_id == LabelTask.id)
        .where(LabelTask.queue_id == queue_id, live)
        .group_by(LabelTask.id, LabelTask.record_id, LabelTask.overlap)
        .having(func.count() >= LabelTask.overlap)
    )
    return set(session.scalars(query))


def carried_over(found: Sequence[Unfinished], num_each: int) -> list[Unfinished]:
    """The first ``num_each`` tasks for every annotator, and for one who has not begun.

    All of them would fill every generation anew while one annotator works alone; so many are enough that nobody who
    could still answer something finds nothing.

    >>> a, b = (Unfinished(record_id=r, is_answered=True, dealt_with_by=frozenset({w}), utility=0.0, why="")
    ...         for r, w in (("a", "ann"), ("b", "bo")))
    >>> [one.record_id for one in carried_over([a, b], 1)]
    ['a', 'b']
    >>> [one.record_id for one in carried_over([a, a, b, b], 1)]
    ['a', 'b']
    """
    newcomer = ""
    room = dict.fromkeys({newcomer}.union(*(one.dealt_with_by for one in found)), num_each)
    kept = []
    for one in found:
        takers = [who for who, left in room.items() if left > 0 and who not in one.dealt_with_by]
        if takers:
            kept.append(one)
        for who in takers:
            room[who] -= 1
    return kept
