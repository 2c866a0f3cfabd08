"""Runs, units, the outbox and the workers: the job engine's whole state."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Integer, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from catalog.settings import NEEDS
from catalog.tables.base import Base, Id, Json, Moment, new_id

RUN_STATES = ("running", "done", "failed", "cancelled")
UNIT_STATES = ("ready", "running", "done", "poisoned", "cancelled")
SERIAL = BigInteger().with_variant(Integer(), "sqlite")


class Run(Base):
    """One job a person asked for: an ingest, a clean, a training."""

    __tablename__ = "runs"
    __table_args__ = (CheckConstraint(f"state IN {RUN_STATES}", name="state"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    kind: Mapped[str] = mapped_column(String(40))
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"), index=True)
    version_id: Mapped[str | None] = mapped_column(Id)
    """The dataset version the run reads; null for an ingest. No foreign key: versions point back at runs."""
    idempotency_key: Mapped[str] = mapped_column(String(200), unique=True)
    """The same request asked twice is the same run."""
    config: Mapped[dict[str, Any]] = mapped_column(Json)
    config_hash: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(20), default="running")
    stage: Mapped[int] = mapped_column(default=0)
    """Index of the stage whose units are under way."""
    paused_at: Mapped[datetime | None] = mapped_column(Moment)
    """Since when none of its units is taken up; null unless paused. The state stays ``running``."""
    priority: Mapped[int] = mapped_column(default=0, server_default="0")
    """Ready units of the run with the highest are taken up first."""
    max_units: Mapped[int | None]
    """So many of its units are under way at once, at most; null for no limit."""
    reason: Mapped[str | None] = mapped_column(Text)
    result: Mapped[dict[str, Any] | None] = mapped_column(Json)
    requested_by: Mapped[str | None] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(Moment)
    finished_at: Mapped[datetime | None] = mapped_column(Moment)


READY = text("units.state = 'ready'")
UNFINISHED = text("units.state <> 'done'")
"""As text, for a database takes a partial index only where the query has its very condition."""


def _where(condition: str) -> dict[str, Any]:
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


class Unit(Base):
    """The smallest piece of work that is claimed, retried and committed as a whole."""

    __tablename__ = "units"
    __table_args__ = (
        UniqueConstraint("run_id", "stage", "position"),
        CheckConstraint(f"state IN {UNIT_STATES}", name="state"),
        Index("ix_units_state_lease_until", "state", "lease_until"),
        Index("ix_units_run_id_unfinished", "run_id", "stage", "position", **_where("state <> 'done'")),
        Index("ix_units_needs_ready_at", "needs", "ready_at", **_where("state = 'ready'")),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    stage: Mapped[int]
    stage_name: Mapped[str] = mapped_column(String(60))
    position: Mapped[int]
    payload: Mapped[dict[str, Any]] = mapped_column(Json)
    needs: Mapped[str] = mapped_column(String(20), default="cpu", server_default="cpu")
    state: Mapped[str] = mapped_column(String(20), default="ready")
    epoch: Mapped[int] = mapped_column(default=0)
    """The fencing token: raised by every claim, demanded by every commit."""
    attempts: Mapped[int] = mapped_column(default=0)
    owner: Mapped[str | None] = mapped_column(String(200))
    lease_until: Mapped[datetime | None] = mapped_column(Moment)
    num_done: Mapped[int] = mapped_column(BigInteger, default=0)
    num_total: Mapped[int] = mapped_column(BigInteger, default=0)
    """Progress inside the unit, in the stage's own counts (records, steps)."""
    peak_bytes: Mapped[int | None] = mapped_column(BigInteger)
    """The most resident memory that the worker had while it worked on this; null until it is done."""
    result: Mapped[dict[str, Any] | None] = mapped_column(Json)
    reason: Mapped[str | None] = mapped_column(Text)
    ready_at: Mapped[datetime] = mapped_column(Moment)
    started_at: Mapped[datetime | None] = mapped_column(Moment)
    finished_at: Mapped[datetime | None] = mapped_column(Moment)


class UnitLog(Base):
    """A line that was logged while a unit was worked on, or what became of an attempt at it. Append-only."""

    __tablename__ = "unit_log"
    __table_args__ = (Index("ix_unit_log_run_id_id", "run_id", "id"),)

    id: Mapped[int] = mapped_column(SERIAL, primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    unit_id: Mapped[str] = mapped_column(ForeignKey("units.id"))
    epoch: Mapped[int]
    at: Mapped[datetime] = mapped_column(Moment)
    worker: Mapped[str | None] = mapped_column(String(200))
    level: Mapped[str] = mapped_column(String(10))
    message: Mapped[str] = mapped_column(Text)


class Outbox(Base):
    """A message that must be sent because a committed change needs it; gone once the broker has it."""

    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(SERIAL, primary_key=True)
    """In the order of the changes that need them."""
    needs: Mapped[str] = mapped_column(String(20), default="cpu", server_default="cpu")
    task: Mapped[str] = mapped_column(String(100))
    args: Mapped[list[Any]] = mapped_column(Json)
    created_at: Mapped[datetime] = mapped_column(Moment)


class Worker(Base):
    """A worker process that has shown a sign of life."""

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    pid: Mapped[int]
    needs: Mapped[str] = mapped_column(String(100), default=",".join(NEEDS), server_default=",".join(NEEDS))
    """The needs it serves, comma separated."""
    started_at: Mapped[datetime] = mapped_column(Moment)
    seen_at: Mapped[datetime] = mapped_column(Moment)
