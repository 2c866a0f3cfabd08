"""Dataset versions: a manifest file nobody changes, and the row that makes it visible, in one transaction."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from catalog.database import Catalog
from catalog.errors import NotFoundError, TransientError, nearest
from catalog.faults import fault
from catalog.store import Store, StoredFile
from catalog.tables.base import new_id
from catalog.tables.datasets import Dataset, Shard, Version
from catalog.tables.engine import Unit
from curation.recipe import advised_presets
from workers.engine import Claim


def find_dataset(session: Session, name: str) -> Dataset:
    """A dataset by name.

    Raises
    ------
    NotFoundError : there is none; the message lists what exists and the nearest name.
    """
    found = session.scalars(select(Dataset).where(Dataset.name == name)).one_or_none()
    if found is None:
        known = session.scalars(select(Dataset.name)).all()
        raise NotFoundError(f"there is no dataset {name!r}; {nearest(name, known)}")
    return found


def latest_version(session: Session, dataset_id: str, kind: str) -> Version | None:
    """The newest published version of a kind, or None."""
    return session.scalars(
        select(Version)
        .where(Version.dataset_id == dataset_id, Version.kind == kind)
        .order_by(Version.number.desc())
        .limit(1)
    ).one_or_none()


def require_version(session: Session, dataset: Dataset, kind: str) -> Version:
    """The newest version of a kind.

    Raises
    ------
    NotFoundError : none was published yet, with the command that publishes one.
    """
    version = latest_version(session, dataset.id, kind)
    if version is None:
        command = (
            f"`winnow ingest FILES --dataset {dataset.name} --text COLUMN`"
            if kind == "raw"
            else advised_presets(dataset.name)
        )
        raise NotFoundError(f"dataset {dataset.name!r} has no {kind} version yet; run {command} first")
    return version


def unit_files(session: Session, unit_id: str, kind: str) -> list[StoredFile]:
    """The shards of one kind that a unit committed, in order."""
    query = select(Shard).where(Shard.unit_id == unit_id, Shard.kind == kind).order_by(Shard.position)
    return [stored(shard) for shard in session.scalars(query)]


def run_files(session: Session, run_id: str, kind: str) -> list[StoredFile]:
    """The shards of one kind that a run's units committed, by stage and unit."""
    query = (
        select(Shard)
        .join(Unit, Unit.id == Shard.unit_id)
        .where(Shard.run_id == run_id, Shard.kind == kind)
        .order_by(Unit.stage, Unit.position, Shard.position)
    )
    return [stored(shard) for shard in session.scalars(query)]


def stored(shard: Shard) -> StoredFile:
    """Where a shard lies in the store, and what it must be."""
    return StoredFile(name=shard.name, sha256=shard.sha256, size_bytes=shard.size_bytes, num_rows=shard.num_rows)


def write(
    store: Store,
    catalog: Catalog,
    dataset_id: str,
    kind: str,
    entries: list[dict[str, Any]],
    *,
    amendments: Sequence[dict[str, Any]] = (),
) -> StoredFile:
    """Write a manifest. It holds nothing that differs between two runs over one input: no time, no run, no number.

    Parameters
    ----------
    amendments : files with ``shard`` (SHA-256 of a text shard), ``row`` and ``kept``: what has changed since the
        selections were written, the latest last.
    """
    with catalog.read() as session:
        dataset = session.get_one(Dataset, dataset_id)
        document = {
            "format": 1,
            "dataset": dataset.name,
            "kind": kind,
            "text_column": dataset.text_column,
            "label_column": dataset.label_column,
            "shards": entries,
        }
    if amendments:
        document["amendments"] = list(amendments)
    fault("publish.before_manifest")
    manifest = store.write_json(document, "manifests")
    fault("publish.after_manifest")
    return manifest


def read(store: Store, version: Version) -> dict[str, Any]:
    """The manifest of a version, its checksum verified."""
    return store.read_json(
        StoredFile(name=version.manifest_name, sha256=version.manifest_sha256, size_bytes=0, num_rows=0)
    )


def publisher(
    claim: Claim,
    manifest: StoredFile,
    *,
    kind: str,
    parent_id: str | None,
    entries: list[dict[str, Any]],
    summary: dict[str, Any],
    num_records: int | None = None,
) -> Callable[[Session, datetime], None]:
    """A change that makes the manifest a version of the claim's dataset, to be applied in the unit's transaction.

    Parameters
    ----------
    num_records : of the version, where the selections of ``entries`` do not tell it.
    """
    if num_records is None:
        num_records = sum(entry.get("selection", entry["data"])["num_rows"] for entry in entries)

    def apply(session: Session, now: datetime) -> None:
        # Locking the dataset's row keeps two publishers from taking one number; whoever only refers to it may go on.
        session.execute(select(Dataset.id).where(Dataset.id == claim.dataset_id).with_for_update(key_share=True))
        newest = latest_version(session, claim.dataset_id, "raw")
        if kind == "raw" and (newest.id if newest else None) != parent_id:
            raise TransientError("another ingest published meanwhile; this one will be repeated on top of it")
        last = session.scalar(select(func.max(Version.number)).where(Version.dataset_id == claim.dataset_id))
        fault("publish.before_row")
        session.add(
            Version(
                id=new_id(),
                dataset_id=claim.dataset_id,
                number=(last or 0) + 1,
                kind=kind,
                run_id=claim.run_id,
                parent_id=parent_id,
                manifest_name=manifest.name,
                manifest_sha256=manifest.sha256,
                num_records=num_records,
                num_shards=len(entries),
                summary=summary,
                created_at=now,
            )
        )
        session.flush()
        fault("publish.after_row")

    return apply
