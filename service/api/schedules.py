"""Schedules and requests: what starts by itself, and what waits for something else."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog.errors import ConfigError
from catalog.tables.schedules import Firing, Request, Schedule
from service.api.access import Catalogued, Curator, PageSize
from service.auth import audit
from workers import schedules
from workers.jobs import check_job
from workers.outcomes import came_of
from workers.requests import cancel_request, find_request, waits_for

router = APIRouter(tags=["schedules"])

Name = Annotated[str, Field(min_length=1, max_length=100)]


class ScheduleRequest(BaseModel):
    """A job that starts by itself. Folders are watched by command only: a path would read the server's own files."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    dataset: str = Field(min_length=1, max_length=200)
    kind: str = Field(description="clean, train, dedup, label_errors or difficulty")
    config: dict[str, Any] = Field(default_factory=dict, description="options of the job; presets only")
    cron: str | None = Field(default=None, max_length=200, description="minute hour day month weekday")
    on: Literal["ingest", "clean"] | None = None
    timezone: str = Field(default="UTC", max_length=60)
    missed: Literal["once", "skip"] = "once"
    priority: int = 0
    max_units: int | None = Field(default=None, ge=1)


class ScheduleChange(BaseModel):
    """What to change about a schedule; what is left out stays."""

    model_config = ConfigDict(extra="forbid")

    enabled: bool | None = None
    cron: str | None = Field(default=None, max_length=200)
    timezone: str | None = Field(default=None, max_length=60)
    missed: Literal["once", "skip"] | None = None
    priority: int | None = None
    max_units: int | None = Field(default=None, description="0 for no limit")
    config: dict[str, Any] | None = Field(default=None, description="options of the job; presets only")


class ScheduleOut(BaseModel):
    """A schedule."""

    name: str
    dataset: str
    kind: str
    when: str
    trigger: str
    cron: str | None
    timezone: str
    folder: str | None
    missed: str
    priority: int
    max_units: int | None
    enabled: bool
    next_at: datetime | None
    problem: str | None
    created_by: str | None


class ScheduleList(BaseModel):
    """All schedules by name."""

    items: list[ScheduleOut]


class FiringOut(BaseModel):
    """One time that a schedule was due."""

    due_at: datetime
    outcome: str
    run_id: str | None
    then_run_id: str | None = Field(description="of a watched folder, the run of the job that followed the ingest")
    reason: str | None = Field(description="why nothing was started, and what is worth a look about the runs")
    settled_at: datetime | None


class FiringList(BaseModel):
    """Times that a schedule was due, newest first."""

    items: list[FiringOut]


class RequestOut(BaseModel):
    """A job that waits for something else to end, or did."""

    id: str
    dataset: str
    kind: str
    state: str
    waits_for: str | None
    run_id: str | None
    queue_id: str | None
    reason: str | None
    requested_by: str | None
    created_at: datetime


class RequestList(BaseModel):
    """Requests, newest first."""

    items: list[RequestOut]


@router.get("/schedules", summary="List schedules")
def list_schedules(catalog: Catalogued, _who: Curator) -> ScheduleList:
    """All schedules by name."""
    with catalog.read() as session:
        return ScheduleList(items=[_out(one) for one in session.scalars(select(Schedule).order_by(Schedule.name))])


@router.post("/schedules", status_code=201, summary="Add a schedule")
def add_schedule(catalog: Catalogued, who: Curator, asked: ScheduleRequest) -> ScheduleOut:
    """Let a job start by itself, by the clock or whenever there is new data."""
    check_job(asked.kind, asked.config)
    wanted = schedules.Wanted(**asked.model_dump())
    with catalog.write() as session:
        now = catalog.now(session)
        made = schedules.add_schedule(session, catalog.settings, wanted, now=now, created_by=who.name)
        audit(session, now=now, actor=who.user_id, action="schedule.added", target=f"schedule:{made.name}", detail={})
        return _out(made)


@router.patch("/schedules/{name}", summary="Change a schedule")
def change_schedule(catalog: Catalogued, who: Curator, name: str, asked: ScheduleChange) -> ScheduleOut:
    """Change some of a schedule, or switch it off and on."""
    with catalog.write() as session:
        found = schedules.find_schedule(session, name)
        if asked.config is not None:
            check_job(found.kind, asked.config)
        now = catalog.now(session)
        schedules.change_schedule(session, found, now, **asked.model_dump())
        detail = asked.model_dump(exclude_none=True)
        audit(session, now=now, actor=who.user_id, action="schedule.changed", target=f"schedule:{name}", detail=detail)
        return _out(found)


@router.delete("/schedules/{name}", status_code=204, summary="Remove a schedule")
def remove_schedule(catalog: Catalogued, who: Curator, name: str) -> Response:
    """Remove a schedule and its history; runs that it started stay."""
    with catalog.write() as session:
        now = catalog.now(session)
        schedules.remove_schedule(session, schedules.find_schedule(session, name), now)
        audit(session, now=now, actor=who.user_id, action="schedule.removed", target=f"schedule:{name}", detail={})
    return Response(status_code=204)


@router.post("/schedules/{name}/run", status_code=202, summary="Let a schedule be due now")
def run_schedule(catalog: Catalogued, who: Curator, name: str) -> ScheduleOut:
    """Let a schedule be due at once, besides its own times."""
    with catalog.write() as session:
        found, now = schedules.find_schedule(session, name), catalog.now(session)
        schedules.fire_now(session, found, now)
        audit(session, now=now, actor=who.user_id, action="schedule.run", target=f"schedule:{name}", detail={})
        return _out(found)


@router.get("/schedules/{name}/history", summary="Read what came of a schedule")
def read_history(catalog: Catalogued, _who: Curator, name: str, limit: PageSize = 50) -> FiringList:
    """The last times that a schedule was due, newest first."""
    with catalog.read() as session:
        found = schedules.find_schedule(session, name)
        query = select(Firing).where(Firing.schedule_id == found.id).order_by(Firing.due_at.desc()).limit(limit)
        return FiringList(items=[_firing_out(session, one) for one in session.scalars(query)])


@router.get("/requests", summary="List requests")
def list_requests(
    catalog: Catalogued,
    _who: Curator,
    state: Annotated[Literal["waiting", "started", "refused", "cancelled"] | None, Query()] = None,
    limit: PageSize = 50,
) -> RequestList:
    """Jobs that wait for something else to end, newest first."""
    query = select(Request) if state is None else select(Request).where(Request.state == state)
    with catalog.read() as session:
        rows = session.scalars(query.order_by(Request.created_at.desc(), Request.id).limit(limit))
        items = [
            RequestOut(
                id=one.id,
                dataset=one.dataset,
                kind=one.kind,
                state=one.state,
                waits_for=waits_for(session, one) if one.state == "waiting" else None,
                run_id=one.run_id,
                queue_id=one.queue_id,
                reason=one.reason,
                requested_by=one.requested_by,
                created_at=one.created_at,
            )
            for one in rows
        ]
    return RequestList(items=items)


@router.delete("/requests/{request_id}", status_code=204, summary="Cancel a request")
def cancel(catalog: Catalogued, who: Curator, request_id: str) -> Response:
    """Let a waiting request never start."""
    if len(request_id) > 36:
        raise ConfigError("a request's id has at most 36 characters; see /api/v1/requests")
    with catalog.write() as session:
        found, now = find_request(session, request_id), catalog.now(session)
        cancel_request(found, now)
        audit(session, now=now, actor=who.user_id, action="request.cancelled", target=f"request:{found.id}", detail={})
    return Response(status_code=204)


def _firing_out(session: Session, one: Firing) -> FiringOut:
    came = came_of(session, one)
    return FiringOut(
        due_at=one.due_at,
        outcome=one.outcome,
        run_id=came.run_id,
        then_run_id=came.then_run_id,
        reason=came.reason or None,
        settled_at=one.settled_at,
    )


def _out(one: Schedule) -> ScheduleOut:
    given = {name: getattr(one, name) for name in ScheduleOut.model_fields if name != "when"}
    return ScheduleOut(when=schedules.when(one), **given)
