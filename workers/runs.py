"""Runs as people see them: ask for one, watch it, resume it, cancel it."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, case, func, or_, select, update
from sqlalchemy.orm import Session

from catalog import tracing
from catalog.database import Catalog, one_at_a_time
from catalog.errors import ConfigError, ConflictError, NotFoundError, nearest
from catalog.faults import fault
from catalog.tables.base import new_id
from catalog.tables.datasets import Version
from catalog.tables.engine import RUN_STATES, UNFINISHED, Run, Unit, Worker
from workers import engine, outbox, process_names, webhooks
from workers.pipelines import PIPELINES, Stage

ALIVE_SECONDS = 15.0
STATES = (*RUN_STATES, "paused")
"""A run's states as people see them."""
MAX_PRIORITY = 100
MAX_UNITS = 10_000


def digest(config: dict[str, Any]) -> str:
    """SHA-256 of a config's canonical JSON."""
    return hashlib.sha256(json.dumps(config, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def submit(
    session: Session,
    *,
    now: datetime,
    kind: str,
    dataset_id: str,
    version_id: str | None,
    config: dict[str, Any],
    idempotency_key: str,
    requested_by: str | None = None,
) -> tuple[Run, str]:
    """Ask for a run. The same key again gives the same run, resumed if it had failed or been cancelled.

    A paused run stays paused.

    Returns
    -------
    the run, and ``"new"``, ``"running"``, ``"resumed"`` or ``"done"``.

    Raises
    ------
    NotFoundError : no such job kind.
    """
    pipeline = PIPELINES[kind].member
    one_at_a_time(session, f"run {idempotency_key}")
    existing = session.scalars(select(Run).where(Run.idempotency_key == idempotency_key)).one_or_none()
    if existing is not None:
        if existing.state in ("failed", "cancelled"):
            resume(session, existing, now)
            return existing, "resumed"
        return existing, existing.state
    run = Run(
        id=new_id(),
        kind=kind,
        dataset_id=dataset_id,
        version_id=version_id,
        idempotency_key=idempotency_key,
        config=config,
        config_hash=digest(config),
        requested_by=requested_by,
        created_at=now,
    )
    session.add(run)
    session.flush()
    engine.plan_stage(session, run, now)
    # The first stages may have nothing to do.
    engine.advance(session, run.id, now)
    assert pipeline.stages
    tracing.submitted(kind, run.id)
    fault("submit.before_commit")
    return run, "new"


def key_of_newest(session: Session, *, dataset_id: str, kind: str, asked: dict[str, Any], job: str) -> str:
    """The key under which to ask for a run whose version is to be the dataset's newest of its kind.

    Parameters
    ----------
    kind : of the version that the run publishes.
    asked : the part of the run's config that decides its result.
    job : the kind of the run.

    Returns
    -------
    the key of the first run that was asked for so, as long as no other version followed its own; the key of the run
    behind the newest version where that was asked for alike; else one of a new run on top of the newest version.
    """
    own = digest({job: dataset_id} | asked)
    of_kind = (Version.dataset_id == dataset_id, Version.kind == kind)
    newest = session.scalars(select(Version).where(*of_kind).order_by(Version.number.desc()).limit(1)).one_or_none()
    if newest is None:
        return own
    behind = session.get_one(Run, newest.run_id)
    if behind.kind == job and digest({key: behind.config.get(key) for key in asked}) == digest(asked):
        return behind.idempotency_key
    first = session.scalars(select(Run.state).where(Run.idempotency_key == own)).one_or_none()
    return own if first != "done" else digest({"again": own, "after": newest.id})


def resume(session: Session, run: Run, now: datetime) -> None:
    """Set a paused, failed or cancelled run going again: finished units stay, the others get fresh attempts.

    Raises
    ------
    ConflictError : the run is done, or goes on already.
    """
    if run.state == "running" and run.paused_at is not None:
        run.paused_at = None
        session.flush()
        outbox.announce_ready(session, run.id, now)
        return
    if run.state in ("running", "done"):
        raise ConflictError(f"run {run.id[:8]} is {run.state}; only a paused, failed or cancelled run can be resumed")
    unfinished = _locked(session, run)
    run.paused_at = None
    run.state, run.reason, run.finished_at = "running", None, None
    for unit in unfinished:
        unit.state, unit.attempts, unit.reason, unit.lease_until, unit.ready_at = "ready", 0, None, None, now
    session.flush()
    outbox.announce_ready(session, run.id, now)
    fault("resume.before_commit")


def _locked(session: Session, run: Run) -> Sequence[Unit]:
    """The run's unfinished units, locked before it is: whoever commits one locks them in that order too.

    The other way round both would wait for each other, and the database would break one of them off.
    """
    unfinished = (
        select(Unit)
        .where(Unit.run_id == run.id, Unit.state != "done")
        .order_by(Unit.id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    units = session.scalars(unfinished).all()
    session.refresh(run, with_for_update={"key_share": True})
    return units


def pause(run: Run, now: datetime) -> None:
    """Take up no further unit of a run until it is resumed; those under way end in peace. Safe to ask twice.

    Raises
    ------
    ConflictError : the run has ended already.
    """
    if run.state != "running":
        raise ConflictError(f"run {run.id[:8]} is {run.state}; only a running run can be paused")
    run.paused_at = run.paused_at or now


def steer(
    session: Session, run: Run, now: datetime, *, priority: int | None = None, max_units: int | None = None
) -> None:
    """Change which run is taken up first, or how many of its units are under way at once; None leaves it.

    Parameters
    ----------
    priority : -100 to 100; units of the run with the highest are taken up first, whatever is under way goes on.
    max_units : at least 1, or 0 for no limit.

    Raises
    ------
    ConfigError : a value out of range. ConflictError : the run has ended already.
    """
    check_steering(priority, max_units)
    if run.state != "running":
        raise ConflictError(f"run {run.id[:8]} is {run.state}; only a running run can be steered")
    if priority is not None:
        run.priority = priority
    if max_units is not None:
        run.max_units = max_units or None
        session.flush()
        # Those that found no room are announced no more.
        outbox.announce_ready(session, run.id, now)


def check_steering(priority: int | None, max_units: int | None) -> None:
    """Refuse what no run can be given.

    Raises
    ------
    ConfigError : a value out of range.
    """
    if priority is not None and abs(priority) > MAX_PRIORITY:
        raise ConfigError(f"priority={priority} must be {-MAX_PRIORITY} to {MAX_PRIORITY}; 0 is usual")
    if max_units is not None and not 0 <= max_units <= MAX_UNITS:
        raise ConfigError(f"max_units={max_units} must be 1 to {MAX_UNITS:,}, or 0 for no limit")


def cancel(session: Session, run: Run, now: datetime) -> None:
    """End a running run; what it has committed stays, and asking for the same run again goes on from there.

    Raises
    ------
    ConflictError : the run has ended already.
    """
    _locked(session, run)
    if run.state != "running":
        raise ConflictError(f"run {run.id[:8]} is {run.state}; only a running run can be cancelled")
    run.state, run.finished_at = "cancelled", now
    session.execute(
        update(Unit)
        .where(Unit.run_id == run.id, Unit.state.in_(("ready", "running")))
        .values(state="cancelled", lease_until=None)
        .execution_options(synchronize_session=False)
    )
    webhooks.run_ended(session, run, now)
    fault("cancel.before_commit")


def set_aside(session: Session, run: Run, now: datetime, reason: str) -> None:
    """Make a failed run a cancelled one, because another does what it was asked for; nobody need look into it.

    One that was set going again meanwhile goes on.
    """
    unfinished = _locked(session, run)
    if run.state != "failed":
        return
    run.state, run.reason, run.finished_at = "cancelled", reason, now
    for unit in unfinished:
        unit.state, unit.lease_until = "cancelled", None
    session.flush()
    webhooks.run_ended(session, run, now)


def recipe_of(run: Run) -> str:
    """Name of the recipe that a run goes by; empty where it goes by none."""
    recipe = run.config.get("recipe")
    return str(recipe.get("name", "")) if isinstance(recipe, dict) else str(recipe or "")


def shown_state(run: Run) -> str:
    """A run's state as people see it: one of ``STATES``."""
    return "paused" if run.state == "running" and run.paused_at is not None else run.state


def in_state(state: str) -> list[ColumnElement[bool]]:
    """What a query asks for runs in a state as people see it.

    Raises
    ------
    ConfigError : no such state.
    """
    if state not in STATES:
        raise ConfigError(f"there is no state {state!r}; {nearest(state, STATES)}")
    if state in ("running", "paused"):
        return [Run.state == "running", Run.paused_at.is_(None) if state == "running" else Run.paused_at.is_not(None)]
    return [Run.state == state]


@dataclass(frozen=True, kw_only=True, slots=True)
class StageProgress:
    """How far one stage is. Counts are the stage's own (records, steps); rate is counts per second."""

    name: str
    about: str
    """What the stage does, in a sentence."""
    num_units: int
    num_units_done: int
    num_done: int
    num_total: int
    """0 where the stage tells none."""
    is_estimate: bool
    """Some units have not told their total yet: they are taken to be like those that have."""
    is_over: bool
    """The run has got beyond it. Without units nothing was to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunProgress:
    """How far a run is."""

    run_id: str
    kind: str
    state: str
    reason: str | None
    stage: int
    stages: list[StageProgress]
    rate: float | None
    seconds: float
    seconds_left: float | None
    """Of the present stage, from its own rate; null until it is known."""
    run_seconds_left: float | None
    """Of the whole run: the present stage by its rate, those to come by what they took in the last run of the kind."""
    paused: bool
    priority: int
    max_units: int | None
    waiting_for: str | None
    """What the units that are ready need and no living worker serves; null when somebody can go on."""
    result: dict[str, Any] | None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


def run_progress(session: Session, run_id: str, now: datetime) -> RunProgress:
    """Where a run stands.

    Raises
    ------
    NotFoundError : no such run.
    """
    run = session.get(Run, run_id)
    if run is None:
        raise NotFoundError(f"there is no run {run_id!r}; see `winnow runs`")
    finished = Unit.state == "done"
    rows = {
        row.stage: row
        for row in session.execute(
            select(
                Unit.stage,
                func.count().label("units"),
                func.sum(case((finished, 1), else_=0)).label("done"),
                func.sum(Unit.num_done).label("num_done"),
                func.sum(Unit.num_total).label("num_total"),
                func.sum(case((or_(finished, Unit.num_total > 0), 1), else_=0)).label("told"),
                func.min(Unit.ready_at).label("began"),
            )
            .where(Unit.run_id == run_id)
            .group_by(Unit.stage)
        )
    }
    stages = [
        _stage_progress(stage, rows.get(index), is_over=run.state == "done" or index < run.stage)
        for index, stage in enumerate(PIPELINES[run.kind].member.stages)
    ]
    paused = run.state == "running" and run.paused_at is not None
    # While it is paused its rate would only tell how long.
    running = run.state == "running" and not paused
    rate, left = _rate(stages[run.stage], rows.get(run.stage), now) if running else (None, None)
    to_come = _seconds_to_come(session, run) if running and left is not None else None
    return RunProgress(
        run_id=run.id,
        kind=run.kind,
        state=run.state,
        reason=run.reason,
        stage=run.stage,
        stages=stages,
        rate=rate,
        seconds=((run.finished_at or now) - run.created_at).total_seconds(),
        seconds_left=left,
        run_seconds_left=None if left is None or to_come is None else left + to_come,
        paused=paused,
        priority=run.priority,
        max_units=run.max_units,
        waiting_for=_unserved(session, run, now) if running else None,
        result=run.result,
    )


def _stage_progress(stage: Stage, row: Any, *, is_over: bool) -> StageProgress:
    about = (stage.work.__doc__ or "").partition("\n")[0].replace("``", "")
    if row is None:
        units = done = num_done = num_total = told = 0
    else:
        units, done, told = int(row.units), int(row.done), int(row.told)
        num_done, num_total = int(row.num_done), int(row.num_total)
    return StageProgress(
        name=stage.name,
        about=about,
        num_units=units,
        num_units_done=done,
        num_done=num_done,
        num_total=round(num_total * units / told) if told else 0,
        is_estimate=0 < told < units,
        is_over=is_over,
    )


def _seconds_to_come(session: Session, run: Run) -> float | None:
    """What the stages after the present one will take: as the last finished run of the kind, by the record.

    None where there was none, or nothing says how many records either reads.
    """
    own = _num_records(session, run)
    before = session.scalars(
        select(Run)
        .where(Run.kind == run.kind, Run.state == "done", Run.id != run.id)
        .order_by((Run.dataset_id == run.dataset_id).desc(), Run.finished_at.desc())
        .limit(1)
    ).one_or_none()
    if before is None:
        return 0.0 if run.stage == len(PIPELINES[run.kind].member.stages) - 1 else None
    others = _num_records(session, before)
    spans = session.execute(
        select(func.min(Unit.ready_at).label("began"), func.max(Unit.finished_at).label("ended"))
        .where(Unit.run_id == before.id, Unit.stage > run.stage)
        .group_by(Unit.stage)
    )
    took: float = sum((one.ended - one.began).total_seconds() for one in spans if one.ended is not None)
    return took if not own or not others else took * own / others


def _num_records(session: Session, run: Run) -> int:
    return session.scalar(select(Version.num_records).where(Version.id == run.version_id)) or 0


def _unserved(session: Session, run: Run, now: datetime) -> str | None:
    ready = session.scalars(
        select(Unit.needs).where(Unit.run_id == run.id, Unit.state == "ready", UNFINISHED).limit(1)
    ).first()
    if ready is None:
        return None
    alive = session.scalars(select(Worker.needs).where(Worker.seen_at > now - timedelta(seconds=ALIVE_SECONDS)))
    return None if any(ready in needs.split(",") for needs in alive) else ready


def was_refused(session: Session, run_id: str, max_attempts: int) -> bool:
    """Whether a run failed because of what it was asked, so that asking for the same again fails alike.

    What may pass by itself, and what a stage stumbles over, is tried ``max_attempts`` times; a refusal once.
    """
    refused = (Unit.run_id == run_id, Unit.state == "poisoned", Unit.attempts < max_attempts)
    return session.scalar(select(func.count()).select_from(Unit).where(*refused)) != 0


def _rate(stage: StageProgress, row: Any, now: datetime) -> tuple[float | None, float | None]:
    if row is None or stage.num_done <= 0:
        return None, None
    seconds = (now - row.began).total_seconds()
    if seconds <= 0:
        return None, None
    rate = stage.num_done / seconds
    return rate, max(0.0, (stage.num_total - stage.num_done) / rate) if stage.num_total else None


def num_workers_alive(catalog: Catalog) -> int:
    """Worker processes that showed a sign of life lately."""
    with catalog.read() as session:
        now = catalog.now(session)
        workers = session.scalars(select(Worker)).all()
        return sum(
            1
            for worker in workers
            if (now - worker.seen_at).total_seconds() < ALIVE_SECONDS and not process_names.is_gone(worker.name)
        )
