"""Backups: the database of one moment and every file that it refers to, taken while everything works; and back.

A backup folder holds any number of backups and one copy of each file that any of them needs. A backup is written aside
and renamed at last, so one that was interrupted is never taken for a whole one, and the next goes on from the files
that it copied.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from catalog.database import Catalog
from catalog.errors import ConfigError, ConflictError, CorruptionError, NotFoundError, ServiceError, nearest
from catalog.migrate import known_revisions, latest_revision
from catalog.objects import MARKER
from catalog.references import NAME, find_references
from catalog.settings import Settings
from catalog.snapshot import check_empty, export_tables, import_tables, sha256_of, snapshot
from catalog.store import Store, StoredFile
from catalog.tables.engine import Outbox, Run, Unit, Worker
from workers import outbox

FORMAT = 1
MANIFEST = "backup.json"
FILES = "files.parquet"
FOLDER_OF_FILES = "files"
LOCK = ".winnow-backup.lock"
PARTIAL = ".partial"
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Backup:
    """A whole backup.

    Parameters
    ----------
    name : of its folder, the moment in UTC. num_copied : files that were not in the folder yet.
    damaged : files of the store that were missing or had another SHA-256, and so are not in the backup.
    """

    name: str
    num_rows: int
    num_files: int
    num_bytes: int
    num_copied: int
    damaged: list[str]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "backup": self.name,
            "rows": self.num_rows,
            "files": self.num_files,
            "bytes": self.num_bytes,
            "copied": self.num_copied,
            "damaged": self.damaged,
        }


def take_backup(catalog: Catalog, folder: Path, *, progress: Progress = lambda _done, _total: None) -> Backup:
    """Back up the database and every file that it refers to, while everything works.

    Parameters
    ----------
    folder : made if need be; outside the home folder. progress : told files done and in all.

    Raises
    ------
    ConfigError : the folder holds something else, or lies within the home folder.
    ConflictError : another backup into it is under way.
    """
    _check_place(catalog.settings, folder)
    with _alone_in(folder):
        for left in folder.glob(f"*{PARTIAL}"):
            shutil.rmtree(left)
        began = datetime.now(UTC)
        name = began.strftime("%Y%m%dT%H%M%S.%fZ")
        partial = folder / f"{name}{PARTIAL}"
        partial.mkdir(mode=0o700)
        store = Store.of(catalog.settings)
        with snapshot(catalog, partial) as session:
            tables = export_tables(session, partial)
            referred = find_references(session, store)
        files, num_copied, damaged = _copy_files(store, _store_in(folder), referred.names, progress)
        pq.write_table(pa.Table.from_pylist(files, _FILES_SCHEMA), partial / FILES, compression="zstd")
        document = {
            "format": FORMAT,
            "created_at": began.isoformat(),
            "release": version("winnow"),
            "revision": latest_revision(),
            "database": "sqlite" if catalog.is_sqlite else "postgresql",
            "tables": tables,
            "files": {"file": FILES, "count": len(files), "sha256": sha256_of(partial / FILES)},
            "damaged": damaged,
        }
        (partial / MANIFEST).write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        _sync(partial)
        partial.rename(folder / name)
        _sync(folder)
    return Backup(
        name=name,
        num_rows=sum(one["rows"] for one in tables.values()),
        num_files=len(files),
        num_bytes=sum(one["size_bytes"] for one in files),
        num_copied=num_copied,
        damaged=damaged,
    )


_FILES_SCHEMA = pa.schema([("name", pa.string()), ("sha256", pa.string()), ("size_bytes", pa.int64())])


def _check_place(settings: Settings, folder: Path) -> None:
    home = settings.home.resolve()
    if folder.resolve() == home or home in folder.resolve().parents:
        raise ConfigError(
            f"{folder} lies within the home folder {home}: what takes the one takes the other; choose another"
        )
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; a backup is a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / LOCK).exists():
        raise ConfigError(f"{folder} holds something else than backups; choose an empty or a new folder")


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise ConflictError(
            f"another backup into {folder} is under way; wait for it, or choose another folder"
        ) from error
    finally:
        os.close(descriptor)


def _store_in(folder: Path) -> Store:
    made = Store(f"file://{(folder / FOLDER_OF_FILES).absolute()}")
    made.create()
    return made


def _stored(name: str) -> StoredFile:
    told = NAME.fullmatch(name)
    assert told is not None, "names come from the pattern"
    return StoredFile(name=name, sha256=told["sha256"], size_bytes=0)


def _copy_files(
    source: Store, target: Store, names: set[str], progress: Progress
) -> tuple[list[dict[str, Any]], int, list[str]]:
    """Copy what is not there yet, verified by its SHA-256 on the way; what there is, how many, and what is damaged."""
    there = {one.name: one.size_bytes for one in target.files()}
    sizes = {one.name: one.size_bytes for one in source.files()}
    files, damaged, num_copied = [], [], 0
    for number, name in enumerate(sorted(names)):
        file = _stored(name)
        # Written aside and renamed, so one that is there is whole; `restore` verifies it.
        if there.get(name) is None or there[name] != sizes.get(name, there[name]):
            try:
                there[name] = _copy(source, target, file).size_bytes
                num_copied += 1
            except (NotFoundError, CorruptionError) as error:
                damaged.append(str(error))
                continue
        files.append({"name": name, "sha256": file.sha256, "size_bytes": there[name]})
        progress(number + 1, len(names))
    return files, num_copied, damaged


def _sync(folder: Path) -> None:
    for path in (*(one for one in folder.iterdir() if one.is_file()), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def list_backups(folder: Path) -> list[dict[str, Any]]:
    """The whole backups of a folder, oldest first: their manifests, with ``name``."""
    whole = [path for path in sorted(folder.glob(f"*/{MANIFEST}")) if not path.parent.name.endswith(PARTIAL)]
    return [{"name": path.parent.name} | json.loads(path.read_text(encoding="utf-8")) for path in whole]


@dataclass(frozen=True, kw_only=True, slots=True)
class Restored:
    """What is there again. ``num_woken`` units were running when the backup was taken, and are ready now."""

    name: str
    num_rows: int
    num_files: int
    num_woken: int
    damaged: list[str]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "backup": self.name,
            "rows": self.num_rows,
            "files": self.num_files,
            "woken": self.num_woken,
            "damaged": self.damaged,
        }


def restore(
    settings: Settings, folder: Path, *, name: str | None = None, progress: Progress = lambda _done, _total: None
) -> Restored:
    """Fill an empty home, database and store from a backup, verifying every byte. What was running is ready again.

    Files come first and the database last, in one transaction: an interrupted restore is repeated by the same command.

    Parameters
    ----------
    name : of the backup; default the newest.

    Raises
    ------
    NotFoundError : no such backup.
    ConfigError : the database or the store is not empty, or the backup is of a newer release.
    CorruptionError : a file of the backup is not what was written; nothing is in the database then.
    """
    chosen = _choose(folder, name)
    place = folder / chosen["name"]
    if chosen["format"] != FORMAT or chosen["revision"] not in known_revisions():
        raise ConfigError(
            f"backup {chosen['name']} is of release {chosen['release']} (revision {chosen['revision']}), newer than "
            "this one; install that release"
        )
    files = _listed(place, chosen)
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    catalog = Catalog(settings)
    check_empty(catalog)
    store = Store.of(settings)
    store.create()
    wanted = {one["name"] for one in files}
    strangers = {one.name for one in store.files()} - wanted - {MARKER}
    if strangers:
        raise ConfigError(
            f"store {store.url} is not empty ({min(strangers)}); restore into an empty one: set WINNOW_HOME or "
            "WINNOW_STORE_URL"
        )
    _fill_store(_store_in(folder), store, files, progress)
    try:
        with catalog.write() as session:
            import_tables(catalog, session, place, chosen["tables"], chosen["revision"])
            num_woken = _wake(session, catalog)
    except BaseException:
        catalog.close()
        if catalog.is_sqlite:
            # Not even an empty database is left, so that the same command can be given again.
            for left in catalog.sqlite_path.parent.glob(f"{catalog.sqlite_path.name}*"):
                left.unlink()
        raise
    catalog.close()
    return Restored(
        name=chosen["name"],
        num_rows=sum(one["rows"] for one in chosen["tables"].values()),
        num_files=len(files),
        num_woken=num_woken,
        damaged=chosen["damaged"],
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Mended:
    """What ``mend_files`` did. ``lost`` says which files neither the store nor the backup has whole."""

    name: str
    num_files: int
    mended: list[str]
    lost: list[str]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"backup": self.name, "files": self.num_files, "mended": self.mended, "lost": self.lost}


def mend_files(
    settings: Settings, folder: Path, *, name: str | None = None, progress: Progress = lambda _done, _total: None
) -> Mended:
    """Put back what is missing or damaged in the store, from a backup; touch nothing else. Safe while everything works.

    Raises
    ------
    NotFoundError : no such backup. CorruptionError : its list of files is damaged.
    """
    chosen = _choose(folder, name)
    files = _listed(folder / chosen["name"], chosen)
    store, kept = Store.of(settings), _store_in(folder)
    mended, lost = [], []
    for number, one in enumerate(files):
        file = StoredFile(name=one["name"], sha256=one["sha256"], size_bytes=one["size_bytes"])
        try:
            store.read_bytes(file)
        except (NotFoundError, CorruptionError):
            try:
                _copy(kept, store, file)
                mended.append(file.name)
            except (NotFoundError, CorruptionError):
                lost.append(file.name)
        progress(number + 1, len(files))
    return Mended(name=chosen["name"], num_files=len(files), mended=mended, lost=lost)


def _copy(source: Store, target: Store, file: StoredFile) -> StoredFile:
    """Copy a file to the same name, its SHA-256 verified on the way."""
    return target.write_bytes(source.read_bytes(file), file.name.split("/")[0], file.name.rpartition(".")[2])


def _choose(folder: Path, name: str | None) -> dict[str, Any]:
    if not folder.is_dir():
        raise NotFoundError(f"folder {folder} is not there; check the path, or mount it")
    found = {one["name"]: one for one in list_backups(folder)}
    if name is None and found:
        return found[max(found)]
    if name not in found:
        asked = "" if name is None else f" {name!r}"
        raise NotFoundError(f"{folder} holds no whole backup{asked}; {nearest(name or '', found)}")
    return found[name]


def _listed(place: Path, chosen: dict[str, Any]) -> list[dict[str, Any]]:
    path = place / chosen["files"]["file"]
    if sha256_of(path) != chosen["files"]["sha256"]:
        raise CorruptionError(f"{path} is damaged: its SHA-256 is not what the backup says; use another backup")
    files: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return files


def _fill_store(source: Store, target: Store, files: list[dict[str, Any]], progress: Progress) -> None:
    there = {one.name for one in target.files()}
    wrong = []
    for number, one in enumerate(files):
        file = StoredFile(name=one["name"], sha256=one["sha256"], size_bytes=one["size_bytes"])
        try:
            # What an interrupted restore has left is verified too.
            if file.name in there:
                target.read_bytes(file)
            else:
                _copy(source, target, file)
        except ServiceError as error:
            wrong.append(str(error))
        progress(number + 1, len(files))
    if wrong:
        raise CorruptionError(
            f"{len(wrong)} of {len(files)} files of the backup are missing or damaged, the first: {wrong[0]}. Nothing "
            "was restored to the database; use another backup with --at"
        )


def _wake(session: Session, catalog: Catalog) -> int:
    """Let nothing refer to processes and messages of elsewhere; how many units were running."""
    now = catalog.now(session)
    session.execute(delete(Worker))
    session.execute(delete(Outbox))
    woken = session.scalars(
        update(Unit)
        .where(Unit.state == "running")
        .values(state="ready", owner=None, lease_until=None, ready_at=now, attempts=Unit.attempts - 1)
        .returning(Unit.id)
        .execution_options(synchronize_session=False)
    ).all()
    for run_id in session.scalars(select(Run.id).where(Run.state == "running")).all():
        outbox.announce_ready(session, run_id, now)
    return len(woken)
