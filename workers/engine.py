"""The job engine's bookkeeping: exactly-once effects over at-least-once delivery.

A unit is claimed by one conditional update that raises its epoch. The epoch is a fencing token: a commit must name it,
so a worker that was stopped past its lease and wakes up finds its commit refused. Results, state and the messages
that follow from them (``workers.outbox``) are committed in one transaction. The sweeper (``workers.sweeping``) repairs
whatever was lost in between, so neither a dead worker nor a wiped broker loses work.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import polars as pl
from sqlalchemy import Table, and_, bindparam, func, insert, inspect, or_, select, update
from sqlalchemy.engine import CursorResult, Result
from sqlalchemy.orm import Session

from catalog.bulk import upsert_frame
from catalog.database import Catalog
from catalog.errors import ConflictError
from catalog.faults import fault
from catalog.settings import NEEDS
from catalog.store import StoredFile
from catalog.tables.base import new_id
from catalog.tables.datasets import Shard
from catalog.tables.engine import READY, UNFINISHED, UNIT_STATES, Run, Unit
from workers import beginnings, webhooks
from workers.outbox import announce, announce_all
from workers.pipelines import PIPELINES

LAST_UNITS = 64
"""From so many unfinished units of a stage on, whoever commits one looks under a lock whether it was the last."""
RUNS_LOOKED_AT = 100
"""Live runs among which a worker looks for something to do."""


class LostClaimError(ConflictError):
    """Somebody else has claimed the unit since, or its run has ended. Whatever was computed is dropped."""

    code = "lost_claim"


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A unit that is ours until the lease runs out."""

    unit_id: str
    run_id: str
    run_kind: str
    dataset_id: str
    stage: int
    stage_name: str
    needs: str
    payload: dict[str, Any]
    config: dict[str, Any]
    version_id: str | None
    epoch: int
    attempts: int
    owner: str


@dataclass(kw_only=True, slots=True)
class UnitResult:
    """What a unit hands over, committed together with its state.

    Parameters
    ----------
    result : small JSON for later stages and for people.
    shards : (kind, file) already in the store, in order.
    rows : (table, frame) to upsert.
    apply : further changes in the same transaction; gets the session and the database's time.
    """

    result: dict[str, Any] = field(default_factory=dict)
    shards: list[tuple[str, StoredFile]] = field(default_factory=list)
    rows: list[tuple[Table, pl.DataFrame]] = field(default_factory=list)
    apply: Callable[[Session, datetime], None] | None = None


def claim(catalog: Catalog, unit_id: str, owner: str) -> Claim | None:
    """Take the unit if it is ready, or if its holder's lease ran out. None when there is nothing to do."""
    with catalog.write() as session:
        return _claim(session, catalog, unit_id, owner, catalog.now(session))


def take(catalog: Catalog, hint: str, owner: str) -> Claim | None:
    """Claim the unit that a message names, or one that should come before it. None when there is nothing to do.

    Units of runs of higher priority come first. Where the named unit cannot be taken up (it is done, or its run is
    paused or has as many under way as it may), another one that is ready is: there are as many messages as ready units,
    so whatever was put off is taken up by a message that named another.
    """
    with catalog.write() as session:
        now = catalog.now(session)
        named = _named(session, hint)
        if named is not None and named.is_first and named.needs in catalog.settings.serves:
            mine = _claim(session, catalog, hint, owner, now, named)
            if mine is not None:
                return mine
        for unit_id in _candidates(session, catalog, hint):
            mine = _claim(session, catalog, unit_id, owner, now)
            if mine is not None:
                return mine
    return None


_UNITS, _RUNS = inspect(Unit).local_table.c, inspect(Run).local_table.c
_OF_RUN = (_RUNS.id, _RUNS.kind, _RUNS.dataset_id, _RUNS.config, _RUNS.version_id, _RUNS.max_units)
"""What a claim tells of a unit's run, and how many units the run may have under way."""

# What every unit needs is built once, and of columns: of a unit that does nothing, building statements is a third.
_OTHERS = inspect(Run).local_table.alias().c
_BEFORE = select(_OTHERS.id).where(
    _OTHERS.state == "running", _OTHERS.paused_at.is_(None), _OTHERS.priority > _RUNS.priority
)
_IS_FIRST = and_(
    READY, _RUNS.state == "running", _RUNS.paused_at.is_(None), ~_BEFORE.correlate(_RUNS.id.table).exists()
)
_NAMED = select(*_OF_RUN, _UNITS.needs, _IS_FIRST.label("is_first")).where(
    _UNITS.run_id == _RUNS.id, _UNITS.id == bindparam("hint")
)
_CLAIM = (
    update(_UNITS.id.table)
    .where(
        _UNITS.id == bindparam("of_unit"),
        or_(_UNITS.state == "ready", and_(_UNITS.state == "running", _UNITS.lease_until < bindparam("now"))),
        _UNITS.attempts < bindparam("max_attempts"),
        _UNITS.run_id.in_(select(_RUNS.id).where(_RUNS.state == "running", _RUNS.paused_at.is_(None))),
    )
    .values(
        state="running",
        epoch=_UNITS.epoch + 1,
        attempts=_UNITS.attempts + 1,
        owner=bindparam("new_owner"),
        lease_until=bindparam("until"),
        started_at=bindparam("now"),
        reason=None,
        num_done=0,
    )
    .returning(_UNITS.stage, _UNITS.stage_name, _UNITS.needs, _UNITS.payload, _UNITS.epoch, _UNITS.attempts)
)
_DONE = (
    update(_UNITS.id.table)
    .where(_UNITS.id == bindparam("of_unit"), _UNITS.epoch == bindparam("of_epoch"), _UNITS.state == "running")
    .values(
        state="done",
        result=bindparam("new_result"),
        finished_at=bindparam("now"),
        lease_until=None,
        num_done=bindparam("done"),
        num_total=bindparam("total"),
        peak_bytes=bindparam("peak"),
    )
)
_UNFINISHED_OF_STAGE = (
    select(_UNITS.id)
    .where(_UNITS.run_id == _RUNS.id, _UNITS.stage == _RUNS.stage, UNFINISHED)
    .limit(bindparam("most"))
    .correlate(_RUNS.id.table)
    .subquery()
)
_LEFT = select(
    _RUNS.max_units, select(func.count()).select_from(_UNFINISHED_OF_STAGE).scalar_subquery().label("num_left")
).where(_RUNS.id == bindparam("of_run"))


def _named(session: Session, hint: str) -> Any:
    """The unit of a message with its run, and whether nothing else can come before it: the usual case in one query."""
    return session.execute(_NAMED, {"hint": hint}).one_or_none()


def _candidates(session: Session, catalog: Catalog, hint: str) -> Iterator[str]:
    """Units to try, in the order of their runs' priorities; each query only runs when those before led to nothing."""
    serves = catalog.settings.serves
    named = session.execute(select(Unit.run_id, Unit.needs).where(Unit.id == hint)).one_or_none()
    live = session.execute(
        select(Run.id, Run.priority)
        .where(Run.state == "running", Run.paused_at.is_(None))
        .order_by(Run.priority.desc(), Run.created_at, Run.id)
        .limit(RUNS_LOOKED_AT)
    ).all()
    priority = next((one.priority for one in live if named is not None and one.id == named.run_id), None)
    for run_id, of_run in live:
        if priority is not None and of_run <= priority:
            priority = None
            if named is not None and named.needs in serves:
                yield hint
        # Said by what it is not: a large run's units are asked for before PostgreSQL has statistics of them, and
        # equality would then lead it to the index of all ready units, of every run: 55 ms at 400,000 of them.
        first = session.execute(
            select(Unit.id, Unit.needs)
            .where(
                Unit.run_id == run_id,
                UNFINISHED,
                Unit.state.not_in(set(UNIT_STATES) - {"ready", "done"}),
                Unit.needs.not_in(set(NEEDS) - set(serves)),
            )
            .order_by(Unit.stage, Unit.position)
            .limit(1)
            .with_for_update(skip_locked=True)
        ).one_or_none()
        if first is not None and first.needs in serves:
            yield first.id


def _claim(
    session: Session, catalog: Catalog, unit_id: str, owner: str, now: datetime, run: Any = None
) -> Claim | None:
    if run is None:
        run = _named(session, unit_id)
    if run is None or (run.max_units is not None and not _has_room(session, run.id, run.max_units)):
        return None
    unit = session.execute(
        _CLAIM,
        {
            "of_unit": unit_id,
            "now": now,
            "until": now + timedelta(seconds=catalog.settings.lease_seconds),
            "max_attempts": catalog.settings.max_attempts,
            "new_owner": owner,
        },
    ).one_or_none()
    if unit is None:
        return None
    fault("claim.before_commit")
    return Claim(
        unit_id=unit_id,
        run_id=run.id,
        run_kind=run.kind,
        dataset_id=run.dataset_id,
        stage=unit.stage,
        stage_name=unit.stage_name,
        needs=unit.needs,
        payload=unit.payload,
        config=run.config,
        version_id=run.version_id,
        epoch=unit.epoch,
        attempts=unit.attempts,
        owner=owner,
    )


def _has_room(session: Session, run_id: str, max_units: int) -> bool:
    """Whether another unit of the run may be under way. Its row is locked, or two claims would see the same room."""
    # Shared with those whose shards refer to the run, as in ``advance``.
    session.execute(select(Run.id).where(Run.id == run_id).with_for_update(key_share=True))
    under_way = session.scalar(select(func.count()).where(Unit.run_id == run_id, Unit.state == "running", UNFINISHED))
    assert under_way is not None
    return under_way < max_units


def _guarded(session: Session, mine: Claim, **values: Any) -> None:
    """Change the claimed unit only while the claim still holds."""
    outcome = session.execute(
        update(Unit)
        .where(Unit.id == mine.unit_id, Unit.epoch == mine.epoch, Unit.state == "running")
        .values(**values)
        .execution_options(synchronize_session=False)
    )
    _still_ours(mine, outcome)


def _still_ours(mine: Claim, outcome: Result[Any]) -> None:
    assert isinstance(outcome, CursorResult)
    if outcome.rowcount != 1:
        raise LostClaimError(f"unit {mine.unit_id} was claimed by another worker after epoch {mine.epoch}")


def renew(
    catalog: Catalog,
    mine: Claim,
    num_done: int,
    num_total: int,
    *,
    apply: Callable[[Session], None] | None = None,
) -> None:
    """Extend the lease and record progress.

    Parameters
    ----------
    apply : further changes in the same transaction, which a worker that has lost the unit cannot make.

    Raises
    ------
    LostClaimError : the claim is not ours any more, and nothing was written; stop working.
    """
    with catalog.write() as session:
        lease_until = catalog.now(session) + timedelta(seconds=catalog.settings.lease_seconds)
        _guarded(session, mine, lease_until=lease_until, num_done=num_done, num_total=num_total)
        if session.scalar(select(Run.state).where(Run.id == mine.run_id)) != "running":
            raise LostClaimError(f"run {mine.run_id} has ended")
        if apply is not None:
            apply(session)


def commit(
    catalog: Catalog,
    mine: Claim,
    outcome: UnitResult,
    *,
    num_done: int = 0,
    num_total: int = 0,
    peak_bytes: int | None = None,
) -> None:
    """Commit a unit's results, its state and what follows from it, or nothing.

    Parameters
    ----------
    num_done, num_total : its last progress. peak_bytes : the most resident memory that it took.

    Raises
    ------
    LostClaimError : the claim is not ours any more; nothing was written.
    """
    with catalog.write() as session:
        now = catalog.now(session)
        values = {"new_result": outcome.result, "now": now, "done": num_done, "total": num_total, "peak": peak_bytes}
        changed = session.execute(_DONE, {"of_unit": mine.unit_id, "of_epoch": mine.epoch, **values})
        _still_ours(mine, changed)
        for position, (kind, file) in enumerate(outcome.shards):
            session.add(
                Shard(
                    dataset_id=mine.dataset_id,
                    run_id=mine.run_id,
                    unit_id=mine.unit_id,
                    position=position,
                    kind=kind,
                    name=file.name,
                    sha256=file.sha256,
                    size_bytes=file.size_bytes,
                    num_rows=file.num_rows,
                )
            )
        for table, frame in outcome.rows:
            upsert_frame(session, table, frame)
        if outcome.apply is not None:
            outcome.apply(session, now)
        session.flush()
        fault("commit.inside")
        if may_go_on(session, mine.run_id, LAST_UNITS):
            advance(session, mine.run_id, now)
        fault("commit.before_end")


def may_go_on(session: Session, run_id: str, num_left: int) -> bool:
    """Whether ``advance`` may find something to do: at most so many units of the stage are unfinished.

    Its lock lets one unit of a run commit at a time, so that those far from the end of a stage do without. Should as
    many as that end between this look and our commit, nobody goes on until the next sweep does.
    """
    max_units, left = session.execute(_LEFT, {"of_run": run_id, "most": num_left + 1}).one()
    return max_units is not None or left <= num_left


def advance(session: Session, run_id: str, now: datetime) -> None:
    """Start the next stage when every unit of the present one is done; end the run after the last.

    The run's row is locked first: without that, two last units could each see the other unfinished and nobody go on.
    """
    # Shared with those whose shards refer to the run: two that commit at once both do, and would wait for each other.
    run = session.scalars(select(Run).where(Run.id == run_id).with_for_update(key_share=True)).one()
    if run.state != "running":
        return
    stages = PIPELINES[run.kind].member.stages
    while True:
        unfinished = session.scalar(
            select(Unit.id).where(Unit.run_id == run_id, Unit.stage == run.stage, UNFINISHED).limit(1)
        )
        if unfinished is not None:
            if run.max_units is not None:
                _pass_on(session, run, now)
            return
        run.stage += 1
        if run.stage >= len(stages):
            run.stage = len(stages) - 1
            run.state, run.finished_at = "done", now
            last = session.scalars(
                select(Unit.result).where(Unit.run_id == run_id, Unit.stage == run.stage).order_by(Unit.position)
            ).first()
            run.result = last
            session.flush()
            webhooks.run_ended(session, run, now)
            fault("advance.end")
            return
        session.flush()
        fault("advance.before_plan")
        plan_stage(session, run, now)
        fault("advance.after_plan")


def _pass_on(session: Session, run: Run, now: datetime) -> None:
    """A unit of a limited run made room: the message of the next one may have come while there was none."""
    waiting = session.execute(
        select(Unit.id, Unit.needs)
        .where(Unit.run_id == run.id, Unit.state == "ready", UNFINISHED)
        .order_by(Unit.stage, Unit.position)
        .limit(1)
    ).one_or_none()
    if waiting is not None:
        announce(session, waiting.id, now, waiting.needs)


def plan_stage(session: Session, run: Run, now: datetime) -> None:
    """Create the units of the run's present stage and the messages that announce them."""
    stage = PIPELINES[run.kind].member.stages[run.stage]
    units: list[dict[str, Any]] = [
        {
            "id": new_id(),
            "run_id": run.id,
            "stage": run.stage,
            "stage_name": stage.name,
            "needs": stage.needs,
            "position": position,
            "payload": payload,
            "ready_at": now,
        }
        for position, payload in enumerate(stage.plan(session, run))
    ]
    if units:
        session.execute(insert(Unit), units)
        announce_all(session, [(unit["id"], stage.needs) for unit in units], now)


def give_back(catalog: Catalog, mine: Claim) -> None:
    """Return a unit unharmed because this worker must stop; the attempt does not count."""
    with catalog.write() as session:
        now = catalog.now(session)
        _guarded(session, mine, state="ready", lease_until=None, owner=None, ready_at=now, attempts=mine.attempts - 1)
        announce(session, mine.unit_id, now, mine.needs)
        fault("give_back.before_commit")


def take_back(catalog: Catalog, owner: str) -> int:
    """Return unharmed what a worker held that was killed on purpose; the attempts do not count. How many units it was.

    Parameters
    ----------
    owner : name of a process that is certainly gone.
    """
    with catalog.write() as session:
        now = catalog.now(session)
        held = session.execute(
            update(Unit)
            .where(Unit.owner == owner, Unit.state == "running")
            .values(state="ready", lease_until=None, owner=None, ready_at=now, attempts=Unit.attempts - 1)
            .returning(Unit.id, Unit.needs)
            .execution_options(synchronize_session=False)
        ).all()
        for unit_id, needs in held:
            announce(session, unit_id, now, needs)
        fault("take_back.before_commit")
    return len(held)


def fail(catalog: Catalog, mine: Claim, reason: str, *, retry: bool) -> None:
    """Record a failure: ready again while attempts are left, else poisoned, which fails the run with the reason."""
    with catalog.write() as session:
        now = catalog.now(session)
        if retry and mine.attempts < catalog.settings.max_attempts:
            _guarded(session, mine, state="ready", lease_until=None, owner=None, ready_at=now, reason=reason)
            announce(session, mine.unit_id, now, mine.needs)
            fault("fail.before_commit")
            return
        _guarded(session, mine, state="poisoned", lease_until=None, finished_at=now, reason=reason)
        fail_run(session, mine.run_id, mine.stage_name, reason, now)
        fault("poison.before_commit")


def fail_run(session: Session, run_id: str, stage_name: str, reason: str, now: datetime) -> None:
    """End a run that still runs, because a unit of the stage gave up; the caller's transaction commits it."""
    changed = session.execute(
        update(Run)
        .where(Run.id == run_id, Run.state == "running")
        .values(state="failed", reason=f"{stage_name}: {reason}", finished_at=now)
        .execution_options(synchronize_session=False)
    )
    assert isinstance(changed, CursorResult)
    if changed.rowcount == 1:
        webhooks.run_ended(session, session.get_one(Run, run_id, populate_existing=True), now)


def find_run(session: Session, run_id: str) -> Run:
    """One run by id or unique beginning of it.

    Raises
    ------
    NotFoundError : none, or several, begin so.
    """
    return beginnings.find(session, Run, run_id, what="run", see="`winnow runs`")
