"""Labeling queues: list, create, ask for the next task, undo, watch progress."""

import random
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
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
from service.auth import audit
from workers import label_events

router = APIRouter(prefix="/queues", tags=["queues"])
direct = APIRouter(prefix="/queues", tags=["queues"], route_class=Direct)

RETRY_SPREAD_SECONDS = 0.5
"""Everybody who waits is told the same moment, when the earliest lease ends: a hundred at once would queue up behind
one another."""


class LabelModel(BaseModel):
    """One label of a schema."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=200)
    hotkey: str | None = Field(None, max_length=1, description="one character; s, z, g and ? belong to the page")
    description: str = Field("", max_length=2000)
    was: str | None = Field(None, max_length=200, description="its name in the version before, where it was renamed")


class SchemaModel(BaseModel):
    """What annotators are asked. Options of the task (``max_labels``, ``overlapping``, ``ties``, …) stand beside these.

    The label schema itself refuses unknown ones, with the nearest known.
    """

    model_config = ConfigDict(extra="allow")

    labels: list[LabelModel] = Field([], max_length=1000)
    task: str = Field("single_choice", max_length=100, description="task type: docs/labeling.md")
    question: str = Field("", max_length=2000, description="the task type's own question when left out")
    guidelines: str = Field("", max_length=200_000)
    version: int = Field(1, ge=1)
    examples: list[dict[str, Any]] = Field([], max_length=100, description="text, answer, note")


class QueueRequest(BaseModel):
    """A queue to create over the newest cleaned version of a dataset.

    What is null was not given: a new queue has the default, and one that exists is the same whatever it has there.
    """

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=200)
    dataset: str = Field(min_length=1, max_length=200)
    label_schema: SchemaModel = Field(alias="schema")
    strategy: str | None = Field(None, max_length=100, description="query strategy; auto when left out")
    overlap: int | None = Field(None, ge=1, le=100, description="different annotators a task; 1 when left out")
    lease_seconds: float | None = Field(None, ge=1, le=86_400, description="WINNOW_LABEL_LEASE_SECONDS when left out")
    seed: int | None = Field(None, ge=0, lt=2**63, description="0 when left out")
    held_out_share: float | None = Field(
        None, ge=0, le=0.9, description="records never asked about, for measuring the model; none when left out"
    )
    refresh_every: int | None = Field(
        None, ge=1, le=10**9, description="finished tasks between two fits of the model; 20 when left out"
    )
    random_share: float | None = Field(
        None, ge=0, le=1, description="tasks that chance draws, to know what the labels are worth; 0.1 when left out"
    )
    gold_every: int | None = Field(
        None, ge=0, le=10_000, description="one task in so many is one whose answer is known; 0, or left out: none"
    )
    hidden_share: float | None = Field(
        None, ge=0, le=1, description="tasks with a suggestion that are served without it; none when left out"
    )
    budget: int | None = Field(None, ge=1, lt=2**63, description="answers that may be spent; nothing stops at it")
    model: str | None = Field(
        None,
        max_length=100,
        description="linear (when left out), setfit, checkpoint or checkpoint:RUN: docs/labeling_models.md",
    )


class QueueOut(BaseModel):
    """A labeling queue."""

    id: str
    name: str
    dataset: str
    label_schema: SchemaModel = Field(serialization_alias="schema")
    strategy: str
    model: str = Field(description="whose doubt the strategy goes by: docs/labeling_models.md")
    encoder: str
    overlap: int
    lease_seconds: float
    generation: int
    waiting_for_model: bool
    num_tasks: int
    state: str
    created_at: datetime


class QueuePage(BaseModel):
    """Some queues by id; ``next`` is the ``after`` of the following page, null on the last."""

    items: list[QueueOut]
    next: str | None


class PairOut(BaseModel):
    """The two texts of a pairwise task, whichever side of the page shows which, and what stands above both."""

    a: str
    b: str
    prompt: str | None


class SuggestionOut(BaseModel):
    """What a model says of the task, for the annotator to take or not."""

    value: Any
    score: float | None
    source: str


class TaskOut(BaseModel):
    """A task leased to the caller: answer with ``PUT /api/v1/leases/{lease_id}/annotation``."""

    model_config = ConfigDict(from_attributes=True)

    lease_id: str
    task_id: str
    record_id: str
    text: str
    why: str = Field(description="why this item was picked, for the annotator")
    utility: float
    rank: int
    generation: int
    expires_at: datetime
    schema_version: int = Field(description="of the schema that answers go by now; a page that shows another loads it")
    pair: PairOut | None = Field(None, description="of a pairwise queue: its text, taken apart")
    suggestion: SuggestionOut | None = Field(None, description="null: none, or it is kept from the caller")


class NextRequest(BaseModel):
    """What the caller has in hand."""

    model_config = ConfigDict(extra="forbid")

    beside: list[str] = Field(
        [], max_length=20, description="leases in hand: one more is wanted, to be there when these are answered"
    )


class NextOut(BaseModel):
    """The next task, or why there is none: everything is done, others hold the rest, or a model is being fitted."""

    task: TaskOut | None
    reason: Literal["done", "all_leased", "waiting_for_model"] | None = None
    retry_after_seconds: float | None = None
    problem: str | None = Field(None, description="why it takes long to choose the next tasks, when something failed")


class UndoOut(BaseModel):
    """The task whose answer was taken back (ask for the next task to get it again), or null: nothing to undo."""

    task_id: str | None


class ProgressOut(BaseModel):
    """How far a queue is."""

    num_tasks: int = Field(description="records ever offered")
    num_done: int = Field(description="tasks with as many answers as the overlap asks for")
    num_leased: int
    num_skipped: int
    num_annotations: int = Field(description="answers that count, late ones included")
    num_mine: int = Field(description="of those, the caller's")
    annotators: dict[str, int] | None = Field(description="answers by user id; null for annotators")
    labels: dict[str, int] | None = Field(description="answers by label; null for annotators")


class AgreementOut(BaseModel):
    """One measure of agreement, or the reason why there is none."""

    measure: str
    value: float | None = Field(description="1 is perfect, 0 what chance gives")
    reason: str | None = Field(description="why there is no value, or no interval")
    low: float | None = Field(description="interval at 95 %")
    high: float | None
    num_items: int = Field(description="items with at least two answers")
    num_annotations: int


class KappaOut(BaseModel):
    """Cohen's kappa of two annotators."""

    annotator_id: str
    other_id: str
    num_items: int
    observed: float = Field(description="share of equal answers")
    kappa: float | None
    reason: str | None


class AnnotatorOut(BaseModel):
    """How good one annotator is; null where too little is known to tell."""

    annotator_id: str
    num_answers: int
    num_shared: int = Field(description="answers to items that others answered too")
    agreement_with_others: float | None
    quality: float | None = Field(description="how likely an answer is right, by the consensus method")
    accuracy: float | None = Field(description="share of the shared answers that equal the consensus")
    low: float | None = Field(description="interval of the accuracy at 95 %")
    high: float | None
    num_timed: int
    median_seconds: float | None
    p10_seconds: float | None
    p90_seconds: float | None
    first: float | None = Field(description="share right in the first third of the answers")
    last: float | None = Field(description="share right in the last third")
    change: float | None
    change_low: float | None = Field(description="interval of the change at 95 %")
    change_high: float | None
    drifts: bool | None = Field(description="whether that interval leaves 0 out")
    confusion: list[tuple[str, str, int]] = Field(description="consensus, given, answers")


class QualityOut(BaseModel):
    """What a queue's answers are worth."""

    task: str
    num_items: int
    num_answers: int
    method: str | None = Field(description="consensus method; null where answers are no labels to decide between")
    mean_confidence: float | None
    agreement: list[AgreementOut] = Field(description="the one to quote first")
    mean_kappa: float | None
    pairs: list[KappaOut]
    annotators: list[AnnotatorOut]


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
        raise NotFoundError(
            f"there is no labeling queue {queue_id[:40]!r}; the start page lists the open ones, GET /api/v1/queues all"
        )
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
