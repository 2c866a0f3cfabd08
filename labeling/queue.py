"""The labeling queue: serves the most useful task to each annotator and never loses or doubles an answer.

Every function takes the session of an open transaction, never commits, and is told the time. On SQLite the caller holds
the one write transaction; on PostgreSQL transactions run side by side under READ COMMITTED (see ``labeling.slots``).
This module opens, fills and closes queues; the acts of annotators live in ``leases`` and ``answers``, new schemas in
``schema_change``, the counting in ``results``, and all of them are importable from here.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, insert, or_, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from catalog.errors import ConfigError, DataError, NotFoundError, TakenError, nearest
from catalog.tables.labeling import LabelEntry, LabelGeneration, LabelQueue, LabelTask
from labeling import gold
from labeling.answers import Given, Submitted, submit, submit_all, undo
from labeling.fitness import check_fit
from labeling.leases import Asking, NoTask, Served, heartbeat, next_task, next_tasks, release, skip
from labeling.model_choice import LINEAR, check_model
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
from labeling.schema import LabelSchema
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

MAX_OVERLAP = 100
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


def create_queue(
    session: Session,
    *,
    now: datetime,
    name: str,
    dataset_id: str,
    version_id: str,
    schema: LabelSchema,
    strategy: str,
    encoder: str,
    overlap: int,
    lease_seconds: float,
    seed: int,
    held_out_share: float = 0.0,
    refresh_every: int = 20,
    rehearsal: bool = False,
    random_share: float = 0.0,
    gold_every: int = 0,
    hidden_share: float = 0.0,
    budget: int | None = None,
    model: str = LINEAR,
) -> LabelQueue:
    """Open a queue. It waits for its first generation.

    Parameters
    ----------
    name : unique in the dataset.
    strategy : a name in ``STRATEGIES`` that holds for the schema's task.
    overlap : how many different annotators answer each task, 1 to 100.
    lease_seconds : how long a task is held without a sign of life.
    held_out_share : share of the records nobody is asked about, in [0, 0.9].
    refresh_every : finished tasks between two fits of the model.
    rehearsal : a program answers, from labels held back; the answers train nothing.
    random_share : share of each generation that chance draws, in [0, 1].
    gold_every : one task in so many is one whose answer is known (see ``labeling.gold``), 0 for none.
    hidden_share : share of tasks with a suggestion that are served without it, in [0, 1].
    budget : answers that may be spent; advice only.
    model : whose probabilities the strategy goes by (see ``labeling.model_choice``).

    Raises
    ------
    TakenError : the dataset has a queue of that name.
    NotFoundError : no such strategy.
    ConfigError : a number is out of range, or the strategy does not hold for the task.
    """
    check_fit(strategy, schema)
    check_model(model, schema)
    checked_text("queue name", name, at_least=1, at_most=200)
    if not 1 <= overlap <= MAX_OVERLAP:
        raise ConfigError(f"overlap={overlap} must lie in [1, {MAX_OVERLAP}]")
    if not 0 < lease_seconds <= 7 * 86_400:
        raise ConfigError(f"lease_seconds={lease_seconds} must be above 0 and at most a week (604800)")
    if not 0 <= held_out_share <= 0.9:
        raise ConfigError(f"held_out_share={held_out_share} must lie in [0, 0.9]")
    for name_of, share in (("random_share", random_share), ("hidden_share", hidden_share)):
        if not 0 <= share <= 1:
            raise ConfigError(f"{name_of}={share} must lie in [0, 1]")
    if gold_every < 0 or gold_every == 1:
        raise ConfigError(f"gold_every={gold_every} must be 0 (none) or at least 2: others must be asked about too")
    if budget is not None and budget < 1:
        raise ConfigError(f"budget={budget} must be at least 1; leave it out for none")
    if refresh_every < 1:
        raise ConfigError(f"refresh_every={refresh_every} must be at least 1")
    if session.scalar(select(LabelQueue.id).where(LabelQueue.dataset_id == dataset_id, LabelQueue.name == name)):
        raise TakenError(f"the dataset already has a label queue named {name!r}; choose another name")
    queue = LabelQueue(
        name=name,
        dataset_id=dataset_id,
        version_id=version_id,
        schema=schema.to_json(),
        strategy=strategy,
        encoder=encoder,
        overlap=overlap,
        lease_seconds=lease_seconds,
        seed=seed,
        held_out_share=held_out_share,
        refresh_every=refresh_every,
        rehearsal=rehearsal,
        random_share=random_share,
        gold_every=gold_every,
        hidden_share=hidden_share,
        budget=budget,
        model=model,
        created_at=now,
    )
    session.add(queue)
    session.flush()
    return queue


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


def close_queue(session: Session, *, now: datetime, queue_id: str) -> None:
    """End a queue: nothing more is served or taken, everything is kept. Closing twice changes nothing.

    Raises
    ------
    NotFoundError : no such queue.
    """
    queue = open_queue(session, queue_id, even_closed=True)
    if queue.state == "open":
        queue.state, queue.closed_at = "closed", now
        record_event(session, now=now, queue_id=queue_id, kind="closed", detail={})
        session.flush()


def reopen_queue(session: Session, *, now: datetime, queue_id: str) -> None:
    """Take a closed queue up again where it ended. Of an open one nothing changes.

    Raises
    ------
    NotFoundError : no such queue.
    """
    queue = open_queue(session, queue_id, even_closed=True)
    if queue.state == "closed":
        queue.state, queue.closed_at = "open", None
        record_event(session, now=now, queue_id=queue_id, kind="reopened", detail={})
        session.flush()


def find_queue(
    session: Session, *, dataset_id: str, name: str | None = None, named_by: str = "the queue's name"
) -> LabelQueue:
    """The dataset's queue of that name; without a name, its only open one, or else its only one.

    Parameters
    ----------
    named_by : the option or argument that the name is given by, for messages.

    Raises
    ------
    NotFoundError : there is none; the message has the nearest name.
    ConfigError : no name was given and several fit; the message lists them.
    """
    queues = session.scalars(
        select(LabelQueue).where(LabelQueue.dataset_id == dataset_id).order_by(LabelQueue.created_at, LabelQueue.name)
    ).all()
    if name is not None:
        for queue in queues:
            if queue.name == name:
                return queue
        raise NotFoundError(f"the dataset has no label queue named {name!r}; {nearest(name, (q.name for q in queues))}")
    fitting = [queue for queue in queues if queue.state == "open"] or list(queues)
    if not fitting:
        raise NotFoundError("the dataset has no label queue; create one with `winnow label create`")
    if len(fitting) > 1:
        listed = ", ".join(queue.name for queue in fitting)
        raise ConfigError(f"the dataset has several label queues; say by {named_by} which: {listed}")
    return fitting[0]


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
