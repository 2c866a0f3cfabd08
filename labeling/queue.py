"""The labeling queue: serves the most useful task to each annotator and never loses or doubles an answer.

Every function takes the session of an open transaction, never commits, and is told the time. On SQLite the caller holds
the one write transaction; on PostgreSQL transactions run side by side under READ COMMITTED (see ``labeling.slots``).
This module fills queues; they are opened and closed in ``opening``, the acts of annotators live in ``leases`` and
``answers``, new schemas in ``schema_change``, the counting in ``results``, and all of them are importable from here.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, insert, or_, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from catalog.errors import DataError
from catalog.tables.labeling import LabelEntry, LabelGeneration, LabelQueue, LabelTask
from labeling import gold
from labeling.answers import Given, Submitted, submit, submit_all, undo
from labeling.leases import Asking, NoTask, Served, heartbeat, next_task, next_tasks, release, skip
from labeling.opening import close_queue, create_queue, find_queue, reopen_queue
from labeling.relabels import KIND, ask_again, num_asked_again
from labeling.results import (
    Answer,
    CurrentLabel,
    LabelHistory,
    Progress,
    arrivals,
    current_answers,
    current_labels,
    invalid_answers,
    labels_of_record,
    progress,
)
from labeling.schema_change import SchemaChanged, change_schema
from labeling.slots import checked_text, open_queue, record_event, task_id_of
from labeling.unfinished import Unfinished, carried_over, taken_records, unfinished

__all__ = [
    "Answer",
    "Asking",
    "CurrentLabel",
    "Given",
    "LabelHistory",
    "MadeBy",
    "NoTask",
    "Progress",
    "QueueEntry",
    "SchemaChanged",
    "Served",
    "Submitted",
    "Unfinished",
    "arrivals",
    "await_model",
    "carried_over",
    "change_schema",
    "close_queue",
    "create_queue",
    "current_answers",
    "current_labels",
    "find_queue",
    "heartbeat",
    "invalid_answers",
    "labels_of_record",
    "next_task",
    "next_tasks",
    "offer_tasks",
    "open_queue",
    "progress",
    "publish_generation",
    "release",
    "reopen_queue",
    "skip",
    "submit",
    "submit_all",
    "taken_records",
    "undo",
    "unfinished",
]

CHUNK_ROWS = 5_000


@dataclass(frozen=True, kw_only=True, slots=True)
class QueueEntry:
    """A record's place in a new generation: the order of the sequence is the order of serving.

    Parameters
    ----------
    text : shown to the annotator.
    utility : higher was queried first; finite.
    why : one line for the annotator.
    kind : ``chosen`` by the strategy, drawn at ``random``, or finished and asked about ``again``.
    predicted : label and probability by the model as it then was, or None.
    """

    record_id: str
    text: str
    utility: float
    why: str
    kind: str = "chosen"
    predicted: tuple[str, float] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class MadeBy:
    """How a generation was chosen.

    Parameters
    ----------
    num_labels : records with an answer that the model was fitted on.
    figures : what ``labeling.stopping`` and ``labeling.honesty`` say of the model.
    """

    strategy: str
    num_labels: int
    figures: dict[str, Any]


def publish_generation(
    session: Session,
    *,
    now: datetime,
    queue_id: str,
    entries: Sequence[QueueEntry],
    num_left: int = 0,
    made_by: MadeBy | None = None,
) -> int:
    """Replace the order of serving by a new one: add rows, then flip one pointer.

    Leases and answers stay as they are. Tasks already finished, and known ones, keep their place but are not served,
    unless they are asked about again. Those that were, and are not in this one, are finished as they are
    (``labeling.relabels``).

    Parameters
    ----------
    entries : best first, each record once. Empty ends the serving, unless open tasks or other records are left.
    num_left : records that may still be asked about and that this generation leaves out; an annotator who has come to
        its end is then told to wait, not that all is done.
    made_by : how it was chosen, kept beside it; None where nobody asks.

    Returns
    -------
    The number of the new generation, from 1 up.

    Raises
    ------
    NotFoundError : no such queue.
    GoneError : it is closed.
    DataError : a record occurs twice, a utility is not finite, or a text is one that databases refuse.
    """
    session.execute(select(LabelQueue.id).where(LabelQueue.id == queue_id).with_for_update(key_share=True))
    queue = open_queue(session, queue_id)
    generation = queue.generation + 1
    ids = offer_tasks(session, queue, entries, now=now)
    again = {task_id for task_id, entry in zip(ids, entries, strict=True) if entry.kind == KIND}
    num_again = num_asked_again(session, queue_id)
    if again or num_again or made_by is None:
        num_again += ask_again(session, now=now, queue=queue, again=again, listed=ids)
    # Records that became known while this generation was chosen are asked as known ones, not by it.
    is_over = or_(LabelTask.done.is_(True), LabelTask.gold.is_(True))
    done = set(session.scalars(select(LabelTask.id).where(LabelTask.queue_id == queue_id, is_over)))
    rows = (
        {
            "queue_id": queue_id,
            "generation": generation,
            "task_id": task_id,
            "rank": rank,
            "utility": entry.utility,
            "why": entry.why,
            "kind": entry.kind,
            "predicted": entry.predicted,
            "done": task_id in done,
        }
        for rank, (task_id, entry) in enumerate(zip(ids, entries, strict=True))
    )
    _insert_chunked(session, insert(LabelEntry), rows)
    if session.get_bind().dialect.name == "postgresql":
        # A planner that has not seen the new rows would sort them all for every task it serves.
        session.execute(text("ANALYZE label_tasks, label_entries"))
    queue.generation, queue.waiting_for_model = generation, False
    offered = select(func.count()).where(LabelTask.queue_id == queue_id, LabelTask.gold.is_(False))
    queue.num_tasks = session.scalar(offered) or 0
    detail = {"generation": generation, "num_entries": len(entries), "num_left": num_left}
    record_event(session, now=now, queue_id=queue_id, kind="published", detail=detail)
    if made_by is not None:
        made = LabelGeneration(queue_id=queue_id, generation=generation, at=now, **asdict(made_by))
        if num_again:
            made.figures = {**made.figures, "num_again": num_again}
        session.add(made)
    session.flush()
    return generation


def await_model(session: Session, *, queue_id: str) -> None:
    """Say that a new generation is being computed: until it is published an empty queue answers "waiting for model".

    Raises
    ------
    NotFoundError : no such queue.
    GoneError : it is closed.
    """
    open_queue(session, queue_id)
    session.execute(update(LabelQueue).where(LabelQueue.id == queue_id).values(waiting_for_model=True))


def offer_tasks(session: Session, queue: LabelQueue, entries: Sequence[QueueEntry], *, now: datetime) -> list[str]:
    """Make a task of every record that has none yet; the ids of all, in order. The queue must be locked.

    Raises
    ------
    DataError : a record occurs twice, a utility is not finite, or a text is one that databases refuse.
    """
    ids = _task_ids(queue.id, entries)
    _insert_tasks(session, queue, ids, entries)
    gold.revive(session, now=now, queue=queue, task_ids=ids)
    return ids


def _task_ids(queue_id: str, entries: Sequence[QueueEntry]) -> list[str]:
    seen: set[str] = set()
    for entry in entries:
        if entry.record_id in seen:
            raise DataError(f"record {entry.record_id!r} occurs twice in the generation; give each record once")
        seen.add(entry.record_id)
        if not math.isfinite(entry.utility):
            raise DataError(f"record {entry.record_id!r}: utility={entry.utility} must be finite")
        checked_text(f"text of record {entry.record_id!r}", entry.text, at_least=0, at_most=2**26)
        checked_text(f"why of record {entry.record_id!r}", entry.why, at_least=0, at_most=2_000)
    return [task_id_of(queue_id, entry.record_id) for entry in entries]


def _insert_tasks(session: Session, queue: LabelQueue, ids: Sequence[str], entries: Sequence[QueueEntry]) -> None:
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    statement = dialect.insert(LabelTask).on_conflict_do_nothing(index_elements=["id"])
    rows = (
        {
            "id": task_id,
            "queue_id": queue.id,
            "record_id": entry.record_id,
            "text": entry.text,
            "overlap": queue.overlap,
            "done": False,
        }
        for task_id, entry in zip(ids, entries, strict=True)
    )
    _insert_chunked(session, statement, rows)


def _insert_chunked(session: Session, statement: Any, rows: Iterable[dict[str, Any]]) -> None:
    connection = session.connection()
    chunk: list[dict[str, Any]] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == CHUNK_ROWS:
            connection.execute(statement, chunk)
            chunk = []
    if chunk:
        connection.execute(statement, chunk)
