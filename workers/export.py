"""Records of a version as rows for the world outside: their own columns as they came, and where they come from."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from catalog.errors import ConfigError, NotFoundError, nearest
from catalog.store import Store, StoredFile
from catalog.tables.curation import DuplicatePair, Verdict
from catalog.tables.datasets import Dataset, Version
from catalog.tables.engine import Run
from catalog.tables.labeling import LabelQueue
from curation.export import WRITERS, Rows
from curation.export.schema import Columns
from curation.sources.conversations import STYLES, restored
from curation.sources.nested import put
from labeling.quality import consensus_labels
from workers import manifests
from workers.clusters import in_force
from workers.index import behind
from workers.pipelines.update import kept_rows
from workers.whatif import JUDGING

PREFIX = "winnow_"
WHICH = ("kept", "dropped", "all")
ID_BATCH = 5_000
"""Ids a query names at most: SQLite takes 32,766 parameters."""


@dataclass(frozen=True, kw_only=True)
class Label:
    """What people answered about a record."""

    value: str
    confidence: float


@dataclass(kw_only=True)
class Export:
    """What is to be written: a version's records, shard by shard.

    Parameters
    ----------
    which : ``kept``, ``dropped`` or ``all`` records; the latter two of a version that a cleaning published.
    provenance : whether columns that begin with ``winnow_`` say where each record comes from.
    """

    session: Session
    store: Store
    dataset: Dataset
    version: Version
    which: str = "kept"
    provenance: bool = True

    def __post_init__(self) -> None:
        """Read the manifest and the labels.

        Raises
        ------
        ConfigError : dropped records of a version that nothing was judged for.
        """
        if self.which not in WHICH:
            raise ConfigError(f"records={self.which!r}; {nearest(self.which, WHICH)}")
        self.run = behind(self.session, self.session.get_one(Run, self.version.run_id))
        if self.which != "kept" and self.run.kind not in JUDGING:
            raise ConfigError(
                f"version {self.version.number} is {self.version.kind}: no record of it has a verdict; "
                "export kept ones, or a curated version"
            )
        self.document = manifests.read(self.store, self.version)
        self.labels = current_labels(self.session, self.dataset.id)

    def batches(self) -> Iterator[tuple[str | None, Rows]]:
        """Split and rows of each shard; the same every time."""
        for entry in self.document["shards"]:
            frame = self._chosen(entry)
            if frame.height:
                yield entry.get("split"), self._rows(entry, frame)

    def _chosen(self, entry: dict[str, Any]) -> pl.DataFrame:
        """The records of a shard that are wanted, with ``row`` and what the selection says of those that stay."""
        frame = self.store.read_frame(StoredFile.from_json(entry["data"])).with_row_index("row")
        frame = frame.with_columns(pl.col("row").cast(pl.Int64))
        if "origin" in entry:
            frame = frame.with_columns(self.store.read_frame(StoredFile.from_json(entry["origin"]))["origin"])
        if "selection" not in entry:
            return frame.with_columns(kept=pl.lit(value=True))
        if self.version.kind == "deduplicated":
            chosen = kept_rows(self.store, self.document, entry).to_frame("row")
        else:
            chosen = self.store.read_frame(StoredFile.from_json(entry["selection"])).drop("id")
        chosen = chosen.with_columns(kept=pl.lit(value=True))
        frame = frame.join(chosen, on="row", how="left", maintain_order="left").with_columns(
            pl.col("kept").fill_null(value=False)
        )
        return {"all": frame, "kept": frame.filter("kept"), "dropped": frame.filter(~pl.col("kept"))}[self.which]

    def _rows(self, entry: dict[str, Any], frame: pl.DataFrame) -> Rows:
        ids = frame["id"].to_list()
        style = STYLES[entry["turns"]] if "turns" in entry else None
        provenance = self._provenance(entry, frame, ids) if self.provenance else {}
        rows = []
        for record in frame.iter_rows(named=True):
            row: dict[str, Any] = json.loads(record["fields"]) if record["fields"] else {}
            if style is not None:
                restored(row, style, record["text"])
            else:
                put(row, self.dataset.text_column, record["text"])
            answered = self.labels.get(record["id"])
            label = answered.value if answered else record["label"]
            if self.dataset.label_column is not None or label is not None:
                put(row, self.dataset.label_column or "label", label)
            rows.append(row | provenance.get(record["id"], {}))
        return rows

    def _provenance(self, entry: dict[str, Any], frame: pl.DataFrame, ids: list[str]) -> dict[str, dict[str, Any]]:
        verdicts = self._verdicts(ids) if self.which != "kept" else {}
        clusters, sizes = self._clusters(ids)
        own = {"row", "id", "text", "label", "fields", "source", "line", "origin", "kept"}
        measured = [name for name in frame.columns if name not in own]
        found = {}
        for record in frame.iter_rows(named=True):
            record_id, answered = record["id"], self.labels.get(record["id"])
            reason, failed = verdicts.get(record_id, (None, []))
            has_label = answered is not None or record["label"] is not None
            values = {
                "id": record_id,
                "dataset": self.dataset.name,
                "version": self.version.number,
                "recipe": self.version.summary.get("recipe"),
                "file": record["source"],
                "line": record["line"],
                "source": record.get("origin"),
                "split": entry.get("split"),
                "kept": record["kept"],
                "reason": reason,
                "failed": failed,
                **{name: record[name] for name in measured},
                "label_origin": ("annotated" if answered else "given") if has_label else None,
                "label_given": record["label"],
                "label_confidence": answered.confidence if answered else None,
                "cluster": clusters.get(record_id, record_id if record_id in sizes else None),
                "cluster_size": sizes.get(record_id),
            }
            found[record_id] = {f"{PREFIX}{name}": value for name, value in values.items()}
        return found

    def _verdicts(self, ids: Sequence[str]) -> dict[str, tuple[str | None, list[str]]]:
        """Reason and all failures of each record."""
        query = select(Verdict.record_id, Verdict.reason, Verdict.failed).where(Verdict.run_id == self.run.id)
        return {
            row[0]: (row[1], row[2])
            for some in _some(ids)
            for row in self.session.execute(query.where(Verdict.record_id.in_(some)))
        }

    def _clusters(self, ids: Sequence[str]) -> tuple[dict[str, str], dict[str, int]]:
        """The keeper of each record that left as a duplicate, and how many left behind each keeper."""
        holds = (in_force(self.run), DuplicatePair.accepted)
        keepers, sizes = {}, {}
        for some in _some(ids):
            counted = select(DuplicatePair.keeper_id, func.count()).where(*holds, DuplicatePair.keeper_id.in_(some))
            sizes.update(
                {row[0]: row[1] + 1 for row in self.session.execute(counted.group_by(DuplicatePair.keeper_id))}
            )
            pairs = select(DuplicatePair.record_id, DuplicatePair.keeper_id)
            left = pairs.where(*holds, DuplicatePair.record_id.in_(some)).order_by(DuplicatePair.keeper_id)
            keepers.update({row[0]: row[1] for row in self.session.execute(left)})
        return keepers, sizes

    def schema(self) -> pa.Schema:
        """The columns of all rows with their types, by reading them once."""
        columns = Columns()
        for _, rows in self.batches():
            columns.see(rows)
        return columns.schema()

    def write(self, path: Path, name: str) -> int:
        """Write everything to a path that is not there yet; the number of rows."""
        member = WRITERS[name]
        schema = self.schema() if member.config().needs_schema else pa.schema([])
        return member.member(path, self.batches(), schema)


def _some(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), ID_BATCH):
        yield ids[start : start + ID_BATCH]


def current_labels(session: Session, dataset_id: str) -> dict[str, Label]:
    """What people answered, by record; a later queue's answer replaces an earlier one's. Rehearsals do not count."""
    ours = select(LabelQueue.id).where(LabelQueue.dataset_id == dataset_id, LabelQueue.rehearsal.is_(False))
    return {
        one.record_id: Label(value=str(one.value), confidence=one.agreement)
        for queue_id in session.scalars(ours.order_by(LabelQueue.created_at, LabelQueue.id))
        for one in consensus_labels(session, queue_id=queue_id)
    }


def find_version(session: Session, dataset: Dataset, number: int | None) -> Version:
    """A version by number, or the newest curated, else deduplicated, else raw one.

    Raises
    ------
    NotFoundError : there is none, with those that there are.
    """
    if number is None:
        kinds = ("curated", "deduplicated")
        found = (manifests.latest_version(session, dataset.id, kind) for kind in kinds)
        return next((one for one in found if one is not None), None) or manifests.require_version(
            session, dataset, "raw"
        )
    versions = session.scalars(select(Version).where(Version.dataset_id == dataset.id).order_by(Version.number)).all()
    for one in versions:
        if one.number == number:
            return one
    listed = ", ".join(f"{one.number} ({one.kind})" for one in versions) or "none yet"
    raise NotFoundError(f"dataset {dataset.name!r} has no version {number}; there are {listed}")


def format_of(path: Path, name: str | None) -> str:
    """The writer that a path's suffix chooses, or the one named.

    Raises
    ------
    ConfigError : neither tells, or an unknown name.
    """
    if name is not None:
        if name not in WRITERS.load():
            raise ConfigError(f"format={name!r}; {nearest(name, WRITERS)}")
        return name
    for known, member in WRITERS.load().items():
        if any(path.name.lower().endswith(suffix) for suffix in member.config().suffixes):
            return known
    if not path.suffix:
        return "hf"
    raise ConfigError(f"--output {path}: the suffix names no format; give --format {', '.join(WRITERS)}")
