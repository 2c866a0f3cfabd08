"""What people answered to known tasks: judged one by one, and counted by annotator and by record."""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog.errors import DataError
from catalog.tables.labeling import Annotation, LabelGold, LabelQueue, LabelTask
from labeling.slots import open_queue, task_id_of
from labeling.versions import SchemaHistory


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """An answer beside the known one, for the annotator who gave it."""

    is_right: bool
    expected: object
    note: str


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownRecord:
    """A record whose answer is known, and how often people answered so."""

    record_id: str
    value: object
    note: str
    num_answered: int
    num_right: int


@dataclass(frozen=True, kw_only=True, slots=True)
class GoldScore:
    """How one annotator did on known tasks."""

    annotator_id: str
    num_answered: int
    num_right: int


def known_records(session: Session, *, queue_id: str, after: str = "", limit: int | None = None) -> list[KnownRecord]:
    """Records whose answer is known, by record id, with what was answered to them.

    Parameters
    ----------
    after : the last record id of the page before.

    Raises
    ------
    NotFoundError : no such queue.
    """
    history = SchemaHistory.of(open_queue(session, queue_id, even_closed=True).schema)
    rows = session.scalars(
        select(LabelGold)
        .where(LabelGold.queue_id == queue_id, LabelGold.record_id > after)
        .order_by(LabelGold.record_id)
        .limit(limit)
    ).all()
    answers: dict[str, list[object]] = {one.record_id: [] for one in rows}
    given = (
        select(LabelTask.record_id, LabelTask.text, Annotation.value, Annotation.schema_version)
        .join(Annotation, Annotation.task_id == LabelTask.id)
        .where(LabelTask.queue_id == queue_id, LabelTask.gold.is_(True), Annotation.retracted.is_(None))
    )
    for record_id, text, value, version in session.execute(given):
        if record_id in answers:
            answers[record_id].append(history.seen(value, version, text).value)
    return [
        KnownRecord(
            record_id=one.record_id,
            value=one.value,
            note=one.note,
            num_answered=len(answers[one.record_id]),
            num_right=sum(value == one.value for value in answers[one.record_id]),
        )
        for one in rows
    ]


def judge(session: Session, *, queue_id: str, record_id: str, value: object) -> Judged | None:
    """An answer beside the known one, also where it is one by an earlier schema; None where none is known."""
    known = session.get(LabelGold, (queue_id, record_id))
    if known is None:
        return None
    is_right = known.value == value or _was_right(session, known, value)
    return Judged(is_right=is_right, expected=known.value, note=known.note)


def _was_right(session: Session, known: LabelGold, value: object) -> bool:
    """Whether a value is the known answer as an earlier schema had it."""
    history = SchemaHistory.of(session.get_one(LabelQueue, known.queue_id).schema)
    if not history.has_changed:
        return False
    text = session.get_one(LabelTask, task_id_of(known.queue_id, known.record_id)).text
    for schema in history.schemas[:-1]:
        try:
            if history.seen(schema.validate(value, text), schema.version, text).value == known.value:
                return True
        except DataError:
            continue
    return False


def gold_scores(session: Session, *, queue_id: str) -> list[GoldScore]:
    """How the annotators did on known tasks, by annotator id; answers taken back do not count."""
    history = SchemaHistory.of(open_queue(session, queue_id, even_closed=True).schema)
    rows = session.execute(
        select(Annotation.annotator_id, Annotation.value, Annotation.schema_version, LabelTask.text, LabelGold.value)
        .join(LabelTask, LabelTask.id == Annotation.task_id)
        .join(LabelGold, (LabelGold.queue_id == LabelTask.queue_id) & (LabelGold.record_id == LabelTask.record_id))
        .where(Annotation.queue_id == queue_id, LabelTask.gold.is_(True), Annotation.retracted.is_(None))
    )
    answers: dict[str, list[bool]] = {}
    for annotator_id, value, version, text, known in rows:
        answers.setdefault(annotator_id, []).append(history.seen(value, version, text).value == known)
    return [
        GoldScore(annotator_id=who, num_answered=len(right), num_right=sum(right))
        for who, right in sorted(answers.items())
    ]
