"""Rows that tests of the engine start from, and a worker without a broker."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from catalog.database import Catalog
from catalog.store import Store
from catalog.tables.base import new_id
from catalog.tables.datasets import Dataset
from catalog.tables.engine import Run
from curation.recipe import load_recipe
from tests.workers.corpus import RECIPE
from workers import outbox, process_names
from workers.execution import execute
from workers.pipelines.clean import submit_clean
from workers.pipelines.ingest import submit_ingest

ME = process_names.this_process


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


def at_once(*asked: Callable[[], Any]) -> list[Any]:
    """What several threads get that ask in the same moment."""
    barrier = threading.Barrier(len(asked))

    def wait_and(ask: Callable[[], Any]) -> Any:
        barrier.wait()
        return ask()

    with ThreadPoolExecutor(len(asked)) as pool:
        return list(pool.map(wait_and, asked))


def drain(catalog: Catalog, *, times: int = 1) -> list[str]:
    """Deliver every message of the outbox ``times`` times, until none is left; return what became of each."""
    outcomes: list[Any] = []
    while messages := outbox.unsent(catalog):
        for message_id, _task, (unit_id,), _needs in messages:
            for _ in range(times):
                outcomes.append(execute(catalog, unit_id, owner=ME()))
            outbox.mark_sent(catalog, message_id)
    return outcomes


def clean_dataset(catalog: Catalog, folder: Path, rows: list[dict[str, Any]], recipe: str = RECIPE) -> None:
    """Ingest rows with ``body`` and ``queue`` into ``tickets`` and clean it; the same rows again are not doubled."""
    Store.of(catalog.settings).create()
    path, recipe_path = folder / "rows.jsonl", folder / "recipe.yaml"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    recipe_path.write_text(recipe)
    submit_ingest(catalog, dataset="tickets", paths=[str(path)], text_column="body", label_column="queue")
    drain(catalog)
    submit_clean(catalog, dataset="tickets", recipe=load_recipe(str(recipe_path)))
    drain(catalog)
