"""``winnow doctor``, ``gc``, ``backup``, ``restore``: for whoever keeps an installation running."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from catalog.errors import ConfigError
from catalog.settings import load_settings
from service.cli.output import (
    AsJson,
    complain,
    database_refusals,
    emit_json,
    emit_table,
    progress_bar,
    say,
    workspace,
)

SAMPLE = 20


def add(app: typer.Typer) -> None:
    """Register this module's commands."""
    app.command("doctor")(doctor)
    app.command("gc")(gc)
    app.command("backup")(backup)
    app.command("restore")(restore)


def doctor(
    *,
    sample: Annotated[
        int, typer.Option(min=0, max=1_000_000, help="Shards and manifests whose SHA-256 is verified, each.")
    ] = SAMPLE,
    json: AsJson = False,
) -> None:
    """Look at everything that Winnow stands on and say what to do; ends with 1 when something is wrong."""
    from service.doctor import PROBLEM, Finding, examine, verdict

    try:
        found = examine(load_settings(), sample=sample)
    except ConfigError as error:
        found = [Finding("settings", PROBLEM, str(error), "correct it in winnow.toml or the environment")]
    told = verdict(found)
    if json:
        emit_json(told)
    else:
        rows = [(one.level.upper() if one.level == PROBLEM else one.level, one.check, one.found) for one in found]
        emit_table("", ("", "check", "found"), rows)
        for one in found:
            if one.remedy:
                say(f"{one.check}: {one.remedy}")
    if not told["ok"]:
        raise typer.Exit(1)


def gc(
    *,
    delete: Annotated[bool, typer.Option("--delete", help="Delete them; else they are only listed.")] = False,
    older_than: Annotated[
        float, typer.Option(min=1.0, max=24.0 * 3650, help="Hours since a file was written, at least 1.")
    ] = 24.0,
    json: AsJson = False,
) -> None:
    """Find files of the store that nobody refers to; with --delete, remove them."""
    from workers.garbage import collect

    found = collect(workspace(), grace=timedelta(hours=older_than), delete=delete)
    if json:
        emit_json(found.to_json())
        return
    if found.orphans:
        emit_table("", ("file", "bytes"), [(one.name, one.size_bytes) for one in found.orphans])
    told = found.to_json()
    say(
        f"{len(found.orphans):,} of {found.num_files:,} files ({told['orphan_bytes']:,} of {found.num_bytes:,} bytes) "
        f"are referred to by nobody; {found.num_young:,} more are too young to tell"
    )
    if found.strangers:
        say(f"{len(found.strangers):,} files are not Winnow's and were left alone, e.g. {found.strangers[0]}")
    if delete:
        say(f"{found.removed:,} deleted")
    elif found.orphans:
        say("nothing was deleted; `winnow gc --delete` does it")


def backup(
    folder: Annotated[Path, typer.Argument(help="Folder of backups, outside the home folder; made if need be.")],
    *,
    json: AsJson = False,
) -> None:
    """Copy the database of this moment and every file that it refers to, while everything works."""
    from workers.backup import take_backup

    with _counted("backing up", as_json=json) as progress:
        done = take_backup(workspace(), folder, progress=progress)
    if json:
        emit_json(done.to_json())
    else:
        say(
            f"backup {done.name}: {done.num_rows:,} rows, {done.num_files:,} files ({done.num_bytes:,} bytes), "
            f"{done.num_copied:,} of them copied now, all verified"
        )
    if done.damaged:
        complain(
            f"{len(done.damaged):,} files of the store are missing or damaged and are not in it: {done.damaged[0]}"
        )
        raise typer.Exit(1)


def restore(
    folder: Annotated[Path, typer.Argument(help="Folder of backups.")],
    *,
    at: Annotated[str | None, typer.Option(help="Which backup, as --list tells them; default the newest.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the backups of the folder instead.")] = False,
    files: Annotated[
        bool, typer.Option("--files", help="Only put back missing or damaged files of the store, into a home in use.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Fill an empty home folder, database and store from a backup, verifying every byte."""
    from workers.backup import list_backups, mend_files
    from workers.backup import restore as fill

    if list_:
        found = list_backups(folder)
        rows = [
            (one["name"], one["release"], one["revision"], one["database"], one["files"]["count"], len(one["damaged"]))
            for one in found
        ]
        header = ("backup", "release", "revision", "database", "files", "damaged")
        if json:
            emit_json([dict(zip(header, row, strict=True)) for row in rows])
        else:
            emit_table("", header, rows)
        return
    if files:
        with _counted("verifying", as_json=json) as progress:
            mended = mend_files(workspace().settings, folder, name=at, progress=progress)
        if json:
            emit_json(mended.to_json())
        else:
            say(f"{mended.num_files:,} files verified, {len(mended.mended):,} put back from {mended.name}")
        if mended.lost:
            complain(f"{len(mended.lost):,} files are whole neither in the store nor in the backup: {mended.lost[0]}")
            raise typer.Exit(1)
        return
    settings = load_settings()
    with database_refusals(settings), _counted("restoring", as_json=json) as progress:
        done = fill(settings, folder, name=at, progress=progress)
    if json:
        emit_json(done.to_json())
        return
    say(
        f"backup {done.name} restored into {settings.home}: {done.num_rows:,} rows, {done.num_files:,} files, every "
        f"SHA-256 verified; {done.num_woken:,} units that were running are ready again"
    )
    if done.damaged:
        say(f"{len(done.damaged):,} files were damaged before the backup was taken: {done.damaged[0]}")
    say("next: `winnow doctor`, then `winnow up`")


@contextmanager
def _counted(what: str, *, as_json: bool) -> Iterator[Callable[[int, int], None]]:
    with progress_bar(as_json=as_json) as bar:
        task = bar.add_task(what, total=None, rate="", left="")
        yield lambda done, total: bar.update(task, completed=done, total=total)
