"""The sweeper, in every worker: it repairs what dead workers and lost messages left."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import insert, or_, select, update
from sqlalchemy.engine import CursorResult
from sqlalchemy.orm import Session

from catalog.database import Catalog
from catalog.faults import fault
from catalog.tables.engine import READY, Run, Unit, UnitLog
from workers import engine
from workers.outbox import announce
from workers.process_names import is_gone, prefix_of_this_machine

RESEND_BATCH = 10


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
            if engine.may_go_on(session, run_id, 0):
                engine.advance(session, run_id, now)
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
            or_(Unit.lease_until < now, Unit.owner.startswith(prefix_of_this_machine(), autoescape=True)),
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
            engine.fail_run(session, unit.run_id, unit.stage_name, str(values["reason"]), now)
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
