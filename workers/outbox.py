"""Messages to workers that are rows first: of the transaction that needs them sent, gone once the broker has them."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from catalog.database import Catalog
from catalog.tables.engine import UNFINISHED, Outbox, Unit

RELAY_BATCH = 200
UNSENT = threading.Event()
"""This process left messages in the outbox since it last looked there."""


def announce(session: Session, unit_id: str, now: datetime, needs: str) -> None:
    """Leave a message for workers that serve what the unit needs, in the outbox: part of the caller's transaction."""
    announce_all(session, [(unit_id, needs)], now)


def announce_ready(session: Session, run_id: str, now: datetime) -> None:
    """Announce every ready unit of a run: the messages of before may have come to nothing."""
    ready = session.execute(
        select(Unit.id, Unit.needs)
        .where(Unit.run_id == run_id, Unit.state == "ready", UNFINISHED)
        .order_by(Unit.stage, Unit.position)
    ).all()
    announce_all(session, [(one.id, one.needs) for one in ready], now)


def announce_all(session: Session, units: Sequence[tuple[str, str]], now: datetime) -> None:
    """``announce`` for many units at once, each by its id and need."""
    messages = [
        {"task": "engine.run_unit", "args": [unit_id], "needs": needs, "created_at": now} for unit_id, needs in units
    ]
    if messages:
        session.execute(insert(Outbox), messages)
        UNSENT.set()


class Message(NamedTuple):
    """One row of the outbox."""

    id: int
    task: str
    args: list[Any]
    needs: str


def unsent(catalog: Catalog) -> Sequence[Message]:
    """The oldest messages still in the outbox."""
    with catalog.read() as session:
        return [Message(*row) for row in session.execute(_OLDEST)]


def mark_sent(catalog: Catalog, *message_ids: int) -> None:
    """Forget messages that the broker has taken."""
    with catalog.write() as session:
        session.execute(delete(Outbox).where(Outbox.id.in_(message_ids)))


_OLDEST = select(Outbox.id, Outbox.task, Outbox.args, Outbox.needs).order_by(Outbox.id).limit(RELAY_BATCH)


@contextmanager
def sending(catalog: Catalog) -> Iterator[tuple[Sequence[Message], list[int]]]:
    """The oldest messages, and a list for the ids of those that the broker took: they are forgotten afterwards.

    Under PostgreSQL nobody else gets the same ones meanwhile; they stay locked while they are sent. Under SQLite two
    processes may send the same, which is harmless: its one writer's lock must not be held while a broker is waited for.
    """
    sent: list[int] = []
    if catalog.is_sqlite:
        try:
            yield unsent(catalog), sent
        finally:
            if sent:
                mark_sent(catalog, *sent)
        return
    with catalog.write() as session:
        # After trouble everything is sent again, what was sent before it too.
        yield [Message(*row) for row in session.execute(_OLDEST.with_for_update(skip_locked=True))], sent
        if sent:
            session.execute(delete(Outbox).where(Outbox.id.in_(sent)))
