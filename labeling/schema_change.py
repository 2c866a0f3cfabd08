"""A queue's schema gives way to its next version: what becomes of the answers, and whose tasks are asked again."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog.tables.labeling import Annotation, LabelAssignment, LabelQueue
from labeling import gold
from labeling.answers import settle
from labeling.fitness import check_fit
from labeling.results import Answer, current_answers, invalid_answers
from labeling.schema import LabelSchema
from labeling.slots import lock_task, move, open_queue, record_event
from labeling.tasks import canonical
from labeling.versions import SchemaChange, SchemaHistory, appended, changes

CHUNK_ROWS = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class SchemaChanged:
    """What a new schema has done to a queue.

    Parameters
    ----------
    num_kept, num_migrated : answers that stay as they are, and that are seen under other names now.
    invalid : answers that are none any more; their tasks are asked again.
    num_known : known answers that have other names now.
    no_longer_known : records whose known answer is none any more: they are asked about like all others.
    repeated : the queue had got this very schema before, as the newest; nothing changed now.
    """

    change: SchemaChange
    num_kept: int
    num_migrated: int
    invalid: tuple[Answer, ...]
    num_known: int = 0
    no_longer_known: tuple[str, ...] = ()
    repeated: bool = False


def change_schema(session: Session, *, now: datetime, queue_id: str, schema: LabelSchema) -> SchemaChanged:
    """Give a queue a new version of its schema. No stored answer changes: answers are seen through the versions.

    Live leases stay: an answer to what was asked before says by which version it was given. A task whose answer is none
    any more is given back, to be asked again. The change that was the last one, asked for again, changes nothing.

    On PostgreSQL an answer that is being stored in the same moment may be unseen here. Whoever commits the change waits
    until the acts of ``annotators_of`` that were under way have ended, and then calls ``ask_again``.

    Raises
    ------
    NotFoundError : no such queue.
    GoneError : it is closed.
    StaleVersionError : the version does not rise.
    ConfigError : a label ``was`` none, or the queue's strategy does not hold for the new task.
    """
    queue = _locked(session, queue_id)
    history = SchemaHistory.of(queue.schema)
    if history.has_changed and schema == history.present:
        return replace(_told(session, queue, history.last_change, invalid_answers(session, queue)), repeated=True)
    check_fit(queue.strategy, schema)
    before = LabelSchema.from_json(queue.schema)
    change = changes(before, schema)
    was_invalid = {one.annotation_id for one in invalid_answers(session, queue)}
    queue.schema = appended(queue.schema, schema)
    detail = {"from": before.version, "to": schema.version, "changes": change.in_words()}
    record_event(session, now=now, queue_id=queue_id, kind="schema", detail=detail)
    session.flush()
    num_known, lost = gold.carry_known(session, now=now, queue=queue, before=before, schema=schema)
    invalid = [one for one in invalid_answers(session, queue) if one.annotation_id not in was_invalid]
    _give_back(session, queue, invalid, now)
    done = _told(session, queue, change, invalid)
    return replace(done, num_known=num_known, no_longer_known=tuple(lost))


def annotators_of(session: Session, *, queue_id: str) -> list[str]:
    """Whoever may be answering in a queue just now: an act on a task begins by one's row for it."""
    ours = LabelAssignment.queue_id == queue_id
    return sorted(session.scalars(select(LabelAssignment.annotator_id).where(ours).distinct()))


def ask_again(session: Session, *, now: datetime, queue_id: str) -> list[Answer]:
    """Give back tasks that still hold an answer which the present schema does not allow; return those answers.

    Raises
    ------
    NotFoundError : no such queue.
    """
    queue = _locked(session, queue_id, even_closed=True)
    if not SchemaHistory.of(queue.schema).has_changed:
        return []
    invalid = {one.annotation_id: one for one in invalid_answers(session, queue)}
    ids, holding = list(invalid), set[str]()
    for start in range(0, len(ids), CHUNK_ROWS):
        holding.update(
            session.scalars(
                select(Annotation.id)
                .join(LabelAssignment, LabelAssignment.id == Annotation.lease_id)
                .where(
                    Annotation.id.in_(ids[start : start + CHUNK_ROWS]), LabelAssignment.state.in_(("accepted", "late"))
                )
            )
        )
    found = [one for one in invalid.values() if one.annotation_id in holding]
    _give_back(session, queue, found, now)
    return found


def _locked(session: Session, queue_id: str, *, even_closed: bool = False) -> LabelQueue:
    """The queue, into which nobody publishes or imports meanwhile; annotators go on."""
    session.execute(select(LabelQueue.id).where(LabelQueue.id == queue_id).with_for_update(key_share=True))
    return open_queue(session, queue_id, even_closed=even_closed)


def _told(session: Session, queue: LabelQueue, change: SchemaChange, invalid: Sequence[Answer]) -> SchemaChanged:
    answers = list(current_answers(session, queue))
    num_kept = sum(canonical(one.value) == canonical(one.given) for one in answers)
    return SchemaChanged(change=change, num_kept=num_kept, num_migrated=len(answers) - num_kept, invalid=tuple(invalid))


def _give_back(session: Session, queue: LabelQueue, invalid: Sequence[Answer], now: datetime) -> None:
    for one in sorted(invalid, key=lambda found: found.task_id):
        lock_task(session, one.task_id)
        lease = session.scalars(
            select(LabelAssignment).where(
                LabelAssignment.task_id == one.task_id, LabelAssignment.annotator_id == one.annotator_id
            ),
            execution_options={"populate_existing": True},
        ).one()
        if lease.state in ("accepted", "late"):
            detail = {"annotation_id": one.annotation_id, "reason": one.reason}
            move(session, lease, now, state="released", slot=None, kind="invalidated", detail=detail)
            settle(session, queue, (one.task_id,))
