"""Queues to test on."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from catalog.database import Catalog
from catalog.tables.base import new_id
from catalog.tables.datasets import Dataset, Version
from catalog.tables.engine import Run
from labeling import queue, review
from labeling.schema import LabelSchema, parse_schema

START = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
SCHEMA = parse_schema("question: 기분은?\nlabels: [긍정, 부정, 중립 😐]")
LEASE_SECONDS = 60.0


@dataclass
class Desk:
    """A queue, a clock that only the test moves, and the queue's functions with both filled in."""

    catalog: Catalog
    dataset_id: str
    version_id: str
    queue_id: str
    now: datetime = START

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def call(self, function: Callable[..., Any], **given: Any) -> Any:
        with self.catalog.write() as session:
            return function(session, now=self.now, **given)

    def publish(self, *records: str, num_left: int = 0, again: Collection[str] = ()) -> int:
        entries = [
            queue.QueueEntry(
                record_id=name,
                text=f"글 {name}",
                utility=1.0 / (1 + rank),
                why=f"because {name}",
                kind="again" if name in again else "chosen",
            )
            for rank, name in enumerate(records)
        ]
        return self.call(queue.publish_generation, queue_id=self.queue_id, entries=entries, num_left=num_left)

    def next(self, annotator: str, *beside: Any) -> Any:
        held = [one.lease_id for one in beside]
        return self.call(queue.next_task, queue_id=self.queue_id, annotator_id=annotator, beside=held)

    def adjudicate(self, served: Any, reviewer: str, value: str, key: str | None = None) -> str:
        given = {"task_id": served.task_id, "reviewer_id": reviewer, "value": value, "key": key or new_id()}
        return str(self.call(review.adjudicate, **given))

    def take_back(self, reviewer: str) -> str | None:
        found = self.call(review.take_back, queue_id=self.queue_id, reviewer_id=reviewer)
        return None if found is None else str(found.record_id)

    def reassign(self, served: Any, to: str) -> str:
        return str(self.call(review.reassign, task_id=served.task_id, to=to, by="lead"))

    def submit(self, served: Any, annotator: str, value: str = "긍정", key: str | None = None) -> queue.Submitted:
        return self.call(
            queue.submit, lease_id=served.lease_id, annotator_id=annotator, value=value, key=key or new_id()
        )

    def answer(self, annotator: str, value: str = "긍정") -> str:
        served = self.next(annotator)
        self.submit(served, annotator, value)
        return str(served.record_id)

    def skip(self, served: Any, annotator: str, reason: str = "") -> None:
        self.call(queue.skip, lease_id=served.lease_id, annotator_id=annotator, reason=reason)

    def release(self, served: Any, annotator: str) -> None:
        self.call(queue.release, lease_id=served.lease_id, annotator_id=annotator)

    def heartbeat(self, served: Any, annotator: str) -> datetime:
        return self.call(queue.heartbeat, lease_id=served.lease_id, annotator_id=annotator)

    def undo(self, annotator: str) -> str | None:
        return self.call(queue.undo, queue_id=self.queue_id, annotator_id=annotator)

    def progress(self) -> queue.Progress:
        return self.call(queue.progress, queue_id=self.queue_id)

    def history(self, record_id: str) -> list[queue.LabelHistory]:
        with self.catalog.read() as session:
            return queue.labels_of_record(session, dataset_id=self.dataset_id, record_id=record_id)

    def labels(self) -> dict[str, tuple[str, int, float]]:
        with self.catalog.read() as session:
            found = queue.current_labels(session, queue_id=self.queue_id)
        return {one.record_id: (one.value, one.num_votes, one.agreement) for one in found}


def open_desk(
    catalog: Catalog,
    *,
    overlap: int = 1,
    lease_seconds: float = LEASE_SECONDS,
    schema: LabelSchema = SCHEMA,
    strategy: str = "margin",
    **options: Any,
) -> Desk:
    """A dataset with one version and an empty queue on it."""
    dataset_id, run_id, version_id = new_id(), new_id(), new_id()
    with catalog.write() as session:
        session.add(Dataset(id=dataset_id, name=f"d-{dataset_id}", text_column="text", created_at=START))
        session.flush()
        session.add(
            Run(
                id=run_id,
                kind="clean",
                dataset_id=dataset_id,
                idempotency_key=run_id,
                config={},
                config_hash="0" * 64,
                created_at=START,
            )
        )
        session.flush()
        session.add(
            Version(
                id=version_id,
                dataset_id=dataset_id,
                number=1,
                kind="curated",
                run_id=run_id,
                manifest_name="m",
                manifest_sha256="0" * 64,
                num_records=3,
                num_shards=1,
                created_at=START,
            )
        )
        session.flush()
        made = queue.create_queue(
            session,
            now=START,
            name="main",
            dataset_id=dataset_id,
            version_id=version_id,
            schema=schema,
            strategy=strategy,
            encoder="minilm",
            overlap=overlap,
            lease_seconds=lease_seconds,
            seed=7,
            **options,
        )
        return Desk(catalog, dataset_id, version_id, made.id)


@pytest.fixture
def new_desk(database: Catalog) -> Callable[..., Desk]:
    """Make queues of any overlap, lease length or schema."""

    def make(**given: Any) -> Desk:
        return open_desk(database, **given)

    return make


@pytest.fixture
def desk(new_desk: Callable[..., Desk]) -> Desk:
    """A queue with overlap 1."""
    return new_desk()


@pytest.fixture
def pair_desk(new_desk: Callable[..., Desk]) -> Desk:
    """A queue with overlap 2."""
    return new_desk(overlap=2)
