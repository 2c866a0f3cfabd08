"""Datasets, where their records came from, the shards that hold them, and their published versions."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from catalog.tables.base import Base, Id, Json, Moment, new_id


class Dataset(Base):
    """A named collection of records."""

    __tablename__ = "datasets"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    text_column: Mapped[str] = mapped_column(String(200))
    label_column: Mapped[str | None] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(Moment)


class Source(Base):
    """One ingested file. The same bytes are ingested into a dataset once."""

    __tablename__ = "sources"
    __table_args__ = (UniqueConstraint("dataset_id", "sha256"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"))
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"), index=True)
    name: Mapped[str] = mapped_column(Text)
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    num_records: Mapped[int] = mapped_column(BigInteger, default=0)
    num_rejected: Mapped[int] = mapped_column(BigInteger, default=0)
    refused: Mapped[str | None] = mapped_column(Text)
    """Why the whole file was refused, or null."""


class Quarantined(Base):
    """A row of a source that could not become a record, and why."""

    __tablename__ = "quarantine"

    source_id: Mapped[str] = mapped_column(ForeignKey("sources.id"), primary_key=True)
    line: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"), index=True)
    reason: Mapped[str] = mapped_column(String(60))
    detail: Mapped[str] = mapped_column(Text)


class Shard(Base):
    """An immutable Parquet file in the store, named by its own checksum."""

    __tablename__ = "shards"
    __table_args__ = (
        UniqueConstraint("unit_id", "kind", "position"),
        Index("ix_shards_run_id_kind", "run_id", "kind"),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"), index=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    unit_id: Mapped[str] = mapped_column(ForeignKey("units.id"))
    position: Mapped[int]
    """Order among the shards of one unit and kind."""
    kind: Mapped[str] = mapped_column(String(40))
    name: Mapped[str] = mapped_column(String(200))
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    num_rows: Mapped[int] = mapped_column(BigInteger)


class Version(Base):
    """A published, immutable state of a dataset. A run publishes at most one."""

    __tablename__ = "versions"
    __table_args__ = (UniqueConstraint("dataset_id", "number"), UniqueConstraint("run_id"))

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"))
    number: Mapped[int]
    kind: Mapped[str] = mapped_column(String(20))
    """``raw`` (after ingest) or ``curated`` (after clean)."""
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("versions.id"))
    manifest_name: Mapped[str] = mapped_column(String(200))
    manifest_sha256: Mapped[str] = mapped_column(String(64))
    num_records: Mapped[int] = mapped_column(BigInteger)
    num_shards: Mapped[int]
    summary: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)
    created_at: Mapped[datetime] = mapped_column(Moment)
