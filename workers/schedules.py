"""Schedules: jobs that start by the clock, when data comes in, or when files appear in a folder.

Every worker looks after all of them; none is special, and none is needed. That a time was due is one row of
``firings``, unique by schedule and time, written together with the schedule's next time: of any number of workers one
writes it. What comes of it is settled apart, by any worker, and is safe to repeat, because the same job asked for twice
is the same run. So a time is never lost and never counts twice, whoever dies when.
"""

import logging
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError
from sqlalchemy import delete, select, update
from sqlalchemy.engine import CursorResult
from sqlalchemy.orm import Session

from catalog.database import Catalog, one_at_a_time
from catalog.errors import ConfigError, ConflictError, NotFoundError, ServiceError, TakenError, TransientError, nearest
from catalog.faults import fault
from catalog.settings import Settings
from catalog.store import Store
from catalog.tables.base import new_id
from catalog.tables.datasets import Dataset, Version
from catalog.tables.engine import Run
from catalog.tables.schedules import MISSED, Firing, Request, Schedule, WatchedFile
from workers import jobs, requests, runs, webhooks
from workers.outcomes import counted
from workers.runs import check_steering

INGEST = "ingest"
"""The kind of a schedule that only takes in what appears in a folder."""
KIND_OF_VERSION = {"ingest": "raw", "clean": "curated"}
LATE_SECONDS = 60.0
"""A time that was due longer ago was missed."""
SCAN_PAUSES = 20
"""A folder is looked at again after so many times what looking took, and no sooner than at the next sweep."""
MAX_FILES = 10_000
log = logging.getLogger(__name__)


def next_time(cron: str, timezone: str, after: datetime) -> datetime:
    """The first time of a cron expression after a moment, in UTC. Clocks that change: as Debian's cron does.

    Raises
    ------
    ConfigError : not five fields, a field out of range, a time that never comes, or an unknown time zone.
    """
    if timezone not in available_timezones():
        raise ConfigError(f"timezone={timezone!r} is unknown; {nearest(timezone, available_timezones())}")
    if len(cron.split()) != 5:
        raise ConfigError(
            f"cron={cron!r} must have five fields: minute hour day month weekday, e.g. '0 3 * * *' for 3 o'clock"
        )
    try:
        found: datetime = next(CronSim(cron, after.astimezone(ZoneInfo(timezone))))
    except CronSimError as error:
        raise ConfigError(f"cron={cron!r} is refused ({error}); e.g. '0 3 * * *' is 3 o'clock every day") from error
    except StopIteration:
        raise ConfigError(f"cron={cron!r} never comes: no such day in the next 50 years") from None
    return found.astimezone(after.tzinfo)


def in_words(cron: str) -> str:
    """A cron expression as people say it."""
    return str(CronSim(cron, datetime(2026, 1, 1)).explain())  # noqa: DTZ001 - only the words are asked for


def when(schedule: Schedule) -> str:
    """What a schedule waits for, in words."""
    if schedule.trigger == "cron":
        return f"{in_words(str(schedule.cron))} ({schedule.cron}, {schedule.timezone})"
    if schedule.trigger == "watch":
        return f"when files appear in {schedule.folder}"
    return "whenever new data has come in" if schedule.trigger == "ingest" else "whenever it was cleaned anew"


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """A schedule as somebody asks for it.

    Parameters
    ----------
    kind, config : the job, as ``workers.jobs`` takes it; kind ``ingest`` only with ``folder``.
    cron, on, folder : when: exactly one of a cron expression, ``ingest`` or ``clean``, and a folder to watch.
    timezone : of the cron expression, an IANA name.
    missed : ``once`` (one run for all times that nobody was there for) or ``skip`` (none).
    mapping : of a watched folder's files, as ``curation.sources.mapping.Mapping`` in plain JSON.
    priority, max_units : of the runs.
    """

    name: str
    dataset: str
    kind: str
    config: dict[str, Any]
    cron: str | None = None
    on: str | None = None
    folder: str | None = None
    timezone: str = "UTC"
    missed: str = "once"
    mapping: dict[str, Any] | None = None
    priority: int = 0
    max_units: int | None = None

    @property
    def trigger(self) -> str:
        """One of ``catalog.tables.schedules.TRIGGERS``.

        Raises
        ------
        ConfigError : none or several are asked for.
        """
        given = [name for name in ("cron", "on", "folder") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ConfigError(
                "say when, once: by the clock (--cron), on ingest (--on-ingest), on clean (--on-clean), or when files "
                "appear in a folder (--watch)"
            )
        if self.on is not None:
            if self.on not in KIND_OF_VERSION:
                raise ConfigError(f"on={self.on!r} is unknown; {nearest(self.on, KIND_OF_VERSION)}")
            return self.on
        return "cron" if self.cron is not None else "watch"


def add_schedule(
    session: Session, settings: Settings, wanted: Wanted, *, now: datetime, created_by: str | None = None
) -> Schedule:
    """Write a schedule down. Its job was checked, or made by ``workers.jobs.recipe_config``.

    Parameters
    ----------
    settings : where home and store are, which no schedule may watch.

    Raises
    ------
    ConfigError : an option is wrong. TakenError : the name is taken. NotFoundError : no such dataset, unless a
        folder is watched, whose first file makes it.
    """
    _check(session, settings, wanted)
    schedule = Schedule(
        id=new_id(),
        name=wanted.name,
        dataset=wanted.dataset,
        kind=wanted.kind,
        config=wanted.config,
        trigger=wanted.trigger,
        cron=wanted.cron,
        timezone=wanted.timezone,
        folder=None if wanted.folder is None else str(Path(wanted.folder).absolute()),
        mapping=wanted.mapping,
        missed=wanted.missed,
        priority=wanted.priority,
        max_units=wanted.max_units,
        created_by=created_by,
        created_at=now,
        updated_at=now,
    )
    _set_next(session, schedule, now)
    # Last: who mistypes an option wants to hear of that, not of a name that is a default.
    if session.scalar(select(Schedule.id).where(Schedule.name == wanted.name)) is not None:
        raise TakenError(f"there is a schedule {wanted.name!r}; choose another name (--name), or remove that one")
    session.add(schedule)
    session.flush()
    return schedule


def _check(session: Session, settings: Settings, wanted: Wanted) -> None:
    trigger = wanted.trigger
    if not re.fullmatch(r"\w[\w.-]{0,99}", wanted.name):
        raise ConfigError(
            f"name={wanted.name!r} must be 1 to 100 letters, digits, '.', '-' or '_', beginning with a letter or digit"
        )
    if wanted.missed not in MISSED:
        raise ConfigError(f"missed={wanted.missed!r} is unknown; {nearest(wanted.missed, MISSED)}")
    if trigger == "clean" and wanted.kind == "clean":
        raise ConfigError("a cleaning that every cleaning starts would never end; let new data start it (--on-ingest)")
    if wanted.kind == INGEST and trigger != "watch":
        raise ConfigError("files are taken in from a folder that is watched; give the folder, or another job")
    if wanted.mapping is not None and trigger != "watch":
        raise ConfigError("columns are those of files in a watched folder; leave them out, or give the folder")
    if trigger != "cron" and (wanted.timezone != "UTC" or wanted.missed != "once"):
        option = "timezone" if wanted.timezone != "UTC" else "missed"
        raise ConfigError(f"{option} is of times by the clock; leave it out, or give a cron expression")
    if trigger == "watch":
        _check_folder(str(wanted.folder), settings)
        _check_columns(session, wanted)
    elif session.scalar(select(Dataset.id).where(Dataset.name == wanted.dataset)) is None:
        known = session.scalars(select(Dataset.name))
        raise NotFoundError(f"there is no dataset {wanted.dataset!r}; {nearest(wanted.dataset, known)}")
    check_steering(wanted.priority, wanted.max_units)


def _check_folder(folder: str, settings: Settings) -> None:
    if not Path(folder).is_dir():
        if Path(folder).exists():
            raise ConfigError(f"{folder} is a file; give the folder that it appears in")
        raise ConfigError(f"folder {folder} is not there; make it, or check the path")
    for what, own in _own_folders(settings).items():
        watched = Path(folder).resolve()
        if watched == own or own in watched.parents or watched in own.parents:
            how = "is" if watched == own else "lies in" if own in watched.parents else "holds"
            raise ConfigError(
                f"folder {folder} {how} {what} {own}, whose files Winnow writes itself, so that the dataset would feed "
                "on itself; watch another folder"
            )


def _own_folders(settings: Settings) -> dict[str, Path]:
    """Where Winnow itself writes: the home folder, and the store where that is a folder."""
    store = Store.of(settings)
    home = {"the home folder": settings.home.resolve()}
    return home | ({"the store": Path(store.url.removeprefix("file://")).resolve()} if store.is_local else {})


def _check_columns(session: Session, wanted: Wanted) -> None:
    """Refuse what ``winnow ingest`` would refuse of every file: the dataset's name, columns it was not made with."""
    from curation.sources.mapping import Mapping
    from workers.pipelines.ingest import check_columns, check_name

    check_name(wanted.dataset)
    found = session.scalars(select(Dataset).where(Dataset.name == wanted.dataset)).one_or_none()
    if found is not None and wanted.mapping is not None:
        check_columns(session, found, Mapping(**wanted.mapping))


def _set_next(session: Session, schedule: Schedule, now: datetime) -> None:
    """When it is due first, counted from now: nothing of the past is made up for."""
    schedule.next_at, schedule.problem = None, None
    if schedule.trigger == "cron":
        schedule.next_at = next_time(str(schedule.cron), schedule.timezone, now)
    elif schedule.trigger == "watch":
        schedule.next_at = now
    else:
        schedule.cursor = _newest_version(session, schedule)


def change_schedule(
    session: Session,
    schedule: Schedule,
    now: datetime,
    *,
    enabled: bool | None = None,
    cron: str | None = None,
    timezone: str | None = None,
    missed: str | None = None,
    priority: int | None = None,
    max_units: int | None = None,
    config: dict[str, Any] | None = None,
) -> None:
    """Change some of a schedule; None leaves a thing as it is.

    Raises
    ------
    ConfigError : an option is wrong, or of another trigger.
    """
    if any(one is not None for one in (cron, timezone, missed)) and schedule.trigger != "cron":
        raise ConfigError(f"schedule {schedule.name!r} goes by {schedule.trigger}, not by the clock; add another one")
    if missed is not None and missed not in MISSED:
        raise ConfigError(f"missed={missed!r} is unknown; {nearest(missed, MISSED)}")
    check_steering(priority, max_units)
    again = enabled is True and not schedule.enabled
    schedule.enabled = schedule.enabled if enabled is None else enabled
    schedule.cron = cron or schedule.cron
    schedule.timezone = timezone or schedule.timezone
    schedule.missed = missed or schedule.missed
    schedule.priority = schedule.priority if priority is None else priority
    schedule.max_units = schedule.max_units if max_units is None else (max_units or None)
    schedule.config = schedule.config if config is None else config
    schedule.updated_at = now
    if again or cron is not None or timezone is not None:
        _set_next(session, schedule, now)


def find_schedule(session: Session, name: str) -> Schedule:
    """A schedule by its name.

    Raises
    ------
    NotFoundError : there is none, with the nearest.
    """
    found = session.scalars(select(Schedule).where(Schedule.name == name)).one_or_none()
    if found is None:
        raise NotFoundError(f"there is no schedule {name!r}; {nearest(name, session.scalars(select(Schedule.name)))}")
    return found


def fire_now(session: Session, schedule: Schedule, now: datetime) -> None:
    """Let a schedule be due at once, besides its own times; a folder is looked into at once.

    Raises
    ------
    ConflictError : it watches a folder and is switched off, so that nobody looks.
    """
    if schedule.trigger == "watch":
        if not schedule.enabled:
            raise ConflictError(
                f"schedule {schedule.name!r} is switched off; switch it on, and its folder is looked into"
            )
        schedule.next_at = now
    _fire(session, schedule, now, {"asked": True})


def remove_schedule(session: Session, schedule: Schedule, now: datetime) -> None:
    """Remove a schedule and its history. What it has started goes on, but nothing waits for a run that has failed."""
    for firing in session.scalars(select(Firing).where(Firing.schedule_id == schedule.id)):
        run = None if firing.run_id is None else session.get(Run, firing.run_id)
        if run is not None and run.state in ("failed", "cancelled"):
            _end_request(session, firing, now, "its schedule was removed")
    session.delete(schedule)


def _end_request(session: Session, firing: Firing, now: datetime, reason: str) -> None:
    """Let the job never start that waits for the files of a firing."""
    request = session.get(Request, firing.detail.get("request", ""))
    if request is not None and request.state == "waiting":
        requests.cancel_request(request, now, reason)


def _fire(session: Session, schedule: Schedule, due_at: datetime, detail: dict[str, Any]) -> Firing:
    firing = Firing(id=new_id(), schedule_id=schedule.id, due_at=due_at, detail=detail)
    session.add(firing)
    session.flush()
    fault("fire.before_commit")
    return firing


def tick(catalog: Catalog) -> int:
    """Write down what is due, and start what can be; return how many times were settled."""
    with catalog.read() as session:
        enabled = session.scalars(select(Schedule).where(Schedule.enabled.is_(True)).order_by(Schedule.name)).all()
        now = catalog.now(session)
        seen = {one.id: _newest_version(session, one) for one in enabled if one.trigger in KIND_OF_VERSION}
    for schedule in enabled:
        due = schedule.next_at is not None and schedule.next_at <= now
        if schedule.trigger == "cron" and due:
            _due_by_clock(catalog, schedule)
        elif schedule.trigger == "watch" and due:
            _look_into(catalog, schedule)
        elif schedule.trigger in KIND_OF_VERSION and seen[schedule.id] != schedule.cursor:
            _due_by_version(catalog, schedule)
    return settle(catalog)


def _newest_version(session: Session, schedule: Schedule) -> str | None:
    return session.scalar(
        select(Version.id)
        .join(Dataset, Dataset.id == Version.dataset_id)
        .where(Dataset.name == schedule.dataset, Version.kind == KIND_OF_VERSION[schedule.trigger])
        .order_by(Version.number.desc())
        .limit(1)
    )


def _won(session: Session, schedule: Schedule, **values: Any) -> bool:
    """Whether this worker, of all that saw the same, is the one that goes on."""
    changed = session.execute(
        update(Schedule)
        .where(
            Schedule.id == schedule.id,
            Schedule.enabled.is_(True),
            Schedule.next_at.is_not_distinct_from(schedule.next_at),
            Schedule.cursor.is_not_distinct_from(schedule.cursor),
        )
        .values(**values)
        .execution_options(synchronize_session=False)
    )
    assert isinstance(changed, CursorResult)
    return changed.rowcount == 1


def _due_by_clock(catalog: Catalog, schedule: Schedule) -> None:
    assert schedule.next_at is not None
    with catalog.write() as session:
        now = catalog.now(session)
        following = next_time(str(schedule.cron), schedule.timezone, now)
        if not _won(session, schedule, next_at=following):
            return
        firing = _fire(session, schedule, schedule.next_at, {})
        late = (now - schedule.next_at).total_seconds()
        if late > LATE_SECONDS:
            firing.detail = {"late_seconds": round(late)}
            if schedule.missed == "skip":
                reason = f"missed by {late:,.0f} s: no worker was running"
                firing.outcome, firing.reason, firing.settled_at = "skipped", reason, now


def _due_by_version(catalog: Catalog, schedule: Schedule) -> None:
    with catalog.write() as session:
        newest = _newest_version(session, schedule)
        if newest is not None and _won(session, schedule, cursor=newest):
            _fire(session, schedule, catalog.now(session), {"version": newest})


def _look_into(catalog: Catalog, schedule: Schedule) -> None:
    """Write down the files of a watched folder that are new or have changed, and are left alone since a while."""
    with catalog.write() as session:
        now = catalog.now(session)
        # Far off, so that no other worker looks meanwhile; set right below.
        looking_until = now + timedelta(seconds=catalog.settings.lease_seconds)
        if not _won(session, schedule, next_at=looking_until):
            return
    began = time.monotonic()
    problem, found = None, []
    try:
        found = list(_files_of(Path(str(schedule.folder)), catalog.settings))
    except OSError as error:
        problem = f"{schedule.folder} cannot be read on {socket.gethostname()}: {error.strerror or error}"
    pause = max(catalog.settings.sweep_seconds, SCAN_PAUSES * (time.monotonic() - began))
    with catalog.write() as session:
        now = catalog.now(session)
        current = session.get(Schedule, schedule.id)
        if current is None or current.next_at != looking_until:
            return
        current.next_at, current.problem = now + timedelta(seconds=pause), problem
        known = {one.path: one for one in session.scalars(_watched(schedule))}
        again = _left_behind(session, schedule)
        new = [one for one in found if one.path not in known or one.path in again or _differs(known[one.path], one)]
        new = new[:MAX_FILES]
        for one in new:
            session.merge(WatchedFile(schedule_id=schedule.id, **asdict(one)))
        _tell_of_look(session, current, now, [one.path for one in new], problem)


def _tell_of_look(session: Session, schedule: Schedule, now: datetime, new: list[str], problem: str | None) -> None:
    """Write the new files down, in the history's line of whoever asked for the look, if somebody did."""
    pending = select(Firing).where(Firing.schedule_id == schedule.id, Firing.outcome == "pending")
    asked = [one for one in session.scalars(pending.order_by(Firing.due_at)) if "files" not in one.detail]
    if new and asked:
        asked.pop(0).detail = {"asked": True, "files": new}
    elif new:
        _fire(session, schedule, now, {"files": new})
    for one in asked:
        one.outcome, one.reason, one.settled_at = "skipped", problem or "no new files", now


def _left_behind(session: Session, schedule: Schedule) -> set[str]:
    """Files that went in with none, because another that was to be read with them was taken away meanwhile."""
    return {
        path
        for _, run in _failed_ingests(session, schedule)
        if not all(Path(one["path"]).exists() for one in run.config["sources"])
        for path in (one["path"] for one in run.config["sources"])
    }


def _failed_ingests(session: Session, schedule: Schedule) -> list[tuple[Firing, Run]]:
    """What the schedule has started and what failed, where it has not been taken up anew."""
    query = (
        select(Firing, Run)
        .join(Run, Run.id == Firing.run_id)
        .where(
            *(Firing.schedule_id == schedule.id, Firing.outcome == "started"),
            *(Run.kind == INGEST, Run.state == "failed", Run.requested_by == _by(schedule)),
        )
    )
    return [(firing, run) for firing, run in session.execute(query.order_by(Firing.due_at))]


def _by(schedule: Schedule) -> str:
    """Who asks for its runs."""
    return f"schedule {schedule.name}"


@dataclass(frozen=True, slots=True)
class _Seen:
    path: str
    size_bytes: int
    mtime_ns: int


def _files_of(folder: Path, settings: Settings) -> Iterator[_Seen]:
    if not folder.is_dir():
        raise FileNotFoundError(2, "no such folder", str(folder))
    # The files' own clock: a network folder's may differ from ours, but its files are dated by it alike.
    settled_before = time.time_ns() - int(settings.watch_settle_seconds * 1e9)
    own = _own_folders(settings).values()
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        # Home or store may have been moved here since the schedule was made.
        if any(one == path or one in path.parents for one in own):
            continue
        if any(part.startswith(".") for part in relative.parts) or path.suffix in (".tmp", ".part", ".crdownload"):
            continue
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        if path.is_file() and status.st_mtime_ns <= settled_before:
            yield _Seen(str(path), status.st_size, status.st_mtime_ns)


def _watched(schedule: Schedule) -> Any:
    return select(WatchedFile).where(WatchedFile.schedule_id == schedule.id)


def _differs(known: WatchedFile, seen: _Seen) -> bool:
    return (known.size_bytes, known.mtime_ns) != (seen.size_bytes, seen.mtime_ns)


def settle(catalog: Catalog) -> int:
    """Start the job of every time that is due and whose schedule has nothing under way; return how many were settled.

    One job of a schedule at a time: what becomes due meanwhile waits, and of several times that wait one job is enough,
    but for files, all of which are taken in.
    """
    with catalog.read() as session:
        pending = session.execute(
            select(Firing, Schedule)
            .join(Schedule, Schedule.id == Firing.schedule_id)
            .where(Firing.outcome == "pending")
            .order_by(Firing.schedule_id, Firing.due_at)
        ).all()
        waiting: dict[str, list[Firing]] = {}
        schedules = {schedule.id: schedule for _, schedule in pending}
        for firing, schedule in pending:
            # Of a look that somebody asked for nothing is known before it.
            if schedule.trigger != "watch" or "files" in firing.detail:
                waiting.setdefault(schedule.id, []).append(firing)
        free = {schedule_id for schedule_id in waiting if not _is_busy(session, schedule_id)}
    settled = 0
    for schedule_id in sorted(free):
        schedule, firings = schedules[schedule_id], waiting[schedule_id]
        if schedule.trigger == "watch":
            settled += _start(catalog, schedule, firings[0])
            continue
        for firing in firings[:-1]:
            reason = f"that of {firings[-1].due_at:%Y-%m-%d %H:%M} stands for it"
            settled += _record(catalog, firing, schedule, outcome="skipped", reason=reason)
        settled += _start(catalog, schedule, firings[-1])
    return settled


def _is_busy(session: Session, schedule_id: str) -> bool:
    """Whether a run that the schedule started is still going on, or waits for its turn."""
    last = session.scalars(
        select(Firing)
        .where(Firing.schedule_id == schedule_id, Firing.outcome == "started")
        .order_by(Firing.due_at.desc())
        .limit(1)
    ).one_or_none()
    if last is None:
        return False
    started = [last.run_id]
    if (request_id := last.detail.get("request")) is not None:
        request = session.get(Request, request_id)
        if request is not None and request.state == "waiting":
            # Whoever resumes the failed ingest wakes it; meanwhile other files must not wait for ever.
            return session.scalar(select(Run.state).where(Run.id == last.run_id)) in ("running", "done")
        started.append(request.run_id if request is not None else None)
    return session.scalar(select(Run.id).where(Run.id.in_(started), Run.state == "running").limit(1)) is not None


def _start(catalog: Catalog, schedule: Schedule, firing: Firing) -> int:
    try:
        outcome = _take_in(catalog, schedule, firing) if schedule.trigger == "watch" else _ask(catalog, schedule)
    except TransientError as error:
        log.warning("schedule %r waits on: %s", schedule.name, error)
        return 0
    except ServiceError as error:
        outcome = {"outcome": "refused", "reason": f"{error}"}
    except Exception as error:
        # A job's bug must become a reason in the history: other schedules wait for their turn.
        log.exception("schedule %r failed", schedule.name)
        outcome = {"outcome": "refused", "reason": f"{type(error).__name__}: {error}"}
    fault("fire.before_record")
    return _record(catalog, firing, schedule, **outcome)


def _ask(catalog: Catalog, schedule: Schedule) -> dict[str, Any]:
    started = jobs.start_job(
        catalog,
        kind=schedule.kind,
        dataset=schedule.dataset,
        config=schedule.config,
        requested_by=f"schedule {schedule.name}",
        priority=schedule.priority,
        max_units=schedule.max_units,
    )
    if started.state == "done":
        reason = "nothing has changed since that run"
        return {"outcome": "unchanged", "run_id": started.run_id, "reason": reason}
    return {"outcome": "started", "run_id": started.run_id}


def _take_in(catalog: Catalog, schedule: Schedule, firing: Firing) -> dict[str, Any]:
    """Ingest the files that appeared, and ask for the schedule's job once they are in."""
    from curation.sources.mapping import Mapping
    from workers.pipelines.ingest import submit_ingest

    detail = _instead_of_failed(catalog, schedule, firing)
    there = [path for path in detail["files"] if Path(path).exists()]
    if not there:
        return {"outcome": "skipped", "reason": "the files are gone", "detail": detail}
    mapping = Mapping(**schedule.mapping) if schedule.mapping is not None else _mapping_of(catalog, schedule.dataset)
    by = _by(schedule)
    asked = submit_ingest(catalog, dataset=schedule.dataset, paths=there, mapping=mapping, requested_by=by)
    run_id = asked.run_id or next(iter(asked.others.values()), None)
    if run_id is None:
        return {"outcome": "unchanged", "reason": "; ".join(sorted(set(asked.skipped.values()))), "detail": detail}
    reason = f"{counted(len(asked.skipped), 'file')} brought nothing new" if asked.skipped else None
    started = {"outcome": "started", "run_id": run_id, "reason": reason, "detail": detail}
    if schedule.kind == INGEST:
        return started
    with catalog.write() as session:
        # Its id is the firing's own, so that asking twice leaves one request.
        one_at_a_time(session, f"firing {firing.id}")
        if session.get(Request, firing.id) is None:
            request = requests.ask_after(
                session,
                now=catalog.now(session),
                after=run_id,
                kind=schedule.kind,
                dataset=schedule.dataset,
                config=schedule.config,
                requested_by=by,
                priority=schedule.priority,
                max_units=schedule.max_units,
                request_id=firing.id,
            )
            assert request.id == firing.id
    return started | {"detail": detail | {"request": firing.id}}


def _instead_of_failed(catalog: Catalog, schedule: Schedule, firing: Firing) -> dict[str, Any]:
    """Take the files of failed ingests along with some of the same, which those could not read; end what waits there.

    Returns
    -------
    the firing's detail, whose files are by now all that are to be taken in.
    """
    files = set(firing.detail["files"])
    with catalog.write() as session:
        now = catalog.now(session)
        current = session.get_one(Firing, firing.id)
        for before, run in _failed_ingests(session, schedule):
            theirs = {one["path"] for one in run.config["sources"]}
            if files & theirs:
                files |= theirs
                reason = (
                    f"files of it changed or went away; they are taken in again with those of {firing.due_at:%H:%M:%S}"
                )
                runs.set_aside(session, run, now, reason)
                # What was taken away is new when it comes back, for nothing of it went in.
                gone = [path for path in theirs if not Path(path).exists()]
                forgotten = delete(WatchedFile).where(
                    WatchedFile.schedule_id == schedule.id, WatchedFile.path.in_(gone)
                )
                session.execute(forgotten.execution_options(synchronize_session=False))
                _end_request(session, before, now, reason)
        current.detail = current.detail | {"files": sorted(files)}
        return dict(current.detail)


def _mapping_of(catalog: Catalog, dataset: str) -> Any:
    """The columns that the dataset was made with."""
    from curation.sources.conversations import STYLES
    from curation.sources.mapping import Mapping

    with catalog.read() as session:
        found = session.scalars(select(Dataset).where(Dataset.name == dataset)).one_or_none()
    if found is None:
        return Mapping()
    turns = next((name for name, style in STYLES.items() if style.name == found.text_column), None)
    return Mapping(text=None if turns else found.text_column, turns=turns, label=found.label_column)


def _record(catalog: Catalog, firing: Firing, schedule: Schedule, **values: Any) -> int:
    with catalog.write() as session:
        now = catalog.now(session)
        changed = session.execute(
            update(Firing)
            .where(Firing.id == firing.id, Firing.outcome == "pending")
            .values(settled_at=now, **values)
            .execution_options(synchronize_session=False)
        )
        assert isinstance(changed, CursorResult)
        if changed.rowcount == 1 and values["outcome"] == "refused":
            payload = {"schedule": schedule.name, "due_at": firing.due_at.isoformat(), "reason": values["reason"]}
            webhooks.emit(session, event="schedule.refused", about=firing.id, payload=payload, now=now)
        return changed.rowcount


__all__ = [
    "INGEST",
    "Wanted",
    "add_schedule",
    "change_schedule",
    "find_schedule",
    "fire_now",
    "in_words",
    "next_time",
    "remove_schedule",
    "settle",
    "tick",
    "when",
]
