"""Labeling queues: list, create, ask for the next task, undo, watch progress."""

import random
from dataclasses import asdict
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from catalog.errors import NotFoundError
from catalog.tables.datasets import Dataset
from catalog.tables.labeling import LabelQueue
from labeling import queue
from labeling.schema import LabelSchema
from labeling.tasks.pairwise import split_pair
from service.api.access import Anyone, Catalogued, Counted, Curator, PageSize, Reviewer
from service.api.direct import Direct, as_json
from service.api.queue_models import (
    NextOut,
    NextRequest,
    PairOut,
    ProgressOut,
    QualityOut,
    QueueOut,
    QueuePage,
    QueueRequest,
    SchemaModel,
    TaskOut,
    UndoOut,
)
from service.auth import audit
from workers import label_events

router = APIRouter(prefix="/queues", tags=["queues"])
direct = APIRouter(prefix="/queues", tags=["queues"], route_class=Direct)

RETRY_SPREAD_SECONDS = 0.5
"""Everybody who waits is told the same moment, when the earliest lease ends: a hundred at once would queue up behind
one another."""


@router.get("", summary="List queues")
def list_queues(
    catalog: Catalogued,
    _who: Anyone,
    dataset: Annotated[str | None, Query(max_length=200)] = None,
    state: Literal["open", "closed"] | None = None,
    after: Annotated[str, Query(max_length=36)] = "",
    limit: PageSize = 50,
) -> QueuePage:
    """Queues in the order of their ids."""
    query = select(LabelQueue, Dataset.name).join(Dataset, Dataset.id == LabelQueue.dataset_id)
    if dataset is not None:
        query = query.where(Dataset.name == dataset)
    if state is not None:
        query = query.where(LabelQueue.state == state)
    query = query.where(LabelQueue.id > after).order_by(LabelQueue.id).limit(limit + 1)
    with catalog.read() as session:
        rows = session.execute(query).all()
        items = [_queue_out(one, name) for one, name in rows[:limit]]
    return QueuePage(items=items, next=items[-1].id if len(rows) > limit else None)


@router.post("", status_code=201, summary="Create a queue")
def create(catalog: Catalogued, who: Curator, request: QueueRequest, response: Response) -> QueueOut:
    """Create a queue over the newest cleaned version; it serves once the workers have chosen its first tasks.

    The same request again answers 200 with the same queue; one of that name with other options is a conflict.
    """
    from workers.labeling import open_queue

    queue_id, _, state = open_queue(
        catalog,
        dataset=request.dataset,
        name=request.name,
        schema=LabelSchema.from_json(request.label_schema.model_dump(exclude_none=True)),
        strategy=request.strategy,
        overlap=request.overlap,
        lease_seconds=request.lease_seconds,
        seed=request.seed,
        held_out_share=request.held_out_share,
        refresh_every=request.refresh_every,
        random_share=request.random_share,
        gold_every=request.gold_every,
        hidden_share=request.hidden_share,
        budget=request.budget,
        model=request.model,
        requested_by=who.name,
    )
    with catalog.write() as session:
        if state == "new":
            now, target = catalog.now(session), f"queue:{queue_id}"
            audit(session, now=now, actor=who.user_id, action="queue.created", target=target)
        else:
            response.status_code = 200
        made, dataset = queue_with_dataset(session, queue_id)
        return _queue_out(made, dataset.name)


@router.get("/{queue_id}", summary="Read a queue")
def read_queue(catalog: Catalogued, _who: Anyone, queue_id: str) -> QueueOut:
    """One queue with its schema."""
    with catalog.read() as session:
        found, dataset = queue_with_dataset(session, queue_id)
        return _queue_out(found, dataset.name)


@direct.post("/{queue_id}/next", summary="Lease the next task", response_model=NextOut)
async def lease_next(queue_id: str, request: Request, wanted: NextRequest | None = None) -> Response:
    """Always 200: ``task`` is the most useful one, leased to the caller, or null with a reason and when to retry.

    Without a body a caller who holds a lease gets that one again; with ``beside`` one that is none of those.
    """
    beside = wanted.beside if wanted else []
    served = await request.app.state.desk.next_task(queue_id, request.state.identity.user_id, beside)
    if isinstance(served, queue.NoTask):
        from workers.labeling import refill

        waits = served.reason == "waiting_for_model"
        problem = await run_in_threadpool(refill, request.app.state.catalog, queue_id) if waits else None
        told = asdict(served)
        if told["retry_after_seconds"] is not None:
            told["retry_after_seconds"] += random.uniform(0, RETRY_SPREAD_SECONDS)
        return as_json(NextOut.model_validate({"task": None, **told, "problem": problem}))
    task = TaskOut.model_validate(served)
    if served.task_type == "pairwise":
        task.pair = PairOut.model_validate(split_pair(served.text))
    return as_json(NextOut(task=task))


@router.post("/{queue_id}/undo", summary="Take back the caller's last answer")
def undo(catalog: Catalogued, who: Anyone, queue_id: str) -> UndoOut:
    """Take back the caller's latest answer in this queue."""
    with catalog.write() as session:
        now = catalog.now(session)
        task_id = queue.undo(session, now=now, queue_id=queue_id, annotator_id=who.user_id)
        if task_id is not None:
            told = {"queue_id": queue_id, "annotator_id": who.user_id, "task_id": task_id}
            label_events.taken_back(session, now=now, **told)
        return UndoOut(task_id=task_id)


@router.get("/{queue_id}/progress", summary="Read a queue's progress")
def read_progress(catalog: Catalogued, counting: Counted, who: Anyone, queue_id: str) -> ProgressOut:
    """How far the queue is. Annotators see their own part only, curators everyone's.

    Of a queue that takes long to count the figures may be some seconds old.
    """
    with catalog.read() as session:
        found = counting.progress(session, now=catalog.now(session), queue_id=queue_id)
    everyone = who.role != "annotator"
    return ProgressOut(
        num_tasks=found.num_tasks,
        num_done=found.num_done,
        num_leased=found.num_leased,
        num_skipped=found.num_skipped,
        num_annotations=found.num_annotations,
        num_mine=found.annotators.get(who.user_id, 0),
        # Never what others said, while one is labeling.
        annotators=found.annotators if everyone else None,
        labels=found.labels if everyone else None,
    )


@router.get("/{queue_id}/agreement", summary="Measure a queue's agreement")
def read_agreement(
    catalog: Catalogued,
    _who: Reviewer,
    queue_id: str,
    method: Annotated[
        str | None, Query(max_length=100, description="consensus method, one that needs no classifier")
    ] = None,
    seed: Annotated[int, Query(ge=0, lt=2**31, description="of the intervals")] = 0,
) -> QualityOut:
    """Agreement with intervals, and every annotator's quality. For reviewers: annotators see nobody's answers."""
    import numpy as np

    from labeling.quality import queue_quality

    with catalog.read() as session:
        found = queue_quality(session, queue_id=queue_id, rng=np.random.default_rng(seed), method=method)
    return QualityOut.model_validate(asdict(found))


def queue_with_dataset(session: Session, queue_id: str) -> tuple[LabelQueue, Dataset]:
    """A queue and the dataset it is over.

    Raises
    ------
    NotFoundError : no such queue.
    """
    query = select(LabelQueue, Dataset).join(Dataset, Dataset.id == LabelQueue.dataset_id)
    row = session.execute(query.where(LabelQueue.id == queue_id)).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no labeling queue {queue_id[:40]!r}; the list of queues has all")
    return row[0], row[1]


def _queue_out(row: LabelQueue, dataset: str) -> QueueOut:
    return QueueOut(
        id=row.id,
        name=row.name,
        dataset=dataset,
        label_schema=SchemaModel.model_validate(LabelSchema.from_json(row.schema).to_json()),
        strategy=row.strategy,
        model=row.model,
        encoder=row.encoder,
        overlap=row.overlap,
        lease_seconds=row.lease_seconds,
        generation=row.generation,
        waiting_for_model=row.waiting_for_model,
        num_tasks=row.num_tasks,
        state=row.state,
        created_at=row.created_at,
    )
