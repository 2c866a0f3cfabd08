"""One more answer to a task that was finished: which ones may have it, asking for it, and taking that back.

A finished task that is asked about again gets one slot more (``LabelTask.overlap``, whose copy in the assignments the
database keeps in step) and is open until somebody fills it. What a later generation does not ask about is finished as
it is, so no more such tasks are open than one generation has.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from catalog.tables.labeling import Annotation, LabelAssignment, LabelGeneration, LabelQueue, LabelTask
from labeling.slots import ANSWERED, DECIDES, move, open_queue, record_event

MOST_ANSWERS = 5
"""A task gets so many answers at most by being asked about again."""
ACTIVE_DAYS = 7.0
"""Whoever had nothing to do with the queue for so long is not counted on."""
KIND = "again"
"""Of an entry whose task is asked about again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Request:
    """An open task that has all its answers but the one more that it was asked about again for.

    Parameters
    ----------
    overlap : with that answer.
    holder : the lease in the free slot, live or not; None where there is none.
    """

    task_id: str
    record_id: str
    overlap: int
    holder: LabelAssignment | None

    def is_live(self, now: datetime) -> bool:
        return self.holder is not None and self.holder.expires_at > now


def askable_again(session: Session, *, now: datetime, queue_id: str) -> set[str]:
    """Records whose finished task may have one more answer, or waits for one now and nobody gives it.

    Those with fewer than ``MOST_ANSWERS`` that no reviewer has settled, of which somebody who was here in the last
    ``ACTIVE_DAYS`` has neither answered nor skipped them: nothing is asked that nobody could answer.

    Raises
    ------
    NotFoundError : no such queue.
    """
    queue = open_queue(session, queue_id, even_closed=True)
    active = _active(session, queue_id, now)
    if len(active) < 2:
        return set()
    finished = select(LabelTask.id, LabelTask.record_id).where(
        LabelTask.queue_id == queue_id,
        LabelTask.done.is_(True),
        LabelTask.gold.is_(False),
        LabelTask.overlap < MOST_ANSWERS,
        LabelTask.id.not_in(_settled(queue_id)),
    )
    found = {task_id: record_id for task_id, record_id in session.execute(finished)}  # noqa: C416 - rows are no pairs
    found |= {one.task_id: one.record_id for one in _requests(session, queue) if not one.is_live(now)}
    dealt_with = defaultdict(set)
    answered = select(LabelAssignment.task_id, LabelAssignment.annotator_id).where(
        LabelAssignment.queue_id == queue_id, LabelAssignment.state.in_(ANSWERED)
    )
    for task_id, annotator_id in session.execute(answered):
        dealt_with[task_id].add(annotator_id)
    return {record_id for task_id, record_id in found.items() if active - dealt_with[task_id]}


def requested(session: Session, *, queue_id: str) -> set[str]:
    """Records that wait for one more answer only because they were asked about again."""
    queue = open_queue(session, queue_id, even_closed=True)
    return {one.record_id for one in _requests(session, queue)}


def num_asked_again(session: Session, queue_id: str) -> int:
    """How many tasks were asked about again, less those of which that was taken back, as of the newest generation.

    Finished tasks and these together never become fewer by asking again.
    """
    newest = (
        select(LabelGeneration.figures)
        .where(LabelGeneration.queue_id == queue_id)
        .order_by(LabelGeneration.generation.desc())
        .limit(1)
    )
    return int((session.scalars(newest).first() or {}).get("num_again", 0))


def ask_again(
    session: Session, *, now: datetime, queue: LabelQueue, again: Collection[str], listed: Collection[str]
) -> int:
    """Open one more slot in finished tasks, and close those that earlier generations opened and nobody is filling.

    A task that is not finished any more, or was settled meanwhile, stays as it is.

    Parameters
    ----------
    again : ids of tasks to ask about again.
    listed : of every task in the new generation: none of these is closed.

    Returns
    -------
    how many were opened, less those that were closed.
    """
    stale = {one.task_id for one in _requests(session, queue) if not one.is_live(now)} - set(listed)
    # In one order, and at once in the strength that raising an overlap needs.
    for task_id in sorted(stale | set(again)):
        session.execute(select(LabelTask.id).where(LabelTask.id == task_id).with_for_update())
    num_closed = 0
    for request in _requests(session, queue, sorted(stale)):
        if not request.is_live(now):
            _close(session, now, queue, request)
            num_closed += 1
    raised = session.scalars(
        select(LabelTask)
        .where(
            LabelTask.id.in_(sorted(again)),
            LabelTask.done.is_(True),
            LabelTask.gold.is_(False),
            LabelTask.overlap < MOST_ANSWERS,
            LabelTask.id.not_in(_settled(queue.id)),
        )
        .order_by(LabelTask.id),
        execution_options={"populate_existing": True},
    ).all()
    for task in raised:
        task.overlap, task.done = task.overlap + 1, False
        detail = {"overlap": task.overlap}
        record_event(session, now=now, queue_id=queue.id, task_id=task.id, kind="asked_again", detail=detail)
    session.flush()
    return len(raised) - num_closed


def _close(session: Session, now: datetime, queue: LabelQueue, request: _Request) -> None:
    if request.holder is not None:
        move(session, request.holder, now, state="expired", slot=None, kind="expired", detail={"taken_by": None})
    task = session.get_one(LabelTask, request.task_id, populate_existing=True)
    task.overlap, task.done = task.overlap - 1, True
    session.flush()
    detail = {"overlap": task.overlap}
    record_event(session, now=now, queue_id=queue.id, task_id=task.id, kind="withdrawn", detail=detail)


def _requests(session: Session, queue: LabelQueue, task_ids: Sequence[str] | None = None) -> list[_Request]:
    """Tasks that wait for one more answer only. Where an earlier answer was taken back, its slot waits too: no request.

    So is one whose last slot is answered while another is free: it could not be made smaller.
    """
    raised = select(LabelTask).where(
        LabelTask.queue_id == queue.id,
        LabelTask.done.is_(False),
        LabelTask.gold.is_(False),
        LabelTask.overlap > queue.overlap,
    )
    if task_ids is not None:
        raised = raised.where(LabelTask.id.in_(task_ids))
    tasks = session.scalars(raised, execution_options={"populate_existing": True}).all()
    holders: dict[str, list[LabelAssignment]] = defaultdict(list)
    held = select(LabelAssignment).where(
        LabelAssignment.task_id.in_([task.id for task in tasks]), LabelAssignment.slot.is_not(None)
    )
    for one in session.scalars(held, execution_options={"populate_existing": True}):
        holders[one.task_id].append(one)
    found = []
    for task in tasks:
        answered = {one.slot for one in holders[task.id] if one.state == "accepted"}
        if answered == set(range(task.overlap - 1)):
            holder = next((one for one in holders[task.id] if one.state == "leased"), None)
            found.append(_Request(task_id=task.id, record_id=task.record_id, overlap=task.overlap, holder=holder))
    return found


def _active(session: Session, queue_id: str, now: datetime) -> set[str]:
    """Whoever was served or gave a sign of life lately. Imported answers are nobody's presence."""
    rows = session.execute(
        select(LabelAssignment.annotator_id, func.max(LabelAssignment.expires_at))
        # Only what was served says by which schema.
        .where(LabelAssignment.queue_id == queue_id, LabelAssignment.schema_version.is_not(None))
        .group_by(LabelAssignment.annotator_id)
    )
    since = now - timedelta(days=ACTIVE_DAYS)
    return {who for who, until in rows if until > since and not who.startswith(DECIDES)}


def _settled(queue_id: str) -> Select[str]:
    return select(Annotation.task_id).where(
        Annotation.queue_id == queue_id, Annotation.origin == "adjudicator", Annotation.retracted.is_(None)
    )
