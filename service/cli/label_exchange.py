"""``winnow label export``, ``import`` and ``schema``: answers as files of other tools and back, and new schemas."""

import shutil
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy.orm import Session

from catalog.errors import ConfigError
from catalog.tables.labeling import LabelQueue
from labeling import queue as queues
from labeling.exchange import Format, pair_of, worded
from labeling.schema import LabelSchema, parse_schema
from service.cli.labels import read_schema
from service.cli.output import AsJson, emit_json, emit_table, say, show, workspace
from workers import manifests

FORMAT_HELP = "conll, csv, hf, jsonl, label_studio or prodigy; default by the suffix."
OPTION_HELP = "NAME=VALUE of the format, as often as wanted: see docs/exchange.md."
ARGUMENT = "a second argument"
QUEUE_HELP = "Name of the queue; default the only open one."
OptionsOf = Annotated[list[str] | None, typer.Option("--option", help=OPTION_HELP)]


def add(app: typer.Typer) -> None:
    """Register this module's commands."""
    app.command("export")(export_)
    app.command("import")(import_)
    app.command("schema")(schema_)


def export_(
    dataset: Annotated[str, typer.Argument(help="Name of a dataset.")],
    queue: Annotated[str | None, typer.Argument(help=QUEUE_HELP)] = None,
    *,
    output: Annotated[Path, typer.Option(help="File, or folder for `hf`; what is there is not overwritten.")],
    format_: Annotated[str | None, typer.Option("--format", help=FORMAT_HELP)] = None,
    option: OptionsOf = None,
    json: AsJson = False,
) -> None:
    """Write the answers of a queue: every one with who and when, or for CoNLL all of a record together."""
    from workers.label_export import export_answers

    if output.exists():
        raise ConfigError(f"--output {output} exists; remove it, or give another name")
    if not output.absolute().parent.is_dir():
        raise ConfigError(f"folder {output.parent} does not exist; make it, or write elsewhere with --output")
    catalog = workspace()
    aside = output.with_name(f".tmp-{output.name}")
    try:
        with catalog.read() as session:
            found = _find(session, dataset, queue, ARGUMENT)
            schema = LabelSchema.from_json(found.schema)
            writer, name = _format(format_, output, schema, option), found.name
            _remove(aside)
            written = export_answers(session, found, aside, writer)
        aside.replace(output)
    except OSError as error:
        raise ConfigError(f"--output {output} cannot be written: {error.strerror or error}") from error
    finally:
        _remove(aside)
    told = {"output": str(output), "queue": name, "records": written.num_items, "answers": written.num_answers}
    told |= {"changed": dict(written.changed), "config": _write_config(output, writer, schema)}
    if json:
        emit_json(told)
        return
    show(str(output))
    say(f"{written.num_items:,} records with {written.num_answers:,} answers of queue {name!r}")
    for what, count in sorted(written.changed.items()):
        say(f"{count:,} {what}")
    if told["config"]:
        say(f"labeling config of a Label Studio project that imports it: {told['config']}")


def import_(
    dataset: Annotated[str, typer.Argument(help="Name of a dataset.")],
    file: Annotated[Path, typer.Argument(help="File, or folder for `hf`, with answers.")],
    *,
    queue: Annotated[str | None, typer.Option(help=QUEUE_HELP)] = None,
    format_: Annotated[str | None, typer.Option("--format", help=FORMAT_HELP)] = None,
    option: OptionsOf = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(help="OLD=NEW: a label of the file and the queue's; as often as wanted."),
    ] = None,
    aside: Annotated[
        Path | None, typer.Option(help="File for what is not taken, with reasons; default FILE.aside.jsonl.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Take answers into a queue, once however often: by anybody, with or without an account."""
    from workers.label_exchange import import_file, write_aside
    from workers.labeling import refresh_if_due

    if not file.exists():
        raise ConfigError(f"{file} does not exist; give a file with answers")
    catalog = workspace()
    with catalog.read() as session:
        found = _find(session, dataset, queue, "--queue")
        reader = _format(format_, file, LabelSchema.from_json(found.schema), option)
        queue_id, name = found.id, found.name
    if file.is_dir() != reader.is_folder:
        raise ConfigError(f"{file} is {'a folder' if file.is_dir() else 'a file'}; name another --format")
    renames = dict(pair_of(one, "--rename", "OLD=NEW") for one in rename or [])
    done = import_file(catalog, queue_id=queue_id, path=file, format_=reader, renames=renames)
    kept = aside or file.with_name(f"{file.name}.aside.jsonl")
    if done.aside:
        try:
            write_aside(kept, done)
        except OSError as error:
            raise ConfigError(
                f"{kept} cannot be written ({error.strerror or error}): name another file with --aside and import again"
            ) from error
    refresh_if_due(catalog, queue_id)
    taken = done.taken
    told: dict[str, Any] = {
        "queue": name,
        "records": done.num_items,
        "unanswered": done.num_unanswered,
        "answers": done.num_answers,
        "predictions": done.num_predictions,
        "suggestions": done.num_suggestions,
        "new": taken.num_new,
        "late": taken.num_late,
        "history": taken.num_history,
        "repeated": taken.num_repeated,
        "snapped_spans": done.num_snapped,
        "set_aside": dict(done.reasons),
        "aside": str(kept) if done.aside else None,
    }
    if json:
        emit_json(told)
        return
    say(
        f"queue {name!r}: {taken.num_new:,} answers are new ({taken.num_late:,} beyond the overlap), "
        f"{taken.num_repeated:,} were there already, {taken.num_history:,} are history"
    )
    if done.num_unanswered:
        say(f"{done.num_unanswered:,} of {done.num_items:,} records in the file have no answer")
    if done.num_suggestions:
        say(f"{done.num_suggestions:,} predictions are shown to annotators as suggestions, but for the hidden share")
    if done.num_snapped:
        say(f"{done.num_snapped:,} spans cut a character and were widened to it")
    if done.reasons:
        emit_table("set aside", ("reason", "count"), sorted(done.reasons.items()))
    if done.aside:
        show(str(kept))


def schema_(
    dataset: Annotated[str, typer.Argument(help="Name of a dataset.")],
    queue: Annotated[str | None, typer.Argument(help=QUEUE_HELP)] = None,
    *,
    schema: Annotated[Path | None, typer.Option(help="YAML of the new version; without it, show the present.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would become of the answers.")] = False,
    json: AsJson = False,
) -> None:
    """Show a queue's schema, or give it a new version: answers are kept, seen under new names, or asked for again."""
    from workers.label_schema import replace_schema

    catalog = workspace()
    if schema is None:
        with catalog.read() as session:
            found = _find(session, dataset, queue, ARGUMENT)
            present, name = LabelSchema.from_json(found.schema), found.name
        if json:
            emit_json({"queue": name, "schema": present.to_json()})
        else:
            _show_schema(present)
        return
    asked = parse_schema(read_schema(schema))
    with catalog.read() as session:
        found = _find(session, dataset, queue, ARGUMENT)
        queue_id, name = found.id, found.name
    done = replace_schema(catalog, queue_id=queue_id, schema=asked, dry_run=dry_run)
    gone = [{"record": one.record_id, "answer": one.given, "reason": one.reason} for one in done.invalid]
    told = {"queue": name, "version": asked.version, "changes": done.change.in_words(), "kept": done.num_kept}
    if json:
        known = {"known_migrated": done.num_known, "no_longer_known": list(done.no_longer_known)}
        emit_json(told | {"migrated": done.num_migrated, "invalid": gone, **known, "dry_run": dry_run})
        return
    for line in done.change.in_words():
        say(line)
    say(
        f"queue {name!r}: {done.num_kept:,} answers {'would stay' if dry_run else 'stay'} as they are, "
        f"{done.num_migrated:,} are seen under other names, {len(gone):,} are none any more and are asked for again"
    )
    if done.no_longer_known:
        say(f"{len(done.no_longer_known):,} known answers are none any more: their records are asked like all others")
    if gone:
        emit_table("no answers any more", ("record", "reason"), [(one["record"], one["reason"]) for one in gone[:20]])


def _find(session: Session, dataset: str, name: str | None, named_by: str) -> LabelQueue:
    found = manifests.find_dataset(session, dataset)
    return queues.find_queue(session, dataset_id=found.id, name=name, named_by=named_by)


def _show_schema(schema: LabelSchema) -> None:
    import yaml

    show(yaml.safe_dump(schema.to_json(), allow_unicode=True, sort_keys=False).rstrip())


def _format(name: str | None, path: Path, schema: LabelSchema, given: list[str] | None) -> Format:
    """The format asked for, or told by the path; a path without suffix is a folder."""
    if name is None and (path.is_dir() or not path.suffix):
        name = "hf"
    return worded(name, path, schema, given or [], "--option")


def _write_config(output: Path, writer: Format, schema: LabelSchema) -> str | None:
    """Beside tasks for Label Studio, the configuration that their results refer to."""
    from labeling.exchange.label_studio import LabelStudio, labeling_config

    if not isinstance(writer, LabelStudio):
        return None
    path = output.with_name(f"{output.name}.config.xml")
    path.write_text(labeling_config(schema, writer.text), encoding="utf-8")
    return str(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
