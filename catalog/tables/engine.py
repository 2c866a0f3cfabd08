"""Runs, units, the outbox and the workers: the job engine's whole state."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from catalog.tables.base import Base, Id, Json, Moment, new_id

RUN_STATES = ("running", "done", "failed", "cancelled")
UNIT_STATES = ("ready", "running", "done", "poisoned", "cancelled")


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
    reason: Mapped[str | None] = mapped_column(Text)
    result: Mapped[dict[str, Any] | None] = mapped_column(Json)
    requested_by: Mapped[str | None] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(Moment)
    finished_at: Mapped[datetime | None] = mapped_column(Moment)


class Unit(Base):
    """The smallest piece of work that is claimed, retried and committed as a whole."""

    __tablename__ = "units"
    __table_args__ = (
        UniqueConstraint("run_id", "stage", "position"),
        CheckConstraint(f"state IN {UNIT_STATES}", name="state"),
        Index("ix_units_state_lease_until", "state", "lease_until"),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    stage: Mapped[int]
    stage_name: Mapped[str] = mapped_column(String(60))
    position: Mapped[int]
    payload: Mapped[dict[str, Any]] = mapped_column(Json)
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


class Outbox(Base):
    """A message that must be sent because a committed change needs it; gone once the broker has it."""

    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer(), "sqlite"), primary_key=True)
    """In the order of the changes that need them."""
    task: Mapped[str] = mapped_column(String(100))
    args: Mapped[list[Any]] = mapped_column(Json)
    created_at: Mapped[datetime] = mapped_column(Moment)


class Worker(Base):
    """A worker process that has shown a sign of life."""

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    pid: Mapped[int]
    started_at: Mapped[datetime] = mapped_column(Moment)
    seen_at: Mapped[datetime] = mapped_column(Moment)
