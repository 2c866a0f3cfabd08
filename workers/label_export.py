"""Answers out of a queue, in the formats of ``labeling.exchange``."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog.tables.access import User
from catalog.tables.labeling import Annotation, LabelQueue, LabelTask
from labeling import queue as queues
from labeling.exchange import Format, Given, Item, Written
from labeling.schema import LabelSchema


def export_answers(session: Session, queue: LabelQueue, path: Path, format_: Format) -> Written:
    """Write a queue's answers, records in the order of their ids.

    Annotators go by the name of their account where they have one. Answers that a later schema does not allow any more
    are left out, and counted.
    """
    schema = LabelSchema.from_json(queue.schema)
    names = {row[0]: row[1] for row in session.execute(select(User.id, User.name))}
    answers: dict[str, list[Given]] = defaultdict(list)
    for one in queues.current_answers(session, queue):
        answers[one.record_id].append(
            Given(
                annotator=names.get(one.annotator_id, one.annotator_id),
                value=one.value,
                at=one.created_at,
                seconds_spent=one.seconds_spent,
                late=one.late,
            )
        )
    if format_.keeps_retracted:
        for record_id, given in _retracted(session, queue, names):
            answers[record_id].append(given)
    written = format_.write(path, _items(session, queue, answers), schema)
    if gone := len(queues.invalid_answers(session, queue)):
        written.changed["answers that the present schema does not allow left out"] += gone
    return written


def _retracted(session: Session, queue: LabelQueue, names: Mapping[str, str]) -> Iterator[tuple[str, Given]]:
    query = (
        select(Annotation, LabelTask.record_id)
        .join(LabelTask, LabelTask.id == Annotation.task_id)
        .where(Annotation.queue_id == queue.id, Annotation.retracted.is_not(None))
    )
    for one, record_id in session.execute(query):
        yield (
            record_id,
            Given(
                annotator=names.get(one.annotator_id, one.annotator_id),
                value=one.value,
                at=one.created_at,
                seconds_spent=one.seconds_spent,
                late=one.late,
                retracted=one.retracted,
            ),
        )


def _items(session: Session, queue: LabelQueue, answers: Mapping[str, list[Given]]) -> Iterator[Item]:
    together = {one.record_id: one for one in queues.current_labels(session, queue_id=queue.id)}
    tasks = (
        select(LabelTask.record_id, LabelTask.text)
        .where(LabelTask.queue_id == queue.id)
        .order_by(LabelTask.record_id)
        .execution_options(yield_per=1_000)
    )
    for record_id, text in session.execute(tasks):
        if record_id not in answers:
            continue
        taken = together.get(record_id)
        yield Item(
            record_id=record_id,
            text=text,
            answers=tuple(sorted(answers[record_id], key=lambda one: (str(one.at), one.annotator))),
            value=taken.value if taken else None,
            confidence=taken.agreement if taken else None,
            num_votes=taken.num_votes if taken else 0,
        )
