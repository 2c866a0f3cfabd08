"""``winnow doctor``: for whoever keeps an installation running."""

from typing import Annotated

import typer

from catalog.errors import ConfigError
from catalog.settings import load_settings
from service.cli.output import AsJson, emit_json, emit_table, say

SAMPLE = 20


def add(app: typer.Typer) -> None:
    """Register this module's commands."""
    app.command("doctor")(doctor)


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
