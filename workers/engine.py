"""The job engine's bookkeeping: exactly-once effects over at-least-once delivery.

A unit is claimed by one conditional update that raises its epoch. The epoch is a fencing token: a commit must name it,
so a worker that was stopped past its lease and wakes up finds its commit refused. Results, state and the messages
that follow from them are committed in one transaction. The sweeper repairs whatever was lost in between, so neither
a dead worker nor a wiped broker loses work.
"""

import functools
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import psutil
from sqlalchemy import Table, and_, bindparam, delete, func, insert, inspect, or_, select, update
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
from catalog.tables.engine import READY, UNFINISHED, UNIT_STATES, Outbox, Run, Unit, UnitLog
from workers import beginnings, webhooks
from workers.pipelines import PIPELINES

RELAY_BATCH = 200
RESEND_BATCH = 10
LAST_UNITS = 64
"""From so many unfinished units of a stage on, whoever commits one looks under a lock whether it was the last."""
RUNS_LOOKED_AT = 100
"""Live runs among which a worker looks for something to do."""


UNSENT = threading.Event()
"""This process left messages in the outbox since it last looked there."""


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


@functools.cache
def _pid_namespace() -> str:
    path = Path("/proc/self/ns/pid")
    return path.readlink().name if path.exists() else "host"


def this_process() -> str:
    """Name of this process that no later process can share: host, PID namespace, PID, start time."""
    return _own_name(os.getpid())


@functools.cache
def _own_name(pid: int) -> str:
    return name_of_process(pid)


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


def _prefix_of_this_machine() -> str:
    """How the names of processes begin of which ``is_gone`` can tell."""
    return f"{socket.gethostname()}/{_pid_namespace()}/"


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
        if _may_go_on(session, mine.run_id, LAST_UNITS):
            advance(session, mine.run_id, now)
        fault("commit.before_end")


def _may_go_on(session: Session, run_id: str, num_left: int) -> bool:
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
        _announce_all(session, [(unit["id"], stage.needs) for unit in units], now)


def announce(session: Session, unit_id: str, now: datetime, needs: str) -> None:
    """Leave a message for workers that serve what the unit needs, in the outbox: part of the caller's transaction."""
    _announce_all(session, [(unit_id, needs)], now)


def announce_ready(session: Session, run_id: str, now: datetime) -> None:
    """Announce every ready unit of a run: the messages of before may have come to nothing."""
    ready = session.execute(
        select(Unit.id, Unit.needs)
        .where(Unit.run_id == run_id, Unit.state == "ready", UNFINISHED)
        .order_by(Unit.stage, Unit.position)
    ).all()
    _announce_all(session, [(one.id, one.needs) for one in ready], now)


def _announce_all(session: Session, units: Sequence[tuple[str, str]], now: datetime) -> None:
    messages = [
        {"task": "engine.run_unit", "args": [unit_id], "needs": needs, "created_at": now} for unit_id, needs in units
    ]
    if messages:
        session.execute(insert(Outbox), messages)
        UNSENT.set()


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
        _fail_run(session, mine.run_id, mine.stage_name, reason, now)
        fault("poison.before_commit")


def _fail_run(session: Session, run_id: str, stage_name: str, reason: str, now: datetime) -> None:
    changed = session.execute(
        update(Run)
        .where(Run.id == run_id, Run.state == "running")
        .values(state="failed", reason=f"{stage_name}: {reason}", finished_at=now)
        .execution_options(synchronize_session=False)
    )
    assert isinstance(changed, CursorResult)
    if changed.rowcount == 1:
        webhooks.run_ended(session, session.get_one(Run, run_id, populate_existing=True), now)


class Message(NamedTuple):
    """One row of the outbox."""

    id: int
    task: str
    args: list[Any]
    needs: str


def unsent(catalog: Catalog) -> Sequence[Message]:
    """The oldest messages still in the outbox."""
    with catalog.read() as session:
        return [Message(*row) for row in session.execute(_OLDEST)]


def mark_sent(catalog: Catalog, *message_ids: int) -> None:
    """Forget messages that the broker has taken."""
    with catalog.write() as session:
        session.execute(delete(Outbox).where(Outbox.id.in_(message_ids)))


_OLDEST = select(Outbox.id, Outbox.task, Outbox.args, Outbox.needs).order_by(Outbox.id).limit(RELAY_BATCH)


@contextmanager
def sending(catalog: Catalog) -> Iterator[tuple[Sequence[Message], list[int]]]:
    """The oldest messages, and a list for the ids of those that the broker took: they are forgotten afterwards.

    Under PostgreSQL nobody else gets the same ones meanwhile; they stay locked while they are sent. Under SQLite two
    processes may send the same, which is harmless: its one writer's lock must not be held while a broker is waited for.
    """
    sent: list[int] = []
    if catalog.is_sqlite:
        try:
            yield unsent(catalog), sent
        finally:
            if sent:
                mark_sent(catalog, *sent)
        return
    with catalog.write() as session:
        # After trouble everything is sent again, what was sent before it too.
        yield [Message(*row) for row in session.execute(_OLDEST.with_for_update(skip_locked=True))], sent
        if sent:
            session.execute(delete(Outbox).where(Outbox.id.in_(sent)))


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
        # In one order: two sweepers that lock several runs must not wait for each other.
        for run_id in session.scalars(select(Run.id).where(Run.state == "running").order_by(Run.id)).all():
            if _may_go_on(session, run_id, 0):
                advance(session, run_id, now)
        fault("sweep.inside")
    return SweepReport(recovered=recovered, poisoned=poisoned, resent=resent)


def _recover_expired(session: Session, catalog: Catalog, now: datetime) -> tuple[int, int]:
    recovered = poisoned = 0
    running = session.scalars(
        select(Unit)
        .join(Run, Run.id == Unit.run_id)
        .where(
            Unit.state == "running",
            Run.state == "running",
            # Of the others nothing is known before their lease runs out: a thousand sweepers must not read them all.
            or_(Unit.lease_until < now, Unit.owner.startswith(_prefix_of_this_machine(), autoescape=True)),
        )
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
            announce(session, unit.id, now, unit.needs)
            recovered += 1
        session.execute(
            insert(UnitLog).values(
                run_id=unit.run_id,
                unit_id=unit.id,
                epoch=unit.epoch,
                at=now,
                worker=unit.owner,
                level="ERROR",
                message=f"attempt {unit.attempts}: its worker died or went silent; the unit is {values['state']}",
            )
        )
    return recovered, poisoned


def _resend_forgotten(session: Session, catalog: Catalog, now: datetime) -> int:
    overdue = now - timedelta(seconds=2 * catalog.settings.sweep_seconds)
    of_live_run = select(Run.id).where(Run.state == "running", Run.paused_at.is_(None))
    forgotten = session.execute(
        select(Unit.id, Unit.needs)
        .where(READY, Unit.needs.in_(catalog.settings.serves), Unit.ready_at < overdue, Unit.run_id.in_(of_live_run))
        .order_by(Unit.ready_at, Unit.id)
        .limit(RESEND_BATCH)
    ).all()
    for unit_id, needs in forgotten:
        session.execute(update(Unit).where(Unit.id == unit_id, Unit.state == "ready").values(ready_at=now))
        announce(session, unit_id, now, needs)
    return len(forgotten)


def find_run(session: Session, run_id: str) -> Run:
    """One run by id or unique beginning of it.

    Raises
    ------
    NotFoundError : none, or several, begin so.
    """
    return beginnings.find(session, Run, run_id, what="run", see="`winnow runs`")
