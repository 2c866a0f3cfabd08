"""What the API's routes of runs take and give."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class RunRequest(BaseModel):
    """What to run. The same request asked again is the same run."""

    model_config = ConfigDict(extra="forbid")

    kind: str = Field(description="clean, train, dedup, label_errors, difficulty or label", max_length=40)
    dataset: str = Field(min_length=1, max_length=200)
    config: dict[str, Any] = Field(
        default_factory=dict,
        description='options of the job, e.g. {"recipe": "web-text"}; recipes are presets, but for '
        'train, which takes the settings of one as "document" as well, and "compare" and "seeds"',
    )
    after: str | None = Field(
        default=None, max_length=36, description="id of a run, request or queue that must have ended first"
    )


class RunStarted(BaseModel):
    """The run that will do what was asked; read its progress at ``/api/v1/runs/{run_id}``.

    A job that waits for another is a request first: ``run_id`` is null, see ``/api/v1/requests``.
    """

    run_id: str | None
    request_id: str | None = None


class RunOut(BaseModel):
    """A run."""

    id: str
    kind: str
    dataset: str
    state: str
    reason: str | None
    priority: int
    max_units: int | None
    requested_by: str | None
    created_at: datetime
    finished_at: datetime | None


class RunPage(BaseModel):
    """Some runs, newest first; ``next`` is the ``after`` of the following page, null on the last."""

    items: list[RunOut]
    next: str | None


class WhatIfRequest(BaseModel):
    """Thresholds to try on what a cleaning run measured."""

    model_config = ConfigDict(extra="forbid")

    settings: list[str] = Field(
        min_length=1, max_length=100, description="KEY=VALUE of the recipe, e.g. word_count.minimum=30, near=off"
    )
    samples: int = Field(default=3, ge=0, le=20, description="texts shown for each rule and direction")


class Steering(BaseModel):
    """What to change about a run that is under way."""

    model_config = ConfigDict(extra="forbid")

    priority: int | None = Field(default=None, description="-100 to 100; the highest is taken up first")
    max_units: int | None = Field(default=None, description="units under way at once, at most; 0 for no limit")


class LogLine(BaseModel):
    """A line that a worker logged while it did a unit."""

    at: datetime
    stage_name: str
    position: int
    attempt: int
    worker: str | None
    level: str
    message: str


class LogLines(BaseModel):
    """The last lines of a run's log, oldest first."""

    items: list[LogLine]


class UnitOut(BaseModel):
    """One unit of a run."""

    id: str
    stage_name: str
    position: int
    state: str
    attempts: int
    owner: str | None
    num_done: int
    num_total: int
    reason: str | None


class ArmLosses(BaseModel):
    """How one arm of a training has learned so far."""

    arm: str
    seed: int | None
    control_of: str | None = Field(description="the arm whose control it is")
    replica_of: str | None = Field(description="the arm that it repeats under another seed")
    num_done: int = Field(description="updates done")
    num_steps: int = Field(description="updates in all")
    points: list[tuple[int, float]] = Field(description="last step and mean loss, in nats, of equal stretches of steps")
    memory: dict[str, int] | None = Field(description="what a step takes beyond the weights; null before it is known")


class LossList(BaseModel):
    """The arms of a training, in order."""

    items: list[ArmLosses]


class UnitList(BaseModel):
    """Units of one run."""

    items: list[UnitOut]
