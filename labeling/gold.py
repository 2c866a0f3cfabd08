"""Tasks whose answer is known: asked among the others, they say how well each annotator answers.

A task that is known no more is one like all others. What people answered to it, before they were told, is kept and
counts as if they had been asked like this from the start: in the order in which it came, the first as many as the
queue's overlap hold the places, all others are late. Whoever answered it is not asked again; who has it on the screen
keeps it while a place is free. It says nothing about people any more. A record that was never offered and that nobody
has answered leaves the queue until a generation chooses it: what is answered to it meanwhile counts from then on.
"""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import and_, exists, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, aliased

from catalog.errors import ConfigError, DataError, NotFoundError, nearest
from catalog.tables.labeling import Annotation, LabelAssignment, LabelEntry, LabelGold, LabelQueue, LabelTask
from labeling.schema import LabelSchema
from labeling.slots import ANSWERED, checked_text, move, open_queue, record_event, task_id_of
from labeling.versions import mapped

OVERLAP = 10_000
"""Everybody is asked: a known task has more slots than a queue has annotators."""
NO_LONGER = "its answer is known no more"
CHUNK_ROWS = 500


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
class Removed:
    """What became of records that are known no more.

    Parameters
    ----------
    num_asked : of them, those that are asked about, or were answered, like all others now; the rest have left the
        queue until they are chosen.
    num_votes, num_late : answers to them that hold a place now, and that are beyond the overlap.
    """

    num_records: int
    num_asked: int
    num_votes: int
    num_late: int


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
    queue = _locked(session, queue_id)
    schema = LabelSchema.from_json(queue.schema)
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    seen: set[str] = set()
    # Tasks in the order of their ids, as everybody locks them who locks several.
    for item in sorted(items, key=lambda one: task_id_of(queue_id, one.record_id)):
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


def remove_gold(
    session: Session, *, now: datetime, queue_id: str, record_ids: Collection[str], by: str | None = None
) -> Removed:
    """Make known records ordinary ones again; what was answered to them is kept (see above).

    Raises
    ------
    NotFoundError : no such queue, or a record is not known; nothing is removed then. GoneError : the queue is closed.
    """
    queue = _locked(session, queue_id)
    rows = session.scalars(select(LabelGold).where(LabelGold.queue_id == queue_id)).all()
    known = {one.record_id: one for one in rows}
    wanted = sorted(set(record_ids))
    for record_id in wanted:
        if record_id not in known:
            raise NotFoundError(f"record {record_id[:100]!r} is not known in this queue; {nearest(record_id, known)}")
    return _forget(session, queue, [known[one] for one in wanted], now, {"by": by})


def _locked(session: Session, queue_id: str) -> LabelQueue:
    """The queue, into which nobody publishes meanwhile: records become known, or ordinary, in all its generations."""
    session.execute(select(LabelQueue.id).where(LabelQueue.id == queue_id).with_for_update(key_share=True))
    return open_queue(session, queue_id)


def carry_known(
    session: Session, *, now: datetime, queue: LabelQueue, before: LabelSchema, schema: LabelSchema
) -> tuple[int, list[str]]:
    """Known answers as the next schema has them; a record whose answer is none any more is an ordinary one again.

    The queue must be locked, and has the new schema already.

    Returns
    -------
    how many are known by another name now, and the records that are known no more.
    """
    rows = session.scalars(select(LabelGold).where(LabelGold.queue_id == queue.id).order_by(LabelGold.record_id)).all()
    num_migrated = 0
    lost: dict[str, list[LabelGold]] = {}
    for known in rows:
        task = session.get_one(LabelTask, task_id_of(queue.id, known.record_id))
        found = mapped(before, schema, known.value, task.text)
        if found.state == "invalid":
            lost.setdefault(str(found.reason), []).append(known)
        elif found.state == "migrated":
            num_migrated += 1
            known.value = found.value
            detail = {"value": found.value, "version": schema.version}
            record_event(session, now=now, queue_id=queue.id, task_id=task.id, kind="gold", detail=detail)
    session.flush()
    for reason, some in lost.items():
        _forget(session, queue, some, now, {"reason": reason})
    return num_migrated, sorted(one.record_id for some in lost.values() for one in some)


def _forget(
    session: Session, queue: LabelQueue, known: Sequence[LabelGold], now: datetime, why: dict[str, str | None]
) -> Removed:
    gone = {one.record_id: one for one in known}
    num_asked = num_votes = num_late = 0
    for task in _tasks(session, queue, list(gone)):
        detail = {"value": gone[task.record_id].value, "note": gone[task.record_id].note, **why}
        record_event(session, now=now, queue_id=queue.id, task_id=task.id, kind="gold_removed", detail=detail)
        session.delete(gone[task.record_id])
        if _was_asked(session, task):
            votes, late = _make_ordinary(session, queue, task, now)
            num_asked, num_votes, num_late = num_asked + 1, num_votes + votes, num_late + late
        else:
            _release_all(session, task, now)
    offered = select(func.count()).where(LabelTask.queue_id == queue.id, LabelTask.gold.is_(False))
    queue.num_tasks = session.scalar(offered) or 0
    session.flush()
    return Removed(num_records=len(gone), num_asked=num_asked, num_votes=num_votes, num_late=num_late)


def revive(session: Session, *, now: datetime, queue: LabelQueue, task_ids: Collection[str]) -> None:
    """Of tasks that are to be offered, make those ordinary that were known once and had left the queue."""
    known = exists().where(LabelGold.queue_id == queue.id, LabelGold.record_id == LabelTask.record_id)
    left = select(LabelTask.record_id, LabelTask.id).where(
        LabelTask.queue_id == queue.id, LabelTask.gold.is_(True), ~known
    )
    offered = set(task_ids)
    back = sorted(record_id for record_id, task_id in session.execute(left) if task_id in offered)
    for task in _tasks(session, queue, back):
        _make_ordinary(session, queue, task, now)


def _tasks(session: Session, queue: LabelQueue, record_ids: Sequence[str]) -> list[LabelTask]:
    """The records' tasks, locked in one order. Their overlap is about to change, which its copies refer to."""
    ids = sorted(task_id_of(queue.id, one) for one in record_ids)
    found: list[LabelTask] = []
    for start in range(0, len(ids), CHUNK_ROWS):
        some = LabelTask.id.in_(ids[start : start + CHUNK_ROWS])
        query = select(LabelTask).where(some).order_by(LabelTask.id).with_for_update()
        found += session.scalars(query, execution_options={"populate_existing": True})
    return found


def _was_asked(session: Session, task: LabelTask) -> bool:
    """Whether the record was offered in any generation, or somebody has dealt with it."""
    dealt = exists().where(LabelAssignment.task_id == task.id, LabelAssignment.state.in_(ANSWERED))
    offered = exists().where(LabelEntry.queue_id == task.queue_id, LabelEntry.task_id == task.id)
    return bool(session.scalar(select(or_(dealt, offered))))


def _holders(session: Session, task: LabelTask) -> list[LabelAssignment]:
    """Who holds a slot of the task: the earliest answer first, leases last."""
    query = select(LabelAssignment).where(LabelAssignment.task_id == task.id, LabelAssignment.slot.is_not(None))
    found = session.scalars(query, execution_options={"populate_existing": True}).all()
    return sorted(found, key=lambda one: (one.state == "leased", one.event_id))


def _release_all(session: Session, task: LabelTask, now: datetime) -> None:
    for lease in _holders(session, task):
        move(session, lease, now, state="released", slot=None, kind="released", detail={"reason": NO_LONGER})


def _make_ordinary(session: Session, queue: LabelQueue, task: LabelTask, now: datetime) -> tuple[int, int]:
    """Give the task the queue's overlap; answers that hold a place of it, and those that now are beyond it."""
    holders = [one for one in _holders(session, task) if one.state == "accepted" or one.expires_at > now]
    num_votes = min(sum(one.state == "accepted" for one in holders), queue.overlap)
    stay = holders[: queue.overlap]
    num_late = 0
    # Who leaves a slot goes first: the others may get it.
    for lease in _holders(session, task):
        if lease in stay:
            continue
        is_answer = lease.state == "accepted"
        state = "late" if is_answer else "released" if lease.expires_at > now else "expired"
        move(session, lease, now, state=state, slot=None, kind="moved", detail={"reason": NO_LONGER})
        if is_answer:
            num_late += 1
            session.execute(
                update(Annotation)
                .where(
                    Annotation.task_id == task.id,
                    Annotation.annotator_id == lease.annotator_id,
                    Annotation.retracted.is_(None),
                )
                .values(late=True)
            )
    free = iter(sorted(set(range(queue.overlap)) - {one.slot for one in stay}))
    for lease in stay:
        if lease.state == "leased":
            lease.kind = "chosen"
        if lease.slot is not None and lease.slot >= queue.overlap:
            move(session, lease, now, state=lease.state, slot=next(free), kind="moved", detail={"reason": NO_LONGER})
    task.gold, task.overlap, task.done = False, queue.overlap, num_votes == queue.overlap
    session.flush()
    session.execute(
        update(LabelEntry)
        .where(
            LabelEntry.queue_id == queue.id,
            LabelEntry.generation == queue.generation,
            LabelEntry.task_id == task.id,
        )
        .values(done=task.done)
    )
    return num_votes, num_late


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
