"""Any past state of a queue, from its events alone: who held what, who had answered what, and why X got Y at T."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog.tables.labeling import LabelEvent
from labeling.slots import DECIDES, open_queue


@dataclass(kw_only=True, slots=True)
class Held:
    """What one annotator had to do with one task.

    Parameters
    ----------
    state : as ``LabelAssignment.state``; a lease that had run out shows as ``leased`` until somebody took its slot.
    why, rank, generation : of the moment it was served.
    """

    state: str
    slot: int | None
    event_id: int
    at: datetime
    why: str = ""
    rank: int | None = None
    generation: int | None = None


@dataclass(kw_only=True, slots=True)
class QueueState:
    """A queue as it was.

    Parameters
    ----------
    generation : the one being served.
    is_open : whether it took answers.
    held : by task and annotator.
    answers : ids of the answers that counted, by task and annotator.
    known : answers that were known, by task.
    sources : whose suggestions there were.
    overlaps : how many answers a task was to have, of those that were ever asked about again.
    """

    generation: int = 0
    is_open: bool = True
    held: dict[tuple[str, str], Held] = field(default_factory=dict)
    answers: dict[tuple[str, str], str] = field(default_factory=dict)
    known: dict[str, Any] = field(default_factory=dict)
    sources: set[str] = field(default_factory=set)
    overlaps: dict[str, int] = field(default_factory=dict)


def state_at(session: Session, *, queue_id: str, until: datetime | None = None) -> QueueState:
    """Build a queue's state anew, of the end of a moment or of now.

    Raises
    ------
    NotFoundError : no such queue.
    """
    open_queue(session, queue_id, even_closed=True)
    events = select(LabelEvent).where(LabelEvent.queue_id == queue_id)
    if until is not None:
        events = events.where(LabelEvent.at <= until)
    state = QueueState()
    for event in session.scalars(events.order_by(LabelEvent.id), execution_options={"yield_per": 5_000}):
        _apply(state, event)
    return state


def _apply(state: QueueState, event: LabelEvent) -> None:
    detail: dict[str, Any] = event.detail
    if event.kind == "published":
        state.generation = detail["generation"]
    elif event.kind in ("closed", "reopened"):
        state.is_open = event.kind == "reopened"
    elif event.kind == "gold" and event.task_id is not None:
        state.known[event.task_id] = detail["value"]
        # A known task has as many slots as there are people.
        state.overlaps.pop(event.task_id, None)
    elif event.kind == "gold_removed" and event.task_id is not None:
        state.known.pop(event.task_id, None)
    elif event.kind == "suggested":
        state.sources.update(detail["sources"])
    elif event.kind == "unsuggested":
        state.sources.discard(detail["source"])
    elif event.kind in ("asked_again", "withdrawn") and event.task_id is not None:
        state.overlaps[event.task_id] = detail["overlap"]
    if event.task_id is None or event.annotator_id is None or "state" not in detail:
        return
    key = (event.task_id, event.annotator_id)
    before = state.held.get(key)
    state.held[key] = Held(
        state=detail["state"],
        slot=detail["slot"],
        event_id=event.id,
        at=event.at,
        why=detail.get("why", before.why if before else ""),
        rank=detail.get("rank", before.rank if before else None),
        generation=detail.get("generation", before.generation if before else None),
    )
    if event.kind in ("submitted", "late", "adjudicated"):
        state.answers[key] = detail["annotation_id"]
        if event.kind == "adjudicated":
            # The newest decision is the only one.
            others = [one for one in state.answers if one[0] == key[0] and one[1].startswith(DECIDES)]
            for other in others:
                if other != key:
                    del state.answers[other]
    elif event.kind == "undone":
        state.answers.pop(key, None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Happened:
    """One event, for people."""

    at: datetime
    kind: str
    annotator_id: str | None
    task_id: str | None
    detail: dict[str, Any]


def history(
    session: Session,
    *,
    queue_id: str,
    task_id: str | None = None,
    annotator_id: str | None = None,
    until: datetime | None = None,
    limit: int = 100,
) -> list[Happened]:
    """The last events of a queue, a task or a person, newest first: what was served has its reason and its place.

    Raises
    ------
    NotFoundError : no such queue.
    """
    open_queue(session, queue_id, even_closed=True)
    query = select(LabelEvent).where(LabelEvent.queue_id == queue_id)
    for column, wanted in ((LabelEvent.task_id, task_id), (LabelEvent.annotator_id, annotator_id)):
        if wanted is not None:
            query = query.where(column == wanted)
    if until is not None:
        query = query.where(LabelEvent.at <= until)
    return [
        Happened(at=one.at, kind=one.kind, annotator_id=one.annotator_id, task_id=one.task_id, detail=dict(one.detail))
        for one in session.scalars(query.order_by(LabelEvent.id.desc()).limit(limit))
    ]
