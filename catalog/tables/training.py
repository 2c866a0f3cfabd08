"""What training runs produced: loss curves and measured variants."""

from typing import Any

from sqlalchemy import BigInteger, Float, ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from catalog.tables.base import Base, Id, Json, new_id


class LossPoint(Base):
    """The training loss of one arm at one step."""

    __tablename__ = "loss_points"

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    arm: Mapped[str] = mapped_column(String(100), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    loss: Mapped[float] = mapped_column(Float)


class Evaluation(Base):
    """One row of the variant table: a model of one arm, as trained or compressed, measured on the held-out slice."""

    __tablename__ = "evaluations"
    __table_args__ = (UniqueConstraint("run_id", "arm", "variant"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"), index=True)
    arm: Mapped[str] = mapped_column(String(100))
    variant: Mapped[str] = mapped_column(String(100))
    num_examples: Mapped[int]
    accuracy: Mapped[float] = mapped_column(Float)
    macro_f1: Mapped[float] = mapped_column(Float)
    latency_ms: Mapped[float] = mapped_column(Float)
    flops: Mapped[int] = mapped_column(BigInteger)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    energy_joules: Mapped[float | None] = mapped_column(Float)
    detail: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)
    """Methods behind the numbers, agreement with the uncompressed model, seeds, steps."""
