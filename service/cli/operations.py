"""``winnow doctor``, ``gc``: for whoever keeps an installation running."""

from datetime import timedelta
from typing import Annotated

import typer

from catalog.errors import ConfigError
from catalog.settings import load_settings
from service.cli.output import AsJson, emit_json, emit_table, say, workspace

SAMPLE = 20


def add(app: typer.Typer) -> None:
    """Register this module's commands."""
    app.command("doctor")(doctor)
    app.command("gc")(gc)


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
