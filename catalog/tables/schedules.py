"""What is to be started later: by the clock, by new data, or after something else has ended."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, CheckConstraint, ForeignKey, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from catalog.tables.base import Base, Id, Json, Moment, new_id

TRIGGERS = ("cron", "ingest", "clean", "watch")
MISSED = ("once", "skip")
OUTCOMES = ("pending", "started", "unchanged", "skipped", "refused")
REQUEST_STATES = ("waiting", "started", "refused", "cancelled")


class Schedule(Base):
    """A job that is asked for again and again."""

    __tablename__ = "schedules"
    __table_args__ = (
        CheckConstraint(f"trigger IN {TRIGGERS}", name="trigger"),
        CheckConstraint(f"missed IN {MISSED}", name="missed"),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    dataset: Mapped[str] = mapped_column(String(200))
    """By name: a watched folder may bring the dataset's first file."""
    kind: Mapped[str] = mapped_column(String(40))
    config: Mapped[dict[str, Any]] = mapped_column(Json)
    """What the job is asked for with, as ``workers.jobs`` takes it."""
    trigger: Mapped[str] = mapped_column(String(20))
    cron: Mapped[str | None] = mapped_column(String(200))
    """Five fields, in ``timezone``; null for other triggers."""
    timezone: Mapped[str] = mapped_column(String(60), default="UTC")
    folder: Mapped[str | None] = mapped_column(Text)
    """Of trigger ``watch``."""
    mapping: Mapped[dict[str, Any] | None] = mapped_column(Json)
    """Which columns of a watched file are what."""
    missed: Mapped[str] = mapped_column(String(10), default="once")
    """What becomes of times at which nobody was there to start anything: one run for all of them, or none."""
    priority: Mapped[int] = mapped_column(default=0)
    max_units: Mapped[int | None]
    enabled: Mapped[bool] = mapped_column(Boolean, default=True)
    next_at: Mapped[datetime | None] = mapped_column(Moment, index=True)
    """When it is due, of trigger ``cron``; when it looks again, of ``watch``."""
    cursor: Mapped[str | None] = mapped_column(Id)
    """The version that trigger ``ingest`` (raw) or ``clean`` (curated) has seen last."""
    problem: Mapped[str | None] = mapped_column(Text)
    """What keeps it from looking, e.g. a folder that is gone; null when all is well."""
    created_by: Mapped[str | None] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(Moment)
    updated_at: Mapped[datetime] = mapped_column(Moment)


class Firing(Base):
    """One time that a schedule was due, and what came of it. The same time is due once."""

    __tablename__ = "firings"
    __table_args__ = (
        UniqueConstraint("schedule_id", "due_at"),
        CheckConstraint(f"outcome IN {OUTCOMES}", name="outcome"),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    schedule_id: Mapped[str] = mapped_column(ForeignKey("schedules.id", ondelete="CASCADE"))
    due_at: Mapped[datetime] = mapped_column(Moment)
    outcome: Mapped[str] = mapped_column(String(20), default="pending", index=True)
    detail: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)
    """Of trigger ``watch``: the files that were new."""
    run_id: Mapped[str | None] = mapped_column(Id)
    reason: Mapped[str | None] = mapped_column(Text)
    settled_at: Mapped[datetime | None] = mapped_column(Moment)


class WatchedFile(Base):
    """A file of a watched folder as it was seen last."""

    __tablename__ = "watched_files"

    schedule_id: Mapped[str] = mapped_column(ForeignKey("schedules.id", ondelete="CASCADE"), primary_key=True)
    path: Mapped[str] = mapped_column(Text, primary_key=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    mtime_ns: Mapped[int] = mapped_column(BigInteger)


class Request(Base):
    """A job that is asked for once something else has ended: a run, or a labeling queue."""

    __tablename__ = "requests"
    __table_args__ = (CheckConstraint(f"state IN {REQUEST_STATES}", name="state"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    dataset: Mapped[str] = mapped_column(String(200))
    kind: Mapped[str] = mapped_column(String(40))
    config: Mapped[dict[str, Any]] = mapped_column(Json)
    after_run_id: Mapped[str | None] = mapped_column(ForeignKey("runs.id"), index=True)
    after_queue_id: Mapped[str | None] = mapped_column(ForeignKey("label_queues.id"))
    after_request_id: Mapped[str | None] = mapped_column(ForeignKey("requests.id"))
    priority: Mapped[int] = mapped_column(default=0)
    max_units: Mapped[int | None]
    state: Mapped[str] = mapped_column(String(20), default="waiting", index=True)
    run_id: Mapped[str | None] = mapped_column(Id)
    queue_id: Mapped[str | None] = mapped_column(Id)
    """The labeling queue that it opened, of kind ``label``: what comes after waits for its end."""
    reason: Mapped[str | None] = mapped_column(Text)
    requested_by: Mapped[str | None] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(Moment)
    settled_at: Mapped[datetime | None] = mapped_column(Moment)
