"""Tasks whose answer is known: asked among the others, they say how well each annotator answers."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import and_, exists, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, aliased

from catalog.errors import ConfigError, DataError
from catalog.tables.labeling import Annotation, LabelAssignment, LabelEntry, LabelGold, LabelQueue, LabelTask
from labeling.schema import LabelSchema
from labeling.slots import ANSWERED, checked_text, open_queue, record_event, task_id_of

OVERLAP = 10_000
"""Everybody is asked: a known task has more slots than a queue has annotators."""
WHY = "random check"
"""What the annotator is told, as of tasks that chance drew: who knows which are known answers these with more care."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GoldItem:
    """A record and its known answer.

    Parameters
    ----------
    value : checked against the queue's schema.
    note : shown to whoever answered otherwise; empty shows nothing.
    """

    record_id: str
    text: str
    value: object
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """An answer beside the known one, for the annotator who gave it."""

    is_right: bool
    expected: object
    note: str


@dataclass(frozen=True, kw_only=True, slots=True)
class GoldScore:
    """How one annotator did on known tasks."""

    annotator_id: str
    num_answered: int
    num_right: int


def add_gold(
    session: Session, *, now: datetime, queue_id: str, items: Sequence[GoldItem], by: str | None = None
) -> int:
    """Make records known; return how many. Of a record that is known already the answer is replaced.

    What was answered to them before stays, and is judged by the newest answer that is known. They are asked every
    ``gold_every`` tasks of the queue, to each annotator once.

    Raises
    ------
    NotFoundError : no such queue. GoneError : it is closed.
    DataError : an answer that the schema does not allow, a record twice, or a text that databases refuse.
    """
    queue = open_queue(session, queue_id)
    schema = LabelSchema.from_json(queue.schema)
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    seen: set[str] = set()
    for item in items:
        if item.record_id in seen:
            raise DataError(f"record {item.record_id!r} is given twice; give each record one known answer")
        seen.add(item.record_id)
        value = schema.validate(item.value, item.text)
        checked_text(f"text of record {item.record_id!r}", item.text, at_least=0, at_most=2**26)
        checked_text(f"note on record {item.record_id!r}", item.note, at_least=0, at_most=2_000)
        task_id = task_id_of(queue_id, item.record_id)
        task = {"id": task_id, "queue_id": queue_id, "record_id": item.record_id, "text": item.text}
        made = dialect.insert(LabelTask).values(**task, overlap=OVERLAP, done=False, gold=True)
        known = {"gold": True, "overlap": OVERLAP, "done": False}
        session.execute(made.on_conflict_do_update(index_elements=["id"], set_=known))
        row = {"value": value, "note": item.note, "created_by": by, "created_at": now}
        stored = dialect.insert(LabelGold).values(queue_id=queue_id, record_id=item.record_id, **row)
        session.execute(stored.on_conflict_do_update(index_elements=["queue_id", "record_id"], set_=row))
        session.execute(
            update(LabelEntry)
            .where(
                LabelEntry.queue_id == queue_id,
                LabelEntry.generation == queue.generation,
                LabelEntry.task_id == task_id,
            )
            .values(done=True)
        )
        record_event(
            session, now=now, queue_id=queue_id, task_id=task_id, kind="gold", detail={"value": value, "by": by}
        )
    return len(seen)


def ask_every(session: Session, *, now: datetime, queue_id: str, every: int, by: str | None = None) -> None:
    """Ask about a known task every so many; 0 never.

    Raises
    ------
    NotFoundError : no such queue. GoneError : it is closed. ConfigError : ``every`` is 1 or below 0.
    """
    if every < 0 or every == 1:
        raise ConfigError(f"gold_every={every} must be 0 (none) or at least 2: others must be asked about too")
    queue = open_queue(session, queue_id)
    if queue.gold_every != every:
        queue.gold_every = every
        record_event(session, now=now, queue_id=queue_id, kind="settings", detail={"gold_every": every, "by": by})


def due_tasks(session: Session, queue: LabelQueue, annotator_ids: Sequence[str], now: datetime) -> dict[str, LabelTask]:
    """The known task that each annotator is to be asked now, locked; who is due none, or has met all, is missing.

    One that somebody else is changing is passed over: another is there, or it comes with the next task.
    """
    # What is in hand counts as well: it will be answered before what is asked for now.
    met = or_(
        LabelAssignment.state.in_(ANSWERED), and_(LabelAssignment.state == "leased", LabelAssignment.expires_at > now)
    )
    rows = session.execute(
        select(LabelAssignment.annotator_id, LabelAssignment.kind, func.count())
        .where(LabelAssignment.queue_id == queue.id, LabelAssignment.annotator_id.in_(annotator_ids), met)
        .group_by(LabelAssignment.annotator_id, LabelAssignment.kind)
    )
    counts: dict[str, dict[str, int]] = {annotator_id: {} for annotator_id in annotator_ids}
    for annotator_id, kind, count in rows:
        counts[annotator_id][kind] = count
    due = {}
    for annotator_id, by_kind in counts.items():
        num_known = by_kind.pop("gold", 0)
        if num_known >= _num_due(sum(by_kind.values()), queue.gold_every, f"{queue.seed} {annotator_id}"):
            continue
        task = _unmet(session, queue, annotator_id, now)
        if task is not None:
            due[annotator_id] = task
    return due


def _unmet(session: Session, queue: LabelQueue, annotator_id: str, now: datetime) -> LabelTask | None:
    mine = aliased(LabelAssignment)
    dealt_with = exists().where(
        mine.task_id == LabelTask.id,
        mine.annotator_id == annotator_id,
        or_(mine.state.in_(ANSWERED), and_(mine.state == "leased", mine.expires_at > now)),
    )
    return session.scalars(
        select(LabelTask)
        .join(LabelGold, (LabelGold.queue_id == LabelTask.queue_id) & (LabelGold.record_id == LabelTask.record_id))
        .where(LabelTask.queue_id == queue.id, LabelTask.gold.is_(True), ~dealt_with)
        .order_by(LabelTask.id)
        .limit(1)
        .with_for_update(of=LabelTask, key_share=True, skip_locked=True)
    ).first()


def _num_due(num_answered: int, every: int, who: str) -> int:
    """How many known tasks somebody has met after so many others: one in each stretch, at a place nobody can foresee.

    >>> [_num_due(number, 3, "ana") for number in (2, 5, 8)]
    [1, 2, 3]
    >>> {_num_due(1005, 10, who) for who in "abcdefgh"} == {100, 101}
    True
    """
    stretch, place = divmod(num_answered, every)
    digest = hashlib.blake2b(f"{who} {stretch}".encode(), digest_size=8).digest()
    return stretch + (place >= int.from_bytes(digest, "big") % every)


def judge(session: Session, *, queue_id: str, record_id: str, value: object) -> Judged | None:
    """An answer beside the known one; None where none is known."""
    known = session.get(LabelGold, (queue_id, record_id))
    return None if known is None else Judged(is_right=known.value == value, expected=known.value, note=known.note)


def gold_scores(session: Session, *, queue_id: str) -> list[GoldScore]:
    """How the annotators did on known tasks, by annotator id; answers taken back do not count."""
    rows = session.execute(
        select(Annotation.annotator_id, Annotation.value, LabelGold.value)
        .join(LabelTask, LabelTask.id == Annotation.task_id)
        .join(LabelGold, (LabelGold.queue_id == LabelTask.queue_id) & (LabelGold.record_id == LabelTask.record_id))
        .where(Annotation.queue_id == queue_id, LabelTask.gold.is_(True), Annotation.retracted.is_(None))
    )
    answers: dict[str, list[bool]] = {}
    for annotator_id, value, known in rows:
        answers.setdefault(annotator_id, []).append(value == known)
    return [
        GoldScore(annotator_id=who, num_answered=len(right), num_right=sum(right))
        for who, right in sorted(answers.items())
    ]
