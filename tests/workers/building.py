"""Rows that tests of the engine start from, and a worker without a broker."""

from typing import Any

from sqlalchemy.orm import Session

from catalog.database import Catalog
from catalog.tables.base import new_id
from catalog.tables.datasets import Dataset
from catalog.tables.engine import Run
from workers import engine
from workers.execution import execute

ME = engine.this_process


def add_dataset(session: Session, name: str = "tickets") -> Dataset:
    """A dataset without data."""
    from datetime import UTC, datetime

    dataset = Dataset(
        id=new_id(), name=name, text_column="body", label_column="queue", created_at=datetime(2026, 1, 1, tzinfo=UTC)
    )
    session.add(dataset)
    session.flush()
    return dataset


def add_run(session: Session, dataset: Dataset, kind: str = "clean") -> Run:
    """A run without units."""
    run = Run(
        id=new_id(),
        kind=kind,
        dataset_id=dataset.id,
        idempotency_key=new_id(),
        config={},
        config_hash="0" * 64,
        created_at=dataset.created_at,
    )
    session.add(run)
    session.flush()
    return run


def drain(catalog: Catalog, *, times: int = 1) -> list[str]:
    """Deliver every message of the outbox ``times`` times, until none is left; return what became of each."""
    outcomes: list[Any] = []
    while messages := engine.unsent(catalog):
        for message_id, _task, (unit_id,) in messages:
            for _ in range(times):
                outcomes.append(execute(catalog, unit_id, owner=ME()))
            engine.mark_sent(catalog, message_id)
    return outcomes
