"""Pre-labels: what a model says of a record before people do, and how much that leads them.

A share of the tasks with a suggestion is served without it. Where annotators agree with suggestions that they saw more
often than with those they did not see, they were led: the difference is the anchoring bias.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from math import sqrt
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from catalog.database import among
from catalog.errors import DataError, NotFoundError, nearest
from catalog.tables.labeling import Annotation, LabelAssignment, LabelQueue, LabelSuggestion
from labeling.learner import wilson_interval
from labeling.servable import Shown
from labeling.slots import checked_text, open_queue, record_event
from labeling.tasks import canonical

CHUNK_ROWS = 2_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Suggestion:
    """What a model says of a record.

    Parameters
    ----------
    value : as the queue's present schema has validated it.
    source : the model, with its version.
    score : its own, if it gave one.
    """

    record_id: str
    value: Any
    source: str
    score: float | None = None


def add_suggestions(session: Session, *, now: datetime, queue_id: str, suggestions: Sequence[Suggestion]) -> int:
    """Keep suggestions; of the same source and record the new one replaces the old one. Return how many were given.

    What was served before keeps what it showed.

    Raises
    ------
    NotFoundError : no such queue. GoneError : it is closed.
    DataError : a source's name that is empty, too long or one that databases refuse, or a score that is no number.
    """
    open_queue(session, queue_id)
    for one in suggestions:
        checked_text("source of a suggestion", one.source, at_least=1, at_most=200)
        if one.score is not None and not abs(one.score) < float("inf"):
            raise DataError(f"score={one.score} of a suggestion for {one.record_id!r} must be a finite number")
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    statement = dialect.insert(LabelSuggestion)
    changed = {name: statement.excluded[name] for name in ("value", "score", "created_at")}
    statement = statement.on_conflict_do_update(index_elements=["queue_id", "record_id", "source"], set_=changed)
    # One of a pair of record and source: PostgreSQL changes no row twice in one statement.
    latest = {(one.record_id, one.source): one for one in suggestions}
    rows = [
        {
            "queue_id": queue_id,
            "record_id": one.record_id,
            "source": one.source,
            "value": one.value,
            "score": one.score,
            "created_at": now,
        }
        for one in latest.values()
    ]
    for start in range(0, len(rows), CHUNK_ROWS):
        session.execute(statement, rows[start : start + CHUNK_ROWS])
    if latest:
        counts = Counter(source for _, source in latest)
        record_event(session, now=now, queue_id=queue_id, kind="suggested", detail={"sources": dict(counts)})
    return len(suggestions)


def suggestion_sources(session: Session, *, queue_id: str) -> dict[str, int]:
    """Whose suggestions a queue has, and for how many records.

    Raises
    ------
    NotFoundError : no such queue.
    """
    open_queue(session, queue_id, even_closed=True)
    counts = (
        select(LabelSuggestion.source, func.count())
        .where(LabelSuggestion.queue_id == queue_id)
        .group_by(LabelSuggestion.source)
        .order_by(LabelSuggestion.source)
    )
    return {row[0]: row[1] for row in session.execute(counts)}


def remove_suggestions(session: Session, *, now: datetime, queue_id: str, source: str, by: str | None = None) -> int:
    """Take a source's suggestions away; return of how many records.

    Nobody is shown them from now on, but for whoever has the task already: what was served keeps what it showed, on the
    screen and for ``anchoring``.

    Raises
    ------
    NotFoundError : no such queue, or it has none of this source; the message names the nearest. GoneError : closed.
    """
    open_queue(session, queue_id)
    ours = (LabelSuggestion.queue_id == queue_id, LabelSuggestion.source == source)
    num_removed = len(session.scalars(delete(LabelSuggestion).where(*ours).returning(LabelSuggestion.record_id)).all())
    if not num_removed:
        known = suggestion_sources(session, queue_id=queue_id)
        raise NotFoundError(f"the queue has no suggestions of {source[:100]!r}; {nearest(source[:200], known)}")
    detail = {"source": source, "num_removed": num_removed, "by": by}
    record_event(session, now=now, queue_id=queue_id, kind="unsuggested", detail=detail)
    return num_removed


@dataclass(frozen=True, kw_only=True, slots=True)
class Anchoring:
    """How often annotators agreed with a source's suggestions, seen and unseen.

    Parameters
    ----------
    bias : share of agreement with seen ones less that with unseen ones; None while there are none of either.
    low, high : its interval at 95 % (Newcombe 1998, method 10).
    """

    source: str
    num_shown: int
    num_accepted: int
    num_hidden: int
    num_agreed: int
    bias: float | None
    low: float | None
    high: float | None


def anchoring(session: Session, *, queue_id: str) -> list[Anchoring]:
    """How much suggestions lead people, by source; answers that were taken back do not count.

    Raises
    ------
    NotFoundError : no such queue.

    References
    ----------
    Newcombe (1998), Interval Estimation for the Difference between Independent Proportions, method 10.
    """
    open_queue(session, queue_id, even_closed=True)
    rows = session.execute(
        select(LabelAssignment.suggestion, Annotation.value)
        .join(Annotation, Annotation.lease_id == LabelAssignment.id)
        .where(
            LabelAssignment.queue_id == queue_id,
            LabelAssignment.suggestion.is_not(None),
            Annotation.retracted.is_(None),
            Annotation.origin == "annotator",
        )
    )
    counts: dict[str, dict[bool, list[int]]] = {}
    for suggestion, value in rows:
        if suggestion is None:
            continue
        of_source = counts.setdefault(suggestion["source"], {True: [0, 0], False: [0, 0]})
        found = of_source[suggestion["shown"]]
        found[0] += 1
        found[1] += canonical(suggestion["value"]) == canonical(value)
    return [_anchoring(source, *both[True], *both[False]) for source, both in sorted(counts.items())]


def _anchoring(source: str, num_shown: int, num_accepted: int, num_hidden: int, num_agreed: int) -> Anchoring:
    bias = low = high = None
    if num_shown and num_hidden:
        shown, hidden = num_accepted / num_shown, num_agreed / num_hidden
        (low_shown, high_shown), (low_hidden, high_hidden) = (
            wilson_interval(num_accepted, num_shown),
            wilson_interval(num_agreed, num_hidden),
        )
        bias = shown - hidden
        low = bias - sqrt((shown - low_shown) ** 2 + (high_hidden - hidden) ** 2)
        high = bias + sqrt((high_shown - shown) ** 2 + (hidden - low_hidden) ** 2)
    return Anchoring(
        source=source,
        num_shown=num_shown,
        num_accepted=num_accepted,
        num_hidden=num_hidden,
        num_agreed=num_agreed,
        bias=bias,
        low=low,
        high=high,
    )


def newest_suggestions(session: Session, queue: LabelQueue, tasks: Sequence[Shown]) -> dict[str, dict[str, Any]]:
    """The newest suggestion of each record that has one."""
    if not tasks:
        return {}
    rows = session.execute(
        select(LabelSuggestion.record_id, LabelSuggestion.value, LabelSuggestion.score, LabelSuggestion.source)
        .where(
            LabelSuggestion.queue_id == queue.id,
            among(session, LabelSuggestion.record_id, [task.record_id for task in tasks]),
        )
        .order_by(LabelSuggestion.created_at.desc(), LabelSuggestion.source)
    )
    newest: dict[str, dict[str, Any]] = {}
    for row in rows:
        newest.setdefault(row.record_id, {"value": row.value, "score": row.score, "source": row.source})
    return newest


def suggested(
    queue: LabelQueue, task: Shown, annotator_id: str, suggestions: dict[str, dict[str, Any]]
) -> dict[str, Any] | None:
    """What is suggested for a task, and whether this annotator may see it: always the same for the two."""
    found = suggestions.get(task.record_id)
    if found is None:
        return None
    digest = hashlib.blake2b(f"{queue.seed} {task.id} {annotator_id}".encode(), digest_size=8).digest()
    return found | {"shown": int.from_bytes(digest, "big") / 2**64 >= queue.hidden_share}
