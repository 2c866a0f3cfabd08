"""Verdicts and duplicate pairs: what a cleaning run found out about every record.

These tables get a row a record. So they have no foreign keys (checked row by row, they double the time of a bulk write;
the engine writes them in the transaction that holds the run) and no index but what a page asks for.
"""

from typing import Any

from sqlalchemy import Boolean, Float, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from catalog.tables.base import Base, Id, Json

RecordId = String(44)
"""32 hex digits of the content's xxh3-128, a dash, and a counter among identical contents."""

KeeperId = String(150)


class Verdict(Base):
    """What one run decided about one record, with every value it measured."""

    __tablename__ = "verdicts"
    __table_args__ = ({"sqlite_with_rowid": False},)

    run_id: Mapped[str] = mapped_column(Id, primary_key=True)
    record_id: Mapped[str] = mapped_column(RecordId, primary_key=True)
    kept: Mapped[bool] = mapped_column(Boolean)
    reason: Mapped[str | None] = mapped_column(String(100))
    """The first rule of the recipe that failed, or null when kept."""
    failed: Mapped[list[str]] = mapped_column(Json)
    """Every rule that failed, in recipe order."""
    measured: Mapped[dict[str, Any]] = mapped_column(Json)
    """Every rule's measured value, whether or not it failed."""
    scores: Mapped[dict[str, Any]] = mapped_column(Json)
    """Difficulty and its parts."""


class DuplicatePair(Base):
    """A record that left because of another, which was measured to be the same, or would have left.

    Pairs that were measured and removed nobody are many more: they are in the run's ``pairs`` and
    ``semantic_pairs`` shards, with these.
    """

    __tablename__ = "duplicate_pairs"
    __table_args__ = (Index("ix_duplicate_pairs_run_id_keeper_id", "run_id", "keeper_id"), {"sqlite_with_rowid": False})

    run_id: Mapped[str] = mapped_column(Id, primary_key=True)
    record_id: Mapped[str] = mapped_column(RecordId, primary_key=True)
    keeper_id: Mapped[str] = mapped_column(KeeperId, primary_key=True)
    """A record of the same dataset, or ``DATASET:RECORD`` of another that the run was compared with."""
    kind: Mapped[str] = mapped_column(String(20))
    """``exact``, ``near`` or ``semantic``."""
    jaccard: Mapped[float | None] = mapped_column(Float)
    """Of the shingle sets; null for a semantic pair."""
    cosine: Mapped[float | None] = mapped_column(Float)
    """Of the vectors; null for any other pair."""
    bands_shared: Mapped[int]
    accepted: Mapped[bool] = mapped_column(Boolean)
    """True: the record left because of this keeper. False: it would have, but the recipe asks to report only."""
    rule: Mapped[str] = mapped_column(Text)
    """Method and version, e.g. ``minhash/1``."""


class SupersededPair(Base):
    """A duplicate pair of an earlier run that a later one, which builds on that run, has decided anew.

    What is in force after a chain of runs is the pairs of all of them without those that one of them supersedes.
    """

    __tablename__ = "superseded_pairs"
    __table_args__ = ({"sqlite_with_rowid": False},)

    run_id: Mapped[str] = mapped_column(Id, primary_key=True)
    """Of the pair."""
    record_id: Mapped[str] = mapped_column(RecordId, primary_key=True)
    by_run_id: Mapped[str] = mapped_column(Id, primary_key=True)
