"""Which tasks may be served next: statements that are put together once, since that costs more than running them."""

from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, bindparam, case, exists, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from catalog.tables.base import Moment
from catalog.tables.labeling import LabelAssignment, LabelEntry, LabelSuggestion, LabelTask
from labeling.slots import (
    ANSWERED,
)

NEVER = 2**30
"""More slots than any task has."""


class Place(NamedTuple):
    """Why a task is next: its place in the order, and who put it there."""

    rank: int
    utility: float
    why: str
    kind: str


class Shown(NamedTuple):
    """What of a task is needed to serve it."""

    id: str
    record_id: str
    text: str
    overlap: int
    is_suggested: bool = False


class Offer(NamedTuple):
    """A locked task that may be served, and why."""

    place: Place
    task: Shown


@cache
def servable() -> Select[int, float, str, str, str, str, str, int, bool]:
    """The best task of the current generation with a free slot that this annotator has not dealt with.

    Built once: putting the statement together costs more than running it. It stops at the first row of the index of
    open entries that fits.
    """
    return _in_order().where(_is_free(LabelEntry.task_id, to_annotator=True)).limit(1)


@cache
def servable_locked() -> Select[int, float, str, str, str, str, str, int, bool]:
    """The same, passing over tasks that somebody else is changing and locking the one it finds."""
    return servable().with_for_update(of=LabelTask, skip_locked=True, key_share=True)


@cache
def servable_by_anybody() -> Select[int, float, str, str, str, str, str, int, bool]:
    """The best tasks of the current generation with a free slot, locked as well."""
    best = _in_order().where(_is_free(LabelEntry.task_id)).limit(bindparam("num_tasks"))
    return best.with_for_update(of=LabelTask, skip_locked=True, key_share=True)


def _in_order() -> Select[int, float, str, str, str, str, str, int, bool]:
    is_suggested = exists().where(
        LabelSuggestion.queue_id == LabelTask.queue_id, LabelSuggestion.record_id == LabelTask.record_id
    )
    task = (LabelTask.id, LabelTask.record_id, LabelTask.text, LabelTask.overlap, is_suggested)
    return (
        select(LabelEntry.rank, LabelEntry.utility, LabelEntry.why, LabelEntry.kind, *task)
        .join(LabelTask, LabelTask.id == LabelEntry.task_id)
        .where(
            LabelEntry.queue_id == bindparam("queue_id"),
            LabelEntry.generation == bindparam("generation"),
            LabelEntry.done.is_(False),
        )
        .order_by(LabelEntry.rank)
    )


@cache
def left_over() -> Select[str]:
    """Any open task that this annotator may answer, whether or not the current generation has it."""
    return (
        select(LabelTask.id)
        .where(
            LabelTask.queue_id == bindparam("queue_id"),
            LabelTask.done.is_(False),
            LabelTask.gold.is_(False),
            _is_free(LabelTask.id, to_annotator=True),
        )
        .limit(1)
    )


def _is_free(task_id: InstrumentedAttribute[str], *, to_annotator: bool = False) -> ColumnElement[bool]:
    """One of the task's slots is free, and this annotator has not dealt with the task and has it not in hand.

    Both are read in one look at the task's assignments. Two, one of them "not exists", a planner may turn into a join
    with everything that the annotator ever did.
    """
    taken = aliased(LabelAssignment)
    is_live = and_(taken.state == "leased", taken.expires_at > bindparam("now", type_=Moment))
    weights = [(or_(taken.state == "accepted", is_live), 1)]
    if to_annotator:
        dealt_with = and_(taken.annotator_id == bindparam("annotator_id"), or_(taken.state.in_(ANSWERED), is_live))
        weights.insert(0, (dealt_with, NEVER))
    num_taken = (
        select(func.coalesce(func.sum(case(*weights, else_=0)), 0))
        .where(taken.task_id == task_id)
        .correlate_except(taken)
        .scalar_subquery()
    )
    return num_taken < LabelTask.overlap


def met(task_id: InstrumentedAttribute[str]) -> ColumnElement[bool]:
    """This annotator has dealt with the task, or has it in hand."""
    mine = aliased(LabelAssignment)
    return exists().where(
        mine.task_id == task_id,
        mine.annotator_id == bindparam("annotator_id"),
        or_(mine.state.in_(ANSWERED), and_(mine.state == "leased", mine.expires_at > bindparam("now", type_=Moment))),
    )


def read_offers(session: Session, statement: Select[*tuple[Any, ...]], given: dict[str, Any]) -> list[Offer]:
    """What such a statement finds: tasks in the order of serving, locked if it locks them."""
    return [Offer(Place(*row[:4]), Shown(*row[4:])) for row in session.execute(statement, given)]
