"""The job engine's bookkeeping: exactly-once effects over at-least-once delivery.

A unit is claimed by one conditional update that raises its epoch. The epoch is a fencing token: a commit must name it,
so a worker that was stopped past its lease and wakes up finds its commit refused. Results, state and the messages
that follow from them are committed in one transaction. The sweeper repairs whatever was lost in between, so neither
a dead worker nor a wiped broker loses work.
"""

import functools
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import psutil
from sqlalchemy import Table, and_, delete, func, insert, or_, select, update
from sqlalchemy.engine import CursorResult
from sqlalchemy.orm import Session

from catalog.bulk import upsert_frame
from catalog.database import Catalog
from catalog.errors import ConflictError, NotFoundError
from catalog.faults import fault
from catalog.store import StoredFile
from catalog.tables.base import new_id
from catalog.tables.datasets import Shard
from catalog.tables.engine import Outbox, Run, Unit
from workers.pipelines import PIPELINES

RELAY_BATCH = 200
RESEND_BATCH = 10


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
    payload: dict[str, Any]
    config: dict[str, Any]
    version_id: str | None
    epoch: int
    attempts: int


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


@functools.cache
def _pid_namespace() -> str:
    path = Path("/proc/self/ns/pid")
    return path.readlink().name if path.exists() else "host"


def this_process() -> str:
    """Name of this process that no later process can share: host, PID namespace, PID, start time."""
    return name_of_process(os.getpid())


def name_of_process(pid: int) -> str:
    """The same name of another process of this machine, which lives or has ended and not been asked how."""
    started, _ended = _start(pid)
    return f"{socket.gethostname()}/{_pid_namespace()}/{pid}/{started}"


def _start(pid: int) -> tuple[str, bool]:
    """When a process was started, by a clock that nobody sets, and whether it has ended since.

    By the time of day all processes would be others after every correction of the machine's clock.

    Raises
    ------
    psutil.NoSuchProcess : there is none.
    """
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        process = psutil.Process(pid)
        return f"{process.create_time():.2f}", process.status() == psutil.STATUS_ZOMBIE
    return fields[18], state == "Z"


def is_gone(owner: str) -> bool:
    """Whether ``owner`` certainly lives no more: only ever True for a process of this machine."""
    host, namespace, pid, started = owner.rsplit("/", 3)
    if host != socket.gethostname() or namespace != _pid_namespace():
        return False
    try:
        return _start(int(pid)) != (started, False)
    except psutil.NoSuchProcess:
        return True


def claim(catalog: Catalog, unit_id: str, owner: str) -> Claim | None:
    """Take the unit if it is ready, or if its holder's lease ran out. None when there is nothing to do."""
    with catalog.write() as session:
        now = catalog.now(session)
        running = select(Run.id).where(Run.state == "running")
        free = or_(Unit.state == "ready", and_(Unit.state == "running", Unit.lease_until < now))
        row = session.execute(
            update(Unit)
            .where(Unit.id == unit_id, free, Unit.attempts < catalog.settings.max_attempts, Unit.run_id.in_(running))
            .values(
                state="running",
                epoch=Unit.epoch + 1,
                attempts=Unit.attempts + 1,
                owner=owner,
                lease_until=now + timedelta(seconds=catalog.settings.lease_seconds),
                started_at=now,
                reason=None,
                num_done=0,
            )
            .returning(Unit.epoch, Unit.attempts)
            .execution_options(synchronize_session=False)
        ).one_or_none()
        if row is None:
            return None
        unit = session.get_one(Unit, unit_id, populate_existing=True)
        run = session.get_one(Run, unit.run_id)
        fault("claim.before_commit")
        return Claim(
            unit_id=unit_id,
            run_id=run.id,
            run_kind=run.kind,
            dataset_id=run.dataset_id,
            stage=unit.stage,
            stage_name=unit.stage_name,
            payload=unit.payload,
            config=run.config,
            version_id=run.version_id,
            epoch=row.epoch,
            attempts=row.attempts,
        )


def _guarded(session: Session, mine: Claim, **values: Any) -> None:
    """Change the claimed unit only while the claim still holds."""
    outcome = session.execute(
        update(Unit)
        .where(Unit.id == mine.unit_id, Unit.epoch == mine.epoch, Unit.state == "running")
        .values(**values)
        .execution_options(synchronize_session=False)
    )
    assert isinstance(outcome, CursorResult)
    if outcome.rowcount != 1:
        raise LostClaimError(f"unit {mine.unit_id} was claimed by another worker after epoch {mine.epoch}")


def renew(catalog: Catalog, mine: Claim, num_done: int, num_total: int) -> None:
    """Extend the lease and record progress.

    Raises
    ------
    LostClaimError : the claim is not ours any more; stop working.
    """
    with catalog.write() as session:
        lease_until = catalog.now(session) + timedelta(seconds=catalog.settings.lease_seconds)
        _guarded(session, mine, lease_until=lease_until, num_done=num_done, num_total=num_total)
        if session.scalar(select(Run.state).where(Run.id == mine.run_id)) != "running":
            raise LostClaimError(f"run {mine.run_id} has ended")


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
        _guarded(
            session,
            mine,
            state="done",
            result=outcome.result,
            finished_at=now,
            lease_until=None,
            num_done=num_done,
            num_total=num_total,
            peak_bytes=peak_bytes,
        )
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
        advance(session, mine.run_id, now)
        fault("commit.before_end")


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
            select(func.count()).where(Unit.run_id == run_id, Unit.stage == run.stage, Unit.state != "done")
        )
        if unfinished:
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
            fault("advance.end")
            return
        session.flush()
        fault("advance.before_plan")
        plan_stage(session, run, now)
        fault("advance.after_plan")


def plan_stage(session: Session, run: Run, now: datetime) -> None:
    """Create the units of the run's present stage and the messages that announce them."""
    stage = PIPELINES[run.kind].member.stages[run.stage]
    for position, payload in enumerate(stage.plan(session, run)):
        unit_id = new_id()
        session.add(
            Unit(
                id=unit_id,
                run_id=run.id,
                stage=run.stage,
                stage_name=stage.name,
                position=position,
                payload=payload,
                ready_at=now,
            )
        )
        announce(session, unit_id, now)
    session.flush()


def announce(session: Session, unit_id: str, now: datetime) -> None:
    """Leave a message for the workers in the outbox, part of the caller's transaction."""
    session.execute(insert(Outbox).values(task="engine.run_unit", args=[unit_id], created_at=now))


def give_back(catalog: Catalog, mine: Claim) -> None:
    """Return a unit unharmed because this worker must stop; the attempt does not count."""
    with catalog.write() as session:
        now = catalog.now(session)
        _guarded(session, mine, state="ready", lease_until=None, owner=None, ready_at=now, attempts=mine.attempts - 1)
        announce(session, mine.unit_id, now)
        fault("give_back.before_commit")


def take_back(catalog: Catalog, owner: str) -> int:
    """Return unharmed what a worker held that was killed on purpose; the attempts do not count. How many units it was.

    Parameters
    ----------
    owner : name of a process that is certainly gone.
    """
    with catalog.write() as session:
        now = catalog.now(session)
        held = session.scalars(
            update(Unit)
            .where(Unit.owner == owner, Unit.state == "running")
            .values(state="ready", lease_until=None, owner=None, ready_at=now, attempts=Unit.attempts - 1)
            .returning(Unit.id)
            .execution_options(synchronize_session=False)
        ).all()
        for unit_id in held:
            announce(session, unit_id, now)
    return len(held)


def fail(catalog: Catalog, mine: Claim, reason: str, *, retry: bool) -> None:
    """Record a failure: ready again while attempts are left, else poisoned, which fails the run with the reason."""
    with catalog.write() as session:
        now = catalog.now(session)
        if retry and mine.attempts < catalog.settings.max_attempts:
            _guarded(session, mine, state="ready", lease_until=None, owner=None, ready_at=now, reason=reason)
            announce(session, mine.unit_id, now)
            fault("fail.before_commit")
            return
        _guarded(session, mine, state="poisoned", lease_until=None, finished_at=now, reason=reason)
        _fail_run(session, mine.run_id, mine.stage_name, reason, now)


def _fail_run(session: Session, run_id: str, stage_name: str, reason: str, now: datetime) -> None:
    session.execute(
        update(Run)
        .where(Run.id == run_id, Run.state == "running")
        .values(state="failed", reason=f"{stage_name}: {reason}", finished_at=now)
        .execution_options(synchronize_session=False)
    )


def unsent(catalog: Catalog) -> Sequence[tuple[int, str, list[Any]]]:
    """The oldest messages still in the outbox."""
    with catalog.read() as session:
        query = select(Outbox.id, Outbox.task, Outbox.args).order_by(Outbox.id).limit(RELAY_BATCH)
        return [(row.id, row.task, row.args) for row in session.execute(query)]


def mark_sent(catalog: Catalog, message_id: int) -> None:
    """Forget a message that the broker has taken."""
    with catalog.write() as session:
        session.execute(delete(Outbox).where(Outbox.id == message_id))


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepReport:
    """What a sweep repaired."""

    recovered: int = 0
    poisoned: int = 0
    resent: int = 0


def sweep(catalog: Catalog, *, idle: bool) -> SweepReport:
    """Repair what crashes left: expired leases, units out of attempts, messages that never arrived, stalled runs.

    Parameters
    ----------
    idle : this process has nothing to do, so units that stay ready have probably lost their message.
    """
    with catalog.write() as session:
        now = catalog.now(session)
        recovered, poisoned = _recover_expired(session, catalog, now)
        resent = _resend_forgotten(session, catalog, now) if idle else 0
        for run_id in session.scalars(select(Run.id).where(Run.state == "running")).all():
            advance(session, run_id, now)
        fault("sweep.inside")
    return SweepReport(recovered=recovered, poisoned=poisoned, resent=resent)


def _recover_expired(session: Session, catalog: Catalog, now: datetime) -> tuple[int, int]:
    recovered = poisoned = 0
    running = session.scalars(
        select(Unit)
        .join(Run, Run.id == Unit.run_id)
        .where(Unit.state == "running", Run.state == "running")
        # Sweepers that repair the same in two orders would wait for each other.
        .order_by(Unit.id)
    ).all()
    for unit in running:
        assert unit.lease_until is not None
        if unit.lease_until >= now and not is_gone(unit.owner or "///"):
            continue
        if unit.attempts >= catalog.settings.max_attempts:
            reason = f"its worker died or went silent {unit.attempts} times; last: {unit.owner}"
            values = {"state": "poisoned", "reason": reason, "finished_at": now, "lease_until": None}
        else:
            values = {"state": "ready", "ready_at": now, "lease_until": None, "owner": None}
        changed = session.execute(
            update(Unit)
            .where(Unit.id == unit.id, Unit.epoch == unit.epoch, Unit.state == "running")
            .values(**values)
            .execution_options(synchronize_session=False)
        )
        assert isinstance(changed, CursorResult)
        if changed.rowcount != 1:
            continue
        if values["state"] == "poisoned":
            _fail_run(session, unit.run_id, unit.stage_name, str(values["reason"]), now)
            poisoned += 1
        else:
            announce(session, unit.id, now)
            recovered += 1
    return recovered, poisoned


def _resend_forgotten(session: Session, catalog: Catalog, now: datetime) -> int:
    overdue = now - timedelta(seconds=2 * catalog.settings.sweep_seconds)
    forgotten = session.scalars(
        select(Unit.id)
        .join(Run, Run.id == Unit.run_id)
        .where(Unit.state == "ready", Unit.ready_at < overdue, Run.state == "running")
        .order_by(Unit.ready_at, Unit.id)
        .limit(RESEND_BATCH)
    ).all()
    for unit_id in forgotten:
        session.execute(update(Unit).where(Unit.id == unit_id, Unit.state == "ready").values(ready_at=now))
        announce(session, unit_id, now)
    return len(forgotten)


def find_run(session: Session, run_id: str) -> Run:
    """One run by id or unique beginning of it.

    Raises
    ------
    NotFoundError : none, or several, begin so.
    """
    exact = session.get(Run, run_id)
    if exact is not None:
        return exact
    found = session.scalars(select(Run).where(Run.id.startswith(run_id, autoescape=True)).limit(2)).all()
    if len(found) != 1 or len(run_id) < 4:
        raise NotFoundError(
            f"{'several runs begin' if len(found) > 1 else 'no run begins'} with {run_id!r}; see `winnow runs`"
        )
    return found[0]
