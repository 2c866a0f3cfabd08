"""``winnow doctor``: everything that an installation stands on, looked at once, each with what to do about it."""

import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.exc import SQLAlchemyError

from catalog.database import CHECKPOINT_EVERY_BYTES, NETWORK_FILESYSTEMS, Catalog, database_now, filesystem_of
from catalog.errors import ServiceError
from catalog.migrate import check_revision, latest_revision
from catalog.settings import Settings
from catalog.store import Store, StoredFile
from catalog.tables.datasets import Shard, Version
from catalog.tables.engine import READY, Outbox, Run, Unit
from service.sizes import size_text
from workers.app import broker_name
from workers.probes import check_broker
from workers.runs import num_workers_alive

OK, WARNING, PROBLEM = "ok", "warning", "problem"
WAL_RESET_FIXED = (3, 51, 3)
TOKEN_FILE = "admin.token"  # noqa: S105 - a file name
CLOCK_WARNING_SECONDS = 2.0
CLOCK_PROBLEM_SECONDS = 60.0
DISK_WARNING_BYTES = 2 * 2**30
DISK_PROBLEM_BYTES = 200 * 2**20
WAL_WARNING_BYTES = 16 * CHECKPOINT_EVERY_BYTES
OUTBOX_SECONDS = 60.0
NUM_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look found: a level, what is the case, and what to do about it (empty when nothing)."""

    check: str
    level: str
    found: str
    remedy: str = ""

    def to_json(self) -> dict[str, str]:
        """Plain JSON."""
        return asdict(self)


def examine(settings: Settings, *, sample: int) -> list[Finding]:
    """Look at everything; what cannot even be looked at is a problem, never an exception.

    Parameters
    ----------
    sample : how many shards to read and verify.
    """
    catalog = Catalog(settings)
    found = [Finding("settings", OK, f"home {settings.home}")]
    found += _looked("home", lambda: _home(settings))
    database = _looked("database", lambda: _database(catalog))
    if settings.database.startswith("sqlite"):
        file = catalog.sqlite_path
        mend = f"see that {file} is whole, or put a backup back (`winnow restore`); `winnow init` migrates an older one"
        remedy = mend if file.exists() else "run `winnow init`, or set WINNOW_HOME to the home folder of before"
        database = [replace(one, remedy=remedy) if one.remedy == REMEDIES["database"] else one for one in database]
    found += database
    found += _looked("broker", lambda: _broker(settings))
    found += _looked("store", lambda: _store(settings))
    found += _looked("disk", lambda: _disk(settings))
    if all(one.level != PROBLEM for one in database):
        looks: dict[str, Callable[[], Iterator[Finding]]] = {
            "clock": lambda: _clock(catalog),
            "files": lambda: _files(catalog, sample),
            "workers": lambda: _workers(catalog),
            "leases": lambda: _leases(catalog),
            "outbox": lambda: _outbox(catalog),
            "poisoned": lambda: _poisoned(catalog),
        }
        for name, look in looks.items():
            found += _looked(name, look)
    catalog.close()
    return found


def _looked(check: str, look: Callable[[], Iterator[Finding]]) -> list[Finding]:
    found = []
    try:
        # One by one: what was found before it broke is kept.
        for one in look():
            found.append(one)  # noqa: PERF402
    except (ServiceError, SQLAlchemyError, OSError, ImportError) as error:
        reason = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
        found.append(Finding(check, PROBLEM, reason, REMEDIES.get(check, "")))
    return found


REMEDIES = {
    "database": "check WINNOW_DATABASE_URL and WINNOW_HOME, and that the server runs",
    "broker": "start it, or set WINNOW_BROKER_URL; work goes on by itself once it answers",
    "store": "mount it, check its credentials, or set WINNOW_STORE_URL",
}


def _home(settings: Settings) -> Iterator[Finding]:
    home = settings.home
    if not home.is_dir():
        yield Finding("home", PROBLEM, f"{home} is not there", "run `winnow init`, or set WINNOW_HOME")
        return
    mode = stat.S_IMODE(home.stat().st_mode)
    if not os.access(home, os.W_OK | os.X_OK):
        yield Finding("home", PROBLEM, f"{home} cannot be written to", "give it to the user that runs Winnow (chown)")
    elif mode & 0o077:
        yield Finding("home", WARNING, f"{home} is open to other users (mode {mode:04o})", f"chmod 700 {home}")
    else:
        yield Finding("home", OK, f"{home}, mode {mode:04o}")
    token = home / TOKEN_FILE
    if token.exists():
        mode = stat.S_IMODE(token.stat().st_mode)
        if mode & 0o077:
            yield Finding(
                "token file",
                PROBLEM,
                f"{token} may be read by other users (mode {mode:04o})",
                f"chmod 600 {token}, then end that token and make a new one: `winnow user admin --revoke`",
            )
        else:
            yield Finding("token file", OK, f"{token}, mode {mode:04o}")


def _database(catalog: Catalog) -> Iterator[Finding]:
    if catalog.is_sqlite:
        yield _filesystem(catalog.sqlite_path.parent)
    check_revision(catalog)
    with catalog.read() as session:
        if not catalog.is_sqlite:
            version = session.scalar(text("SHOW server_version"))
            yield Finding("database", OK, f"PostgreSQL {version}, revision {latest_revision()}")
            return
        version = str(session.scalar(text("SELECT sqlite_version()")))
        yield Finding("database", OK, f"SQLite {version}, revision {latest_revision()}{_race(version)}")
        yield _wal(catalog)
        said = [str(one) for one in session.scalars(text("PRAGMA quick_check(5)"))]
        if said == ["ok"]:
            yield Finding("integrity", OK, "PRAGMA quick_check: ok")
        else:
            restore = "stop `winnow up`, keep the damaged file, and restore a backup with `winnow restore`"
            yield Finding("integrity", PROBLEM, f"the database is damaged: {'; '.join(said)}", restore)


def _filesystem(folder: Path) -> Finding:
    kind = filesystem_of(folder)
    if kind in NETWORK_FILESYSTEMS:
        move = "choose a local folder with WINNOW_HOME, or a PostgreSQL WINNOW_DATABASE_URL"
        return Finding("filesystem", PROBLEM, f"{folder} is {kind}, where SQLite's locks do not hold", move)
    return Finding("filesystem", OK, f"{folder} is {kind}")


def _race(version: str) -> str:
    if tuple(int(part) for part in version.split(".")[:3]) >= WAL_RESET_FIXED:
        return ""
    return "; its WAL-reset race, mended in 3.51.3, cannot occur: every write and checkpoint holds one lock of ours"


def _wal(catalog: Catalog) -> Finding:
    wal = catalog.sqlite_path.with_name(catalog.sqlite_path.name + "-wal")
    size = wal.stat().st_size if wal.exists() else 0
    if size > WAL_WARNING_BYTES:
        remedy = "some process holds an old snapshot open; stop `winnow up` and start it again"
        return Finding("wal", WARNING, f"SQLite's log has {size_text(size)} and is not taken over", remedy)
    limit = size_text(CHECKPOINT_EVERY_BYTES)
    return Finding("wal", OK, f"SQLite's log has {size_text(size)}; taken over from {limit} on")


def _broker(settings: Settings) -> Iterator[Finding]:
    file = Path(broker_name(settings))
    if not settings.broker_url and not file.exists():
        # To ask it would make it, and the home folder too.
        yield Finding("broker", OK, f"the first message makes {file}")
        return
    check_broker(settings)
    yield Finding("broker", OK, f"{broker_name(settings)} answers")


def _store(settings: Settings) -> Iterator[Finding]:
    store = Store.of(settings)
    store.check()
    store.probe()
    yield Finding("store", OK, f"{store.url} can be written to")


def _disk(settings: Settings) -> Iterator[Finding]:
    store = Store.of(settings)
    places = {"home": settings.home} | ({"store": Path(store.url.removeprefix("file://"))} if store.is_local else {})
    for name, folder in places.items():
        if not folder.is_dir():
            continue
        free = shutil.disk_usage(folder).free
        level = PROBLEM if free < DISK_PROBLEM_BYTES else WARNING if free < DISK_WARNING_BYTES else OK
        remedy = "" if level == OK else "free some: `winnow gc` finds files of the store that nobody refers to"
        yield Finding("disk", level, f"{size_text(free)} free for the {name}", remedy)


def _clock(catalog: Catalog) -> Iterator[Finding]:
    with catalog.read() as session:
        before = time.time()
        database = database_now(session).timestamp()
        # Of the same moment, as near as can be known: the middle of asking.
        apart = abs(database - (before + time.time()) / 2)
    level = PROBLEM if apart > CLOCK_PROBLEM_SECONDS else WARNING if apart > CLOCK_WARNING_SECONDS else OK
    remedy = (
        "" if level == OK else "run NTP on both machines; leases go by the database's clock, logs and file ages do not"
    )
    yield Finding("clock", level, f"{apart:.2f} s between this machine and the database", remedy)


def _files(catalog: Catalog, sample: int) -> Iterator[Finding]:
    store = Store.of(catalog.settings)
    with catalog.read() as session:
        shards = session.scalars(select(Shard).order_by(func.random()).limit(sample)).all()
        newest = session.scalars(select(Version).order_by(Version.created_at.desc()).limit(sample)).all()
    files = [StoredFile(name=one.name, sha256=one.sha256, size_bytes=one.size_bytes) for one in shards]
    files += [StoredFile(name=one.manifest_name, sha256=one.manifest_sha256, size_bytes=0) for one in newest]
    wrong = []
    for file in files:
        try:
            store.read_bytes(file)
        except ServiceError as error:
            wrong.append(str(error))
    if wrong:
        restore = "put them back from a backup: `winnow restore FOLDER --files`"
        yield Finding("files", PROBLEM, f"{len(wrong)} of {len(files)} files: {'; '.join(wrong[:NUM_SHOWN])}", restore)
    else:
        yield Finding("files", OK, f"{len(files)} files read, every SHA-256 is right")


def _workers(catalog: Catalog) -> Iterator[Finding]:
    alive = num_workers_alive(catalog)
    with catalog.read() as session:
        waiting = (READY, Run.state == "running", Run.paused_at.is_(None))
        count = session.scalar(select(func.count()).select_from(Unit).join(Run, Run.id == Unit.run_id).where(*waiting))
    if not alive and count:
        yield Finding("workers", PROBLEM, f"{count:,} units wait and no worker is alive", "start some: `winnow up`")
    elif not alive:
        yield Finding("workers", OK, "none is alive, and nothing waits for one")
    else:
        yield Finding("workers", OK, f"{alive} alive, {count or 0:,} units wait")


def _leases(catalog: Catalog) -> Iterator[Finding]:
    with catalog.read() as session:
        # Two sweeps would have found them.
        late = catalog.now(session) - timedelta(seconds=2 * catalog.settings.sweep_seconds)
        expired = (Unit.state == "running", Unit.lease_until < late, Run.state == "running")
        count = session.scalar(select(func.count()).select_from(Unit).join(Run, Run.id == Unit.run_id).where(*expired))
    if count:
        remedy = "sweepers live in workers: start one (`winnow up`), and see its log if it runs"
        yield Finding("leases", WARNING, f"{count:,} running units whose lease ran out were not taken back", remedy)
    else:
        yield Finding("leases", OK, "none has run out")


def _outbox(catalog: Catalog) -> Iterator[Finding]:
    with catalog.read() as session:
        count, oldest = session.execute(select(func.count(), func.min(Outbox.created_at))).one()
        age = (catalog.now(session) - oldest).total_seconds() if oldest is not None else 0.0
    if age > OUTBOX_SECONDS:
        remedy = "the broker is away, or no worker is alive to send: see `broker` and `workers`"
        yield Finding("outbox", WARNING, f"{count:,} messages unsent, the oldest for {age:,.0f} s", remedy)
    else:
        yield Finding("outbox", OK, f"{count:,} messages unsent")


def _poisoned(catalog: Catalog) -> Iterator[Finding]:
    with catalog.read() as session:
        rows = session.execute(
            select(Run.id, Run.kind, Unit.stage_name, Unit.reason)
            .join(Run, Run.id == Unit.run_id)
            .where(Unit.state == "poisoned")
            .order_by(Run.created_at.desc(), Unit.position)
        ).all()
    if not rows:
        yield Finding("poisoned", OK, "no unit was given up")
        return
    told = "; ".join(f"run {run[:8]} ({kind}), {stage}: {reason}" for run, kind, stage, reason in rows[:NUM_SHOWN])
    more = f"; and {len(rows) - NUM_SHOWN} more" if len(rows) > NUM_SHOWN else ""
    remedy = "mend the reason, then give the same command again: what was finished is kept"
    yield Finding("poisoned", WARNING, f"{len(rows)} units were given up: {told}{more}", remedy)


def verdict(found: list[Finding]) -> dict[str, Any]:
    """Whether all is well, and every finding, as JSON."""
    return {"ok": all(one.level != PROBLEM for one in found), "checks": [one.to_json() for one in found]}
