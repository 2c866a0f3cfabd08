"""Suspected label errors: what a run thinks is labelled wrong, the likeliest first."""

from sqlalchemy import Float, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from catalog.tables.base import Base, Id
from catalog.tables.curation import RecordId


class LabelError(Base):
    """A record whose label a run suspects. What it thinks of all the others is in its ``label_quality`` shard.

    Like verdicts, without foreign keys: there may be a row for every tenth record.
    """

    __tablename__ = "label_errors"
    __table_args__ = (Index("ix_label_errors_run_id_rank", "run_id", "rank"), {"sqlite_with_rowid": False})

    run_id: Mapped[str] = mapped_column(Id, primary_key=True)
    record_id: Mapped[str] = mapped_column(RecordId, primary_key=True)
    rank: Mapped[int]
    """From 1, the likeliest error first."""
    given: Mapped[str] = mapped_column(Text)
    """The label that is suspected."""
    source: Mapped[str] = mapped_column(String(20))
    """``given`` with the source, or ``annotated`` here."""
    suggested: Mapped[str] = mapped_column(Text)
    """The likeliest other label."""
    confidence: Mapped[float] = mapped_column(Float)
    """Probability of the suggested label, in [0, 1]."""
    quality: Mapped[float] = mapped_column(Float)
    """Probability that the given label is right, in [0, 1], as a model has it: to rank by."""
