"""What the API's routes of labeling queues take and give."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


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
