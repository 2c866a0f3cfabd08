"""What reviewers do with a queue: settle disagreements, hand tasks over, look back, see what the labels are worth."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from catalog.errors import NotFoundError, nearest
from catalog.tables.access import User
from catalog.tables.labeling import Annotation, LabelGeneration, LabelTask
from labeling import queue, replay, review, stopping, suggestions
from labeling.slots import DECIDES
from service.api.access import Catalogued, PageSize, Reviewer

router = APIRouter(tags=["reviews"])
QueueId = Annotated[str, Path(max_length=36)]
TaskId = Annotated[str, Path(max_length=36)]


class OpinionOut(BaseModel):
    """One annotator's answer."""

    annotator: str
    value: Any
    late: bool
    seconds_spent: float | None
    created_at: datetime


class CaseOut(BaseModel):
    """A task that annotators answered differently."""

    task_id: str
    record_id: str
    text: str
    opinions: list[OpinionOut]
    settled: OpinionOut | None


class CasePage(BaseModel):
    """Some cases by task id; ``next`` is the ``after`` of the following page, null on the last."""

    items: list[CaseOut]
    next: str | None


class DecisionRequest(BaseModel):
    """What a reviewer decides."""

    model_config = ConfigDict(extra="forbid")

    key: str = Field(pattern=r"^[A-Za-z0-9_-]{8,100}$", description="made by the client, once a decision")
    value: Any = Field(description="as an answer to the queue's question")
    note: str = Field("", max_length=2000)


class DecisionOut(BaseModel):
    """The decision as it is kept."""

    annotation_id: str


class TakenBackOut(BaseModel):
    """The task whose decision was taken back, as it waits for one now, or null: nothing to take back."""

    case: CaseOut | None


class ReassignRequest(BaseModel):
    """Who is to answer."""

    model_config = ConfigDict(extra="forbid")

    to: str = Field(min_length=1, max_length=200, description="name of a user")


class LeaseGiven(BaseModel):
    """The lease that the annotator gets next."""

    lease_id: str


class EventOut(BaseModel):
    """One thing that happened."""

    at: datetime
    kind: str
    annotator: str | None
    task_id: str | None
    detail: dict[str, Any]


class EventList(BaseModel):
    """Newest first."""

    items: list[EventOut]


class CriterionOut(BaseModel):
    """One way to tell that more labels change little."""

    name: str
    says_stop: bool | None
    figure: float | None
    limit: float
    words: str


class StrategyOut(BaseModel):
    """How tasks are chosen, what the labels are worth, and whether to ask on."""

    strategy: str
    chosen_by: str | None = Field(description="of the newest choice: what `auto` came to, for one")
    generation: int
    num_labels: int
    random_share: float
    worth: dict[str, Any] | None = Field(
        description="accuracy, labels saved against random, gain of the next 100, with intervals; null while too "
        "few tasks were drawn by chance"
    )
    advice: list[CriterionOut]
    curve: list[dict[str, Any]] = Field(description="labels and accuracy of every choice that was measured")
    anchoring: list[dict[str, Any]] = Field(
        description="by source of suggestions: agreement where they were seen, where they were not, and the difference"
    )


def names_of(session: Session, ids: set[str]) -> dict[str, str]:
    """Names of users by id; who is none, an imported annotator for one, bears the id."""
    found = dict(session.execute(select(User.id, User.name).where(User.id.in_(ids))).all())
    return {one: found.get(one, one) for one in ids}


@router.get("/queues/{queue_id}/disagreements", summary="List tasks that annotators answered differently")
def list_cases(
    catalog: Catalogued,
    _who: Reviewer,
    queue_id: QueueId,
    after: Annotated[str, Query(max_length=36)] = "",
    limit: PageSize = 50,
    *,
    settled: bool = False,
) -> CasePage:
    """Those that wait for a decision, or those that have one."""
    with catalog.read() as session:
        found = review.disagreements(session, queue_id=queue_id, after=after, limit=limit + 1, settled=settled)
        names = _people(session, found)
    more = found[limit - 1].task_id if len(found) > limit else None
    return CasePage(items=[_case(one, names) for one in found[:limit]], next=more)


def _people(session: Session, cases: Sequence[review.Disagreement]) -> dict[str, str]:
    return names_of(
        session, {one.annotator_id for case in cases for one in (*case.opinions, *filter(None, [case.settled]))}
    )


def _case(case: review.Disagreement, names: dict[str, str]) -> CaseOut:
    def opinion(one: review.Opinion) -> OpinionOut:
        told = asdict(one)
        return OpinionOut(annotator=names[told.pop("annotator_id")], **told)

    return CaseOut(
        task_id=case.task_id,
        record_id=case.record_id,
        text=case.text,
        opinions=sorted(map(opinion, case.opinions), key=lambda one: one.annotator),
        settled=None if case.settled is None else opinion(case.settled),
    )


@router.put("/tasks/{task_id}/decision", summary="Settle a task")
def decide(catalog: Catalogued, who: Reviewer, task_id: TaskId, request: DecisionRequest) -> DecisionOut:
    """The caller's answer is the task's label, whatever annotators said. A later decision takes its place."""
    with catalog.write() as session:
        made = review.adjudicate(
            session,
            now=catalog.now(session),
            task_id=task_id,
            reviewer_id=who.user_id,
            value=request.value,
            key=request.key,
            note=request.note,
        )
    return DecisionOut(annotation_id=made)


@router.post("/queues/{queue_id}/decisions/undo", summary="Take back the caller's last decision")
def take_back(catalog: Catalogued, who: Reviewer, queue_id: QueueId) -> TakenBackOut:
    """Its task waits for a decision again; the one before it, if there was one, does not come back."""
    with catalog.write() as session:
        found = review.take_back(session, now=catalog.now(session), queue_id=queue_id, reviewer_id=who.user_id)
        return TakenBackOut(case=None if found is None else _case(found, _people(session, [found])))


@router.post("/tasks/{task_id}/reassign", summary="Give a task to somebody")
def reassign(catalog: Catalogued, who: Reviewer, task_id: TaskId, request: ReassignRequest) -> LeaseGiven:
    """The task is what this person gets next; the lease runs out like any other."""
    with catalog.write() as session:
        person = session.scalars(select(User).where(User.name == request.to)).one_or_none()
        if person is None:
            names = session.scalars(select(User.name)).all()
            raise NotFoundError(f"there is no user {request.to!r}; {nearest(request.to, names)}")
        now = catalog.now(session)
        lease_id = review.reassign(session, now=now, task_id=task_id, to=person.id, by=who.user_id)
    return LeaseGiven(lease_id=lease_id)


@router.get("/queues/{queue_id}/history", summary="Read what happened in a queue")
def read_history(
    catalog: Catalogued,
    _who: Reviewer,
    queue_id: QueueId,
    task: Annotated[str | None, Query(max_length=36)] = None,
    annotator: Annotated[str | None, Query(max_length=200, description="name of a user")] = None,
    until: datetime | None = None,
    limit: PageSize = 50,
) -> EventList:
    """Newest first: why somebody got a task stands in its ``served``."""
    with catalog.read() as session:
        who = None
        if annotator is not None:
            who = session.scalar(select(User.id).where(User.name == annotator)) or annotator
        found = replay.history(session, queue_id=queue_id, task_id=task, annotator_id=who, until=until, limit=limit)
        names = names_of(session, {(one.annotator_id or "").removeprefix(DECIDES) for one in found})
    return EventList(
        items=[
            EventOut(
                at=one.at,
                kind=one.kind,
                annotator=None if one.annotator_id is None else names[one.annotator_id.removeprefix(DECIDES)],
                task_id=one.task_id,
                detail=one.detail,
            )
            for one in found
        ]
    )


@router.get("/queues/{queue_id}/strategy", summary="Read what the labels are worth, and whether to ask on")
def read_strategy(catalog: Catalogued, _who: Reviewer, queue_id: QueueId) -> StrategyOut:
    """Advice, never an end: the queue serves on whatever it says."""
    with catalog.read() as session:
        return strategy_of(session, queue_id)


def strategy_of(session: Session, queue_id: str) -> StrategyOut:
    """What is known of a queue's choices, for the API, the command and the page.

    Raises
    ------
    NotFoundError : no such queue.
    """
    found = queue.open_queue(session, queue_id, even_closed=True)
    choices = session.scalars(
        select(LabelGeneration).where(LabelGeneration.queue_id == queue_id).order_by(LabelGeneration.generation)
    ).all()
    figures = [one.figures for one in choices]
    num_answers = session.scalar(
        select(func.count())
        .select_from(Annotation)
        .join(LabelTask, LabelTask.id == Annotation.task_id)
        .where(Annotation.queue_id == queue_id, Annotation.retracted.is_(None), Annotation.origin == "annotator")
    )
    worths = [one["worth"] for one in figures if one.get("worth")]
    advice = stopping.advice(figures, num_answers=num_answers or 0, budget=found.budget)
    measured = {one["num_labels"]: one["accuracy"] for one in worths}
    return StrategyOut(
        strategy=found.strategy,
        chosen_by=choices[-1].strategy if choices else None,
        generation=found.generation,
        num_labels=choices[-1].num_labels if choices else 0,
        random_share=found.random_share,
        worth=worths[-1] if worths else None,
        advice=[CriterionOut(**asdict(one)) for one in advice],
        anchoring=[asdict(one) for one in suggestions.anchoring(session, queue_id=queue_id)],
        curve=[{"num_labels": labels, **accuracy} for labels, accuracy in measured.items()],
    )
