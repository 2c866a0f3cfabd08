"""Addresses that are told what happens, and what they were told."""

from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, CheckConstraint, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from catalog.tables.base import Base, Id, Json, Moment, new_id

DELIVERY_STATES = ("waiting", "delivered", "failed")

EVENTS = (
    "run.done", "run.failed", "run.cancelled", "schedule.refused",
    "annotation.created", "annotation.updated", "item.completed", "model.refreshed", "budget.reached",
)  # fmt: skip


class Webhook(Base):
    """Where events go."""

    __tablename__ = "webhooks"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    url: Mapped[str] = mapped_column(Text)
    events: Mapped[list[str]] = mapped_column(Json)
    secret: Mapped[str] = mapped_column(String(100))
    """Key of the signature; readable, because every delivery is signed with it."""
    enabled: Mapped[bool] = mapped_column(Boolean, default=True)
    created_by: Mapped[str | None] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(Moment)


class Delivery(Base):
    """One event for one address: written once for each, sent until it is taken, given up after a day."""

    __tablename__ = "deliveries"
    __table_args__ = (
        UniqueConstraint("webhook_id", "event_id"),
        CheckConstraint(f"state IN {DELIVERY_STATES}", name="state"),
        Index("ix_deliveries_state_next_at", "state", "next_at"),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    event_id: Mapped[str] = mapped_column(String(100))
    """The receiver's key to tell a repetition by."""
    event: Mapped[str] = mapped_column(String(40))
    payload: Mapped[dict[str, Any]] = mapped_column(Json)
    state: Mapped[str] = mapped_column(String(20), default="waiting")
    attempts: Mapped[int] = mapped_column(default=0)
    next_at: Mapped[datetime] = mapped_column(Moment)
    answer: Mapped[str | None] = mapped_column(Text)
    """What came of the last attempt."""
    created_at: Mapped[datetime] = mapped_column(Moment)
    settled_at: Mapped[datetime | None] = mapped_column(Moment)
