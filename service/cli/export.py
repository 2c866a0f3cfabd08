"""``winnow export``: a version's records as files for other tools, with where each comes from."""

import errno
import shutil
from pathlib import Path
from typing import Annotated

import typer

from catalog.errors import ConfigError, TransientError
from catalog.store import Store
from curation.export import WRITERS
from service.cli.output import AsJson, emit_json, say, show, workspace
from workers import manifests


def add(app: typer.Typer) -> None:
    """Register this module's commands."""
    app.command("export")(export)


def export(
    dataset: Annotated[str, typer.Argument(help="Name of a dataset.")],
    *,
    output: Annotated[
        Path, typer.Option(help="File (.jsonl, .csv, .parquet; JSON Lines also .gz, .zst), or folder for `hf`.")
    ],
    format_: Annotated[
        str | None, typer.Option("--format", help="jsonl, csv, parquet or hf; default by the suffix, hf without one.")
    ] = None,
    version: Annotated[int | None, typer.Option(help="Number of a version; default the newest curated one.")] = None,
    records: Annotated[str, typer.Option(help="kept, dropped or all; the latter with the reason of each.")] = "kept",
    plain: Annotated[
        bool, typer.Option("--plain", help="Leave out the columns that say where a record is from.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Write the records that stay, with their own columns, and columns that say where each comes from."""
    from workers.export import Export, find_version, format_of

    name = format_of(output, format_)
    is_folder = not WRITERS[name].config().suffixes
    if output.exists() and (is_folder or output.is_dir()):
        raise ConfigError(f"--output {output} exists; remove it, or give another name")
    if not output.absolute().parent.is_dir():
        raise ConfigError(f"folder {output.parent} does not exist; make it, or write elsewhere with --output")
    catalog = workspace()
    # The suffixes at the end, where they tell the compression.
    aside = output.with_name(f".tmp-{output.name}")
    try:
        with catalog.read() as session:
            found = manifests.find_dataset(session, dataset)
            chosen = find_version(session, found, version)
            asked = Export(
                session=session,
                store=Store.of(catalog.settings),
                dataset=found,
                version=chosen,
                which=records,
                provenance=not plain,
            )
            number, told = chosen.number, chosen.kind
            _remove(aside)
            total = asked.write(aside, name)
        aside.replace(output)
    except OSError as error:
        # Of the file alone: the store has errors of its own.
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise TransientError(f"no space left for {output}; free space, then run the same command") from error
        raise ConfigError(f"--output {output} cannot be written: {error.strerror or error}") from error
    finally:
        _remove(aside)
    if json:
        emit_json({"output": str(output), "format": name, "version": number, "records": total})
        return
    show(str(output))
    say(f"{total:,} records of version {number} ({told}) as {name}")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
