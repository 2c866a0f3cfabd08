"""What every command prints: data on stdout (tables or JSON), words and progress on stderr."""

import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from catalog import tracing
from catalog.database import Catalog
from catalog.errors import ConfigError, ServiceError
from catalog.faults import fault
from catalog.migrate import check_revision
from catalog.settings import Settings, load_settings
from catalog.store import Store
from workers import runs
from workers.app import BrokerAwayError, deliver, make_app

if TYPE_CHECKING:
    from service.processes import TemporaryWorkers

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables, and no progress.")]
COMMAND_LINE = "command line"
"""Who asks for the runs of commands."""
POLL_SECONDS = 0.1
TEND_SECONDS = 2.0
RESUMES = "and the same command goes on from there"
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
C1 = re.compile(r"[\x7f-\x9f]")


class _Console(Console):
    """rich ends a program whose reader went away with status 1; a reader that has enough is no failure."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


out = _Console(highlight=False, markup=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200)
err = _Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


class RunFailedError(ServiceError):
    """The run that the command asked for did not succeed."""

    code = "run_failed"


class LeftRunningError(ServiceError):
    """Ctrl-C ended the command, not the run: it is in the hands of workers that the command did not start."""

    code = "interrupted"
    exit_code = 130


def complain(message: str) -> None:
    """An error on stderr."""
    err.print(f"winnow: {printable(message)}")


def say(message: str, *, as_json: bool = False) -> None:
    """A remark on stderr, kept quiet when a program is reading."""
    if not as_json:
        err.print(printable(message))


def show(line: str) -> None:
    """A line of data on stdout."""
    out.print(printable(line))


def emit_json(value: Any) -> None:
    """One JSON document on stdout, there at once: a program may be waiting for it while this command goes on."""
    # JSON escapes the other control characters itself; a terminal obeys these too.
    text = C1.sub(
        lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=_is_narrow(sys.stdout), default=str)
    )
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _is_narrow(stream: TextIO) -> bool:
    return (stream.encoding or "ascii").lower().replace("-", "") != "utf8"


def emit_table(title: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table on stdout; numbers to the right."""
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, title_style="bold")
    for index, name in enumerate(header):
        numeric = bool(rows) and all(isinstance(row[index], int | float) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*[_shown(cell) for cell in row])
    out.print(table)


def printable(text: str) -> str:
    """Text without the control characters that a terminal would obey."""
    return CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def _shown(cell: Any) -> str:
    if isinstance(cell, bool) or cell is None:
        return "" if cell is None else ("yes" if cell else "no")
    if isinstance(cell, int) or (isinstance(cell, float) and cell.is_integer() and abs(cell) < 1e15):
        return f"{cell:,.0f}"
    if isinstance(cell, float):
        return f"{cell:.4g}"
    return printable(str(cell))


def workspace() -> Catalog:
    """Settings, database and store, checked before anything begins.

    Raises
    ------
    ConfigError : a setting is wrong, the database is missing or of another release, the store is not there.
    """
    settings: Settings = load_settings()
    tracing.configure(settings, "winnow-command")
    catalog = Catalog(settings)
    with database_refusals(settings):
        check_revision(catalog)
    Store.of(settings).check()
    return catalog


@contextmanager
def database_refusals(settings: Settings) -> Iterator[None]:
    """Say which database cannot be reached, and why, when the first word spoken with it fails.

    Raises
    ------
    ConfigError : no URL, no driver, no server, or no database file.
    """
    try:
        yield
    except (SQLAlchemyError, ImportError) as error:
        raise ConfigError(
            f"database {_shown_url(settings)} cannot be used ({first_line(error)}); check WINNOW_DATABASE_URL and "
            "WINNOW_HOME, that its server runs, and that its driver is installed (pip install 'winnow[postgres]')"
        ) from error


def _shown_url(settings: Settings) -> str:
    try:
        return make_url(settings.database).render_as_string(hide_password=True)
    except ArgumentError:
        # What does not parse may hold a password anywhere.
        return "(no SQLAlchemy URL)"


def first_line(error: Exception) -> str:
    """What a library says, without its advice to programmers."""
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def send(catalog: Catalog, run_id: str) -> None:
    """Hand what the outbox holds to the broker.

    Raises
    ------
    BrokerAwayError : it does not answer; the run is recorded, and any worker's next sweep sends it.
    """
    fault("submit.after_commit")
    try:
        deliver(catalog, make_app(catalog.settings))
    except BrokerAwayError as away:
        raise BrokerAwayError(
            f"{away}. Run {run_id[:8]} is recorded, and starts by itself once the broker answers and `winnow up` runs; "
            "see `winnow runs`"
        ) from away


def detached(catalog: Catalog, run_id: str, *, as_json: bool) -> None:
    """Leave a run to the workers and say where to look."""
    away = None
    try:
        send(catalog, run_id)
    except BrokerAwayError as error:
        away = str(error)
    if as_json:
        emit_json({"run": run_id} | ({"broker_away": away} if away else {}))
        return
    show(run_id)
    if away:
        say(away)
    elif runs.num_workers_alive(catalog):
        say("running in the workers; see `winnow runs`")
    else:
        say("queued, but no worker is running: start them with `winnow up`")


def watch(
    catalog: Catalog,
    run_id: str,
    *,
    as_json: bool,
    tend: Callable[[], list[str]] = list,
    meanwhile: Callable[[], None] | None = None,
) -> runs.RunProgress:
    """Wait for a run, showing stage, counts, rate and time left.

    Parameters
    ----------
    tend : called every ``TEND_SECONDS`` to see to the workers; what happened, in words.
    meanwhile : called again and again, for a caller that shows a progress of its own.

    Raises
    ------
    RunFailedError : the run failed or was cancelled; the message has the reason and how to go on.
    """
    with progress_bar(as_json=as_json) as bar:
        task = bar.add_task("starting", total=None, rate="", left="")
        shown_stage = -1
        told_paused = False
        tended = time.monotonic()
        while True:
            with catalog.read() as session:
                state = runs.run_progress(session, run_id, catalog.now(session))
            stage = state.stages[state.stage]
            if bar.disable and not as_json and state.stage != shown_stage:
                err.print(f"{state.kind} {state.stage + 1}/{len(state.stages)}: {stage.name}")
            shown_stage = state.stage
            bar.update(
                task,
                description=f"{state.kind} {state.stage + 1}/{len(state.stages)} {stage.name}",
                completed=stage.num_done,
                total=stage.num_total or None,
                rate=f"{state.rate:,.0f}/s" if state.rate else "",
                left=_time_left(state),
            )
            if state.paused and not told_paused:
                say(f"run {run_id[:8]} is paused; go on with `winnow resume {run_id[:8]}`", as_json=as_json)
            told_paused = state.paused
            if state.state != "running":
                break
            if time.monotonic() - tended >= TEND_SECONDS:
                for event in tend():
                    say(event, as_json=as_json)
                tended = time.monotonic()
            if meanwhile is not None:
                meanwhile()
            time.sleep(POLL_SECONDS)
    if state.state != "done":
        with catalog.read() as session:
            refused = runs.was_refused(session, run_id, catalog.settings.max_attempts)
        again = "but the same command fails alike until that is mended" if refused else RESUMES
        because = f": {state.reason}" if state.reason else ""
        raise RunFailedError(
            f"{state.kind} run {run_id[:8]} {state.state}{because}; what was finished is kept, {again}"
        )
    return state


def _time_left(state: runs.RunProgress) -> str:
    if state.paused:
        return "paused"
    if state.run_seconds_left is not None:
        return f"{state.run_seconds_left:,.0f} s left"
    return "" if state.seconds_left is None else f"{state.seconds_left:,.0f} s left in this stage"


def progress_bar(*, as_json: bool) -> Progress:
    """What long work shows, on a terminal only: what it does, how much is done, the rate, the time left.

    A task of it is added with the fields ``rate`` and ``left``.
    """
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}"),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[left]}"),
        console=err,
        disable=as_json or not sys.stderr.isatty(),
        transient=True,
    )


@contextmanager
def byte_progress(what: str, *, as_json: bool) -> Iterator[Callable[[int, int], None]]:
    """Show bytes, rate and time left on a terminal while the body tells how many are done, and of how many."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=err,
        disable=as_json or not sys.stderr.isatty(),
        transient=True,
    ) as bar:
        task = bar.add_task(what, total=None)
        yield lambda num_done, num_total: bar.update(task, completed=num_done, total=num_total)


def run_to_end(
    catalog: Catalog,
    run_id: str,
    *,
    as_json: bool,
    workers: "TemporaryWorkers | None" = None,
    meanwhile: Callable[[], None] | None = None,
) -> runs.RunProgress:
    """Send, make sure somebody works, and wait.

    Parameters
    ----------
    workers : those of a command that asks for several runs; else this run gets its own when nobody works.
    meanwhile : as in ``watch``.

    Raises
    ------
    RunFailedError : as in ``watch``. LeftRunningError : interrupted, while workers of others do the run.
    """
    from service.processes import workers_for

    with catalog.read() as session:
        state = runs.run_progress(session, run_id, catalog.now(session)).state
    if state != "running":
        return watch(catalog, run_id, as_json=as_json)
    send(catalog, run_id)
    if workers is not None:
        return _watch_workers(catalog, run_id, workers, as_json=as_json, meanwhile=meanwhile)
    with workers_for(catalog, lambda told: say(told, as_json=as_json)) as workers:
        return _watch_workers(catalog, run_id, workers, as_json=as_json, meanwhile=meanwhile)


def _watch_workers(
    catalog: Catalog,
    run_id: str,
    workers: "TemporaryWorkers",
    *,
    as_json: bool,
    meanwhile: Callable[[], None] | None,
) -> runs.RunProgress:
    """Watch a run and see to the workers; say where it is left to, when interrupted."""
    try:
        return watch(catalog, run_id, as_json=as_json, tend=workers.tend, meanwhile=meanwhile)
    except KeyboardInterrupt:
        if workers.are_own:
            raise
        raise LeftRunningError(
            f"interrupted, but run {run_id[:8]} goes on in the workers: watch it with `winnow runs`, stop it with "
            f"`winnow cancel {run_id[:8]}`; the same command goes on from there"
        ) from None


__all__ = [
    "COMMAND_LINE",
    "AsJson",
    "LeftRunningError",
    "RunFailedError",
    "byte_progress",
    "complain",
    "database_refusals",
    "detached",
    "emit_json",
    "emit_table",
    "first_line",
    "printable",
    "progress_bar",
    "run_to_end",
    "say",
    "send",
    "show",
    "watch",
    "workspace",
]
