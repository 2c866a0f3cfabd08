"""Runs: start one, list them, watch one."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from catalog.database import Catalog
from catalog.errors import ConfigError, NotFoundError
from catalog.store import Store
from catalog.tables.datasets import Dataset
from catalog.tables.engine import Run, Unit, UnitLog
from service.api.access import Catalogued, Curator, PageSize
from service.api.run_models import (
    ArmLosses,
    LogLine,
    LogLines,
    LossList,
    RunOut,
    RunPage,
    RunRequest,
    RunStarted,
    Steering,
    UnitList,
    UnitOut,
    WhatIfRequest,
)
from service.auth import Identity, audit
from service.losses import arm_curves
from workers.runs import STATES, in_state, shown_state

router = APIRouter(prefix="/runs", tags=["runs"])

MAX_UNITS = 100


@router.get("", summary="List runs")
def list_runs(
    catalog: Catalogued,
    _who: Curator,
    dataset: Annotated[str | None, Query(description="only runs over this dataset", max_length=200)] = None,
    state: Annotated[str | None, Query(description=f"only runs that are {', '.join(STATES)}", max_length=20)] = None,
    after: Annotated[str | None, Query(description="id of the last run of the page before", max_length=36)] = None,
    limit: PageSize = 50,
) -> RunPage:
    """Runs, newest first."""
    query = select(Run, Dataset.name).join(Dataset, Dataset.id == Run.dataset_id)
    with catalog.read() as session:
        if dataset is not None:
            query = query.where(Dataset.name == dataset)
        if state is not None:
            query = query.where(*in_state(state))
        if after is not None:
            last = session.get(Run, after)
            if last is None:
                raise ConfigError(f"after={after!r} is no run; send back `next` of the page before")
            earlier = and_(Run.created_at == last.created_at, Run.id < last.id)
            query = query.where(or_(Run.created_at < last.created_at, earlier))
        query = query.order_by(Run.created_at.desc(), Run.id.desc()).limit(limit + 1)
        rows = session.execute(query).all()
        items = [_run_out(run, name) for run, name in rows[:limit]]
    return RunPage(items=items, next=items[-1].id if len(rows) > limit else None)


@router.post("", status_code=202, summary="Start a run")
def start_run(catalog: Catalogued, who: Curator, request: RunRequest, response: Response) -> RunStarted:
    """Accept a job. It runs in the workers; ``Location`` says where to watch it."""
    from workers.jobs import check_job, submit_run
    from workers.requests import ask_after

    if request.after is not None:
        check_job(request.kind, request.config)
        with catalog.write() as session:
            now = catalog.now(session)
            waiting = ask_after(session, now=now, requested_by=who.name, **request.model_dump())
            audit(
                session,
                now=now,
                actor=who.user_id,
                action="request.added",
                target=f"request:{waiting.id}",
                detail={"kind": request.kind, "dataset": request.dataset},
            )
            response.headers["Location"] = "/api/v1/requests"
            return RunStarted(run_id=None, request_id=waiting.id)
    run_id = submit_run(
        catalog, kind=request.kind, dataset=request.dataset, config=request.config, requested_by=who.name
    )
    with catalog.write() as session:
        audit(
            session,
            now=catalog.now(session),
            actor=who.user_id,
            action="run.requested",
            target=f"run:{run_id}",
            detail={"kind": request.kind, "dataset": request.dataset},
        )
    response.headers["Location"] = f"/api/v1/runs/{run_id}"
    return RunStarted(run_id=run_id)


@router.get("/{run_id}", summary="Read a run's progress")
def read_run(catalog: Catalogued, _who: Curator, run_id: str) -> dict[str, Any]:
    """State, stages, rate and time left of one run, and its result when it is done."""
    with catalog.read() as session:
        return progress_of(session, run_id, catalog.now(session))


@router.get("/{run_id}/units", summary="List a run's units that need watching")
def list_units(catalog: Catalogued, _who: Curator, run_id: str) -> UnitList:
    """The units under way and those that gave up, with the reason; at most ``MAX_UNITS``."""
    with catalog.read() as session:
        if session.get(Run, run_id) is None:
            raise _no_run(run_id)
        return UnitList(items=units_of(session, run_id))


@router.get("/{run_id}/losses", summary="Read how a training's arms learn")
def list_losses(
    catalog: Catalogued,
    _who: Curator,
    run_id: str,
    points: Annotated[int, Query(description="of an arm, at most", ge=1, le=1000)] = 200,
) -> LossList:
    """Losses by step of every arm, also while it is trained, and the memory that it takes; none of other runs."""
    with catalog.read() as session:
        run = session.get(Run, run_id)
        if run is None:
            raise _no_run(run_id)
        curves = arm_curves(session, run, limit=points)
        return LossList(items=[ArmLosses.model_validate(one, from_attributes=True) for one in curves])


@router.get("/{run_id}/log", summary="Read what workers logged")
def read_log(catalog: Catalogued, _who: Curator, run_id: str, limit: PageSize = 50) -> LogLines:
    """The last lines that were logged while the run's units were done, with why attempts failed."""
    with catalog.read() as session:
        if session.get(Run, run_id) is None:
            raise _no_run(run_id)
        return LogLines(items=log_of(session, run_id, limit))


@router.post("/{run_id}/pause", summary="Pause a run")
def pause_run(catalog: Catalogued, who: Curator, run_id: str) -> RunOut:
    """Take up no further unit; those under way end in peace."""
    from workers import runs

    return _changed(catalog, who, run_id, "run.paused", lambda _session, run, now: runs.pause(run, now))


@router.post("/{run_id}/resume", summary="Resume a run")
def resume_run(catalog: Catalogued, who: Curator, run_id: str) -> RunOut:
    """Go on with a paused, failed or cancelled run; what it has finished stays, failed units are tried anew."""
    from workers import runs

    return _changed(catalog, who, run_id, "run.resumed", runs.resume)


@router.post("/{run_id}/cancel", summary="Cancel a run")
def cancel_run(catalog: Catalogued, who: Curator, run_id: str) -> RunOut:
    """End a running run; what it has finished is kept."""
    from workers import runs

    return _changed(catalog, who, run_id, "run.cancelled", runs.cancel)


@router.patch("/{run_id}", summary="Steer a run")
def steer_run(catalog: Catalogued, who: Curator, run_id: str, asked: Steering) -> RunOut:
    """Change which run comes first, or how much of one is done at once; what is left out stays."""
    from workers import runs

    def change(session: Session, run: Run, now: datetime) -> None:
        runs.steer(session, run, now, priority=asked.priority, max_units=asked.max_units)

    return _changed(catalog, who, run_id, "run.steered", change, asked.model_dump(exclude_none=True))


def _changed(
    catalog: Catalog,
    who: Identity,
    run_id: str,
    action: str,
    change: Callable[[Session, Run, datetime], None],
    detail: dict[str, Any] | None = None,
) -> RunOut:
    with catalog.write() as session:
        now = catalog.now(session)
        run = session.get(Run, run_id, with_for_update=True)
        if run is None:
            raise _no_run(run_id)
        change(session, run, now)
        audit(session, now=now, actor=who.user_id, action=action, target=f"run:{run.id}", detail=detail or {})
        return _run_out(run, session.get_one(Dataset, run.dataset_id).name)


@router.post("/{run_id}/what-if", summary="Ask who would stay under other thresholds")
def ask_what_if(catalog: Catalogued, _who: Curator, run_id: str, request: WhatIfRequest) -> dict[str, Any]:
    """Who would return and leave, by rule, source and language, with samples; nothing is changed."""
    from workers.whatif import find_judging, what_if

    with catalog.read() as session:
        run = find_judging(session, run_id)
        return what_if(session, Store.of(catalog.settings), run, request.settings, samples=request.samples)


@router.post("/{run_id}/what-if/versions", status_code=202, summary="Make a what-if a version")
def publish_what_if(
    catalog: Catalogued, who: Curator, run_id: str, request: WhatIfRequest, response: Response
) -> RunStarted:
    """Accept a run that publishes what other thresholds leave; ``Location`` says where to watch it."""
    from workers.pipelines.what_if import submit_what_if

    made, _ = submit_what_if(catalog, run=run_id, settings=request.settings, requested_by=who.name)
    with catalog.write() as session:
        audit(
            session,
            now=catalog.now(session),
            actor=who.user_id,
            action="run.requested",
            target=f"run:{made}",
            detail={"kind": "what_if", "of": run_id, "settings": request.settings},
        )
    response.headers["Location"] = f"/api/v1/runs/{made}"
    return RunStarted(run_id=made)


def progress_of(session: Session, run_id: str, now: datetime) -> dict[str, Any]:
    """``workers.runs.run_progress`` as plain JSON values.

    Raises
    ------
    NotFoundError : no such run.
    """
    from workers.runs import run_progress

    if session.get(Run, run_id) is None:
        raise _no_run(run_id)
    return run_progress(session, run_id, now).to_json()


def units_of(session: Session, run_id: str) -> list[UnitOut]:
    """The units of a run that are poisoned or running, poisoned first."""
    query = (
        select(Unit)
        .where(Unit.run_id == run_id, Unit.state.in_(("poisoned", "running")))
        .order_by(Unit.state, Unit.stage, Unit.position)
        .limit(MAX_UNITS)
    )
    return [UnitOut.model_validate(unit, from_attributes=True) for unit in session.scalars(query)]


def log_of(session: Session, run_id: str, limit: int = 50) -> list[LogLine]:
    """The last lines of a run's log, oldest first."""
    query = select(UnitLog, Unit.stage_name, Unit.position).join(Unit, Unit.id == UnitLog.unit_id)
    rows = session.execute(query.where(UnitLog.run_id == run_id).order_by(UnitLog.id.desc()).limit(limit)).all()
    return [
        LogLine(
            at=line.at,
            stage_name=stage_name,
            position=position,
            attempt=line.epoch,
            worker=line.worker,
            level=line.level,
            message=line.message,
        )
        for line, stage_name, position in reversed(rows)
    ]


def _no_run(run_id: str) -> NotFoundError:
    return NotFoundError(f"there is no run {run_id[:40]!r}; the list of runs has all")


def _run_out(run: Run, dataset: str) -> RunOut:
    return RunOut(
        id=run.id,
        kind=run.kind,
        dataset=dataset,
        state=shown_state(run),
        reason=run.reason,
        priority=run.priority,
        max_units=run.max_units,
        requested_by=run.requested_by,
        created_at=run.created_at,
        finished_at=run.finished_at,
    )
