"""``winnow report``: one HTML page that says it all."""

import errno
from pathlib import Path
from typing import Annotated

import typer

from catalog.errors import ConfigError, TransientError
from catalog.store import Store
from service.cli.output import AsJson, emit_json, say, show, workspace
from workers import manifests


def add(app: typer.Typer) -> None:
    """Register this module's commands."""
    app.command("report")(report)


def report(
    dataset: Annotated[str, typer.Argument(help="Name of a dataset that was cleaned or deduplicated.")],
    *,
    output: Annotated[Path | None, typer.Option(help="Where to write; default reports/DATASET.html at home.")] = None,
    json: AsJson = False,
) -> None:
    """Write one self-contained HTML page: funnel, clusters, learning curve, loss curve, variants."""
    # Brings the templates and FastAPI: a quarter of a second that no other command should wait for.
    from service.report import render_report

    catalog = workspace()
    with catalog.read() as session:
        found = manifests.find_dataset(session, dataset)
        page = render_report(session, Store.of(catalog.settings), found)
    path = output or catalog.settings.home / "reports" / f"{found.name}.html"
    if path.is_dir():
        raise ConfigError(f"--output {path} is a folder; give a file name, e.g. {path / 'report.html'}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.tmp")
        try:
            aside.write_text(page, encoding="utf-8")
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise TransientError(
                f"no space left for the report at {path}; free space, then run the same command"
            ) from error
        raise ConfigError(f"--output {path} cannot be written: {error.strerror}") from error
    if json:
        emit_json({"report": str(path)})
        return
    say("report, to be opened in a browser:")
    show(path.absolute().as_uri())
