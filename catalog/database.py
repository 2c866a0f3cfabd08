"""One way in to the database: ``Catalog.read()`` and ``Catalog.write()``, alike on SQLite and PostgreSQL.

SQLite allows one writer. Its own busy loop is unfair (a waiting writer can starve for seconds) and its WAL reset had a
race before 3.51.3, so every write transaction of every process first takes one file lock, then ``BEGIN IMMEDIATE``;
checkpoints run under that lock only. PostgreSQL needs neither.
"""

import fcntl
import functools
import hashlib
import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    String,
    any_,
    bindparam,
    create_engine,
    event,
    func,
    make_url,
    select,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError, InvalidatePoolError, OperationalError
from sqlalchemy.orm import InstrumentedAttribute, Session

from catalog.errors import ConfigError, TransientError
from catalog.settings import Settings

NETWORK_FILESYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "fuse.sshfs", "glusterfs"}
)
BUSY_SECONDS = 30.0
"""How long a writer waits for another one's lock."""
IDLE_SECONDS = 60.0
"""So long may a client of PostgreSQL leave its transaction alone: one that was stopped in it holds up all others."""
CHECKPOINT_EVERY_BYTES = 16 * 2**20
CHECKPOINT_EVERY_SECONDS = 1.0
"""At the soonest, by one process. The log's file never shrinks, it is written again from its beginning: once it is
large, every write would be followed by a checkpoint, which takes as long as the write itself."""
PING_AFTER_SECONDS = 1.0
"""A connection that lay idle for longer is tried before it is used; trying every time would be a third of all round
trips of short units. One that broke within the second costs its user an error, and the whole pool is then renewed."""
_POSTGRES_NOW = text("SELECT clock_timestamp()")


def database_now(session: Session) -> datetime:
    """The database's own clock, aware UTC: the only clock that leases are compared with."""
    if session.get_bind().dialect.name == "sqlite":
        # It runs in this process: asking it would be the same clock, at the price of a statement.
        return datetime.now(UTC)
    moment: datetime = session.execute(_POSTGRES_NOW).scalar_one()
    return moment.astimezone(UTC)


def among(session: Session, column: ColumnElement[str] | InstrumentedAttribute[str], values: Iterable[str]) -> Any:
    """That a column has one of these values: one statement however many there are, so that PostgreSQL plans it once."""
    if session.get_bind().dialect.name == "sqlite":
        return column.in_(list(values))
    return column == any_(bindparam(None, list(values), type_=postgresql.ARRAY(String)))


def one_at_a_time(session: Session, name: str) -> None:
    """Let a single transaction go on under this name; the others wait here until it has ended.

    For a search that inserts what it does not find: under PostgreSQL two of them would both find nothing. SQLite has
    one writer anyway.
    """
    if session.get_bind().dialect.name == "sqlite":
        return
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
    session.execute(select(func.pg_advisory_xact_lock(key)))


def filesystem_of(path: Path) -> str:
    """The type of the filesystem that holds ``path``, from the longest mount point that is a prefix of it."""
    resolved = path.resolve()
    best, kind = "", "unknown"
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return kind
    for line in mounts.read_text().splitlines():
        _, point, fs_type, *_ = line.split(" ")
        point = point.encode().decode("unicode_escape")
        if (resolved == Path(point) or Path(point) in resolved.parents) and len(point) >= len(best):
            best, kind = point, fs_type
    return kind


@dataclass
class Catalog:
    """A handle on the control plane. Cheap to make; connections open on first use.

    Parameters
    ----------
    settings : where the database is.
    clock : what time it is, asked inside a transaction; tests pass their own.
    """

    settings: Settings
    clock: Callable[[Session], datetime] = field(default=database_now)
    _checkpointed: float = field(default=-math.inf, init=False, repr=False)

    @cached_property
    def is_sqlite(self) -> bool:
        """Whether the embedded database is in force."""
        return make_url(self.settings.database).get_backend_name() == "sqlite"

    @cached_property
    def engine(self) -> Engine:
        """The connection pool.

        Raises
        ------
        ConfigError : the SQLite file would lie on a network filesystem, where its locks do not hold.
        """
        if not self.is_sqlite:
            engine = create_engine(self.settings.database, pool_size=20, max_overflow=20, json_serializer=_json)
            event.listen(engine, "connect", _prepare_postgresql)
            event.listen(engine, "checkin", _note_idle)
            event.listen(engine, "checkout", functools.partial(_ping_idle, engine))
            return engine
        path = self.sqlite_path
        kind = filesystem_of(path.parent)
        if kind in NETWORK_FILESYSTEMS:
            raise ConfigError(
                f"database {path} lies on a {kind} filesystem, where SQLite's locks do not hold; "
                "choose a local folder with WINNOW_HOME or a PostgreSQL WINNOW_DATABASE_URL"
            )
        engine = create_engine(
            self.settings.database,
            connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False},
            pool_size=20,
            max_overflow=40,
            json_serializer=_json,
        )
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine

    @cached_property
    def sqlite_path(self) -> Path:
        """The database's file."""
        return Path(make_url(self.settings.database).database or "winnow.db").absolute()

    @cached_property
    def _writer_lock(self) -> "_WriterLock":
        return _WriterLock(self.sqlite_path.with_name(self.sqlite_path.name + ".lock"))

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for reading; nothing it does is kept. What was loaded stays readable after it."""
        with Session(self.engine) as session, _translated():
            yield session
            # A rollback would empty loaded objects that are still attached.
            session.expunge_all()
            session.rollback()

    @contextmanager
    def glance(self) -> Iterator[Session]:
        """A session for a look or two, each of which sees what is committed by then.

        PostgreSQL is not asked to begin and to end a transaction, which is half of such a look.
        """
        if self.is_sqlite:
            with self.read() as session:
                yield session
            return
        with Session(self.engine.execution_options(isolation_level="AUTOCOMMIT")) as session, _translated():
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session whose work is committed on leaving, or not at all.

        Raises
        ------
        TransientError : the database stayed locked, ran out of disk or went away. Nothing was kept; try again.
        """
        if not self.is_sqlite:
            with _translated(), Session(self.engine) as session, session.begin():
                yield session
            return
        with _translated(), self._writer_lock:
            engine = self.engine.execution_options(winnow_write=True)
            with Session(engine) as session, session.begin():
                yield session
            self._checkpoint_if_large()

    def _checkpoint_if_large(self) -> None:
        if time.monotonic() - self._checkpointed < CHECKPOINT_EVERY_SECONDS:
            return
        wal = self.sqlite_path.with_name(self.sqlite_path.name + "-wal")
        if not wal.exists() or wal.stat().st_size <= CHECKPOINT_EVERY_BYTES:
            return
        raw = self.engine.raw_connection()
        try:
            raw.cursor().execute("PRAGMA wal_checkpoint(PASSIVE)").close()
        finally:
            raw.close()
        self._checkpointed = time.monotonic()

    def now(self, session: Session) -> datetime:
        """The clock in force."""
        return self.clock(session)

    def close(self) -> None:
        """Give the connections back."""
        if "engine" in self.__dict__:
            self.engine.dispose()


class _WriterLock:
    """A lock that is exclusive between threads and between processes, and vanishes with its holder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread_lock = threading.Lock()
        self._file: int | None = None

    def __enter__(self) -> None:
        if not self._thread_lock.acquire(timeout=BUSY_SECONDS):
            raise TransientError(f"the database stayed locked for {BUSY_SECONDS:.0f} s by this process; try again")
        try:
            if self._file is None:
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._acquire(self._file)
        except BaseException:
            self._thread_lock.release()
            raise

    def _acquire(self, file: int) -> None:
        deadline = time.monotonic() + BUSY_SECONDS
        pause = 0.0005
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TransientError(
                        f"the database stayed locked for {BUSY_SECONDS:.0f} s by another process; try again"
                    ) from None
                time.sleep(pause)
                pause = min(pause * 1.5, 0.01)
            else:
                return

    def __exit__(self, *_: object) -> None:
        assert self._file is not None
        fcntl.flock(self._file, fcntl.LOCK_UN)
        self._thread_lock.release()


def _note_idle(_connection: Any, record: Any) -> None:
    record.info["idle_since"] = time.monotonic()


def _ping_idle(engine: Engine, connection: Any, record: Any, _proxy: Any) -> None:
    idle_since = record.info.get("idle_since")
    if idle_since is None or time.monotonic() - idle_since < PING_AFTER_SECONDS:
        return
    try:
        alive = engine.dialect.do_ping(connection)
    except engine.dialect.dbapi.Error as error:  # type: ignore[union-attr]
        if not engine.dialect.is_disconnect(error, connection, None):
            raise
        alive = False
    if not alive:
        # The pool takes another, and so on.
        raise InvalidatePoolError


def _json(value: Any) -> str:
    """JSON that both databases take alike: PostgreSQL refuses NaN and infinities, which SQLite would hand out again."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value


def _prepare_postgresql(connection: Any, _record: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SET lock_timeout = {round(BUSY_SECONDS * 1000)}")
        cursor.execute(f"SET idle_in_transaction_session_timeout = {round(IDLE_SECONDS * 1000)}")
    connection.commit()


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # Without this the driver begins transactions by itself, deferred, and a later write can fail with a stale snapshot.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA wal_autocheckpoint=0")
    cursor.execute("PRAGMA mmap_size=0")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    write = connection.get_execution_options().get("winnow_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


@contextmanager
def _translated() -> Iterator[None]:
    """Turn the drivers' passing troubles into ``TransientError``, with what to do."""
    try:
        yield
    except DBAPIError as error:
        if not isinstance(error, OperationalError) and not error.connection_invalidated:
            raise
        reason = str(error.orig)
        if "full" in reason or "No space" in reason:
            raise TransientError(
                f"the database's disk is full ({reason}); free space, then run the same command"
            ) from error
        if "unable to open" in reason or "readonly" in reason or "no such table" in reason:
            raise ConfigError(
                f"the database cannot be used ({reason}); run `winnow init`, or check WINNOW_HOME"
            ) from error
        if "lock timeout" in reason:
            raise TransientError(
                f"the database stayed locked for {BUSY_SECONDS:.0f} s by another process; try again"
            ) from error
        raise TransientError(f"the database did not answer ({reason}); nothing was kept, try again") from error
