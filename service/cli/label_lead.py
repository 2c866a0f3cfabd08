"""``winnow label gold|suggestions|advise|history``: what whoever leads a queue asks of it."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy import select

from catalog.database import Catalog
from catalog.errors import ConfigError, DataError, NotFoundError
from catalog.tables.access import User
from catalog.tables.labeling import LabelTask
from labeling import gold as golds
from labeling import gold_scores, replay
from labeling import queue as queues
from labeling.schema import LabelSchema
from labeling.slots import DECIDES
from labeling.suggestions import remove_suggestions, suggestion_sources
from service.cli.output import AsJson, emit_json, emit_table, say, workspace
from workers import manifests
from workers.labeling import draw_known, make_known, make_ordinary

Dataset = Annotated[str, typer.Argument(help="Name of a dataset.")]
Name = Annotated[str, typer.Argument(help="Name of the queue.")]


def add(app: typer.Typer) -> None:
    """Put the commands into their group."""
    for command in (gold, suggestions, advise, history):
        app.command()(command)


def gold(
    dataset: Dataset,
    name: Name = "labels",
    *,
    file: Annotated[
        Path | None, typer.Option(help="CSV or JSONL with the columns record, value and, if any, note.")
    ] = None,
    sample: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="Draw so many records that came with a label of the schema.")
    ] = None,
    every: Annotated[
        int, typer.Option(min=2, max=10_000, help="One task in so many is a known one, until all were met.")
    ] = 10,
    remove: Annotated[
        list[str] | None,
        typer.Option(help="Record that is known no more, as often as wanted; answers to it are kept."),
    ] = None,
    listed: Annotated[
        bool, typer.Option("--list", help="Only list known records, and how often people agree.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Make records known: annotators are asked about them among the others, and measured by their answers."""
    catalog = workspace()
    if sum((file is not None, sample is not None, bool(remove), listed)) != 1:
        raise ConfigError(
            "say which records are known: --file FILE, or --sample NUMBER of those that came with a label; or one of "
            "--list and --remove RECORD"
        )
    with catalog.read() as session:
        found = queues.find_queue(session, dataset_id=manifests.find_dataset(session, dataset).id, name=name)
        queue_id, schema = found.id, LabelSchema.from_json(found.schema)
    if listed:
        _list_known(catalog, queue_id, as_json=json)
        return
    if remove:
        done = make_ordinary(catalog, queue_id, remove, by="command line")
        if json:
            emit_json({"queue": queue_id, **asdict(done)})
            return
        say(
            f"{done.num_records:,} records of queue {name!r} are known no more: of the answers to them "
            f"{done.num_votes:,} count like all others, {done.num_late:,} are beyond the overlap"
        )
        return
    notes: dict[str, str] = {}
    if file is not None:
        values, notes = _read_known(file)
    else:
        assert sample is not None
        values = draw_known(catalog, queue_id, sample)
        if len(values) < sample:
            say(
                f"{len(values):,} of the {sample:,} asked for: no other record that is not among the tasks yet came "
                "with a label of the schema",
                as_json=json,
            )
    num_known = make_known(catalog, queue_id, values, notes=notes, by="command line")
    with catalog.write() as session:
        golds.ask_every(session, now=catalog.now(session), queue_id=queue_id, every=every, by="command line")
    if json:
        emit_json({"queue": queue_id, "known": num_known, "every": every})
        return
    say(f"{num_known:,} records of queue {name!r} are known now; each annotator meets one in {every} tasks")
    if schema.classes:
        say("how annotators do on them: the queue's page, or `winnow label advise`")


def _list_known(catalog: Catalog, queue_id: str, *, as_json: bool) -> None:
    with catalog.read() as session:
        known = gold_scores.known_records(session, queue_id=queue_id)
    if as_json:
        emit_json([asdict(one) for one in known])
        return
    rows = [(one.record_id, str(one.value), one.num_answered, one.num_right, one.note) for one in known]
    emit_table("", ("record", "known answer", "answered", "so", "note"), rows)


def suggestions(
    dataset: Dataset,
    name: Name = "labels",
    *,
    remove: Annotated[str | None, typer.Option(help="Model whose suggestions nobody is shown any more.")] = None,
    json: AsJson = False,
) -> None:
    """List whose suggestions annotators are shown, or take a model's away. They come in by `winnow label import`."""
    catalog = workspace()
    with catalog.read() as session:
        found = queues.find_queue(session, dataset_id=manifests.find_dataset(session, dataset).id, name=name)
        queue_id = found.id
    if remove is not None:
        with catalog.write() as session:
            now = catalog.now(session)
            num_removed = remove_suggestions(session, now=now, queue_id=queue_id, source=remove, by="command line")
        if json:
            emit_json({"queue": queue_id, "source": remove, "removed": num_removed})
            return
        say(f"suggestions of {remove!r} for {num_removed:,} records are shown no more")
        return
    with catalog.read() as session:
        sources = suggestion_sources(session, queue_id=queue_id)
    if json:
        emit_json([{"source": source, "records": count} for source, count in sources.items()])
        return
    emit_table("", ("source", "records"), list(sources.items()))


def _read_known(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    import polars as pl

    if not path.is_file():
        raise ConfigError(f"--file {path} is no file; it has the columns record, value and, if any, note")
    try:
        frame = pl.read_ndjson(path) if path.suffix in (".jsonl", ".ndjson") else pl.read_csv(path, infer_schema=False)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"--file {path} cannot be read: {error}") from error
    for column in ("record", "value"):
        if column not in frame.columns:
            raise DataError(f"--file {path} has no column {column!r}; it has {', '.join(frame.columns)}")
    values: dict[str, Any] = {}
    for row in frame.iter_rows(named=True):
        if row["record"] in values:
            raise DataError(f"--file {path}: record {row['record']!r} is given twice; give each one known answer")
        values[row["record"]] = row["value"]
    notes = {row["record"]: row["note"] or "" for row in frame.iter_rows(named=True)} if "note" in frame.columns else {}
    return values, notes


def advise(dataset: Dataset, name: Name = "labels", *, json: AsJson = False) -> None:
    """Say what the labels are worth, by tasks that chance drew, and whether asking on pays. Advice, never an end."""
    catalog = workspace()
    with catalog.read() as session:
        found = queues.find_queue(session, dataset_id=manifests.find_dataset(session, dataset).id, name=name)
        # Behind the look-up: who mistypes a name is not to wait for the web service's modules.
        from service.api.reviews import names_of, strategy_of

        told = strategy_of(session, found.id)
        scores = gold_scores.gold_scores(session, queue_id=found.id)
        names = names_of(session, {one.annotator_id for one in scores})
    known = [(names[one.annotator_id], one.num_answered, one.num_right) for one in scores]
    if json:
        header = ("annotator", "answered", "right")
        emit_json(told.model_dump() | {"known": [dict(zip(header, row, strict=True)) for row in known]})
        return
    if told.worth is None:
        say(
            f"not known yet: {told.random_share:.0%} of the tasks are drawn by chance, and 30 answers are needed"
            if told.random_share
            else "not known: this queue asks about nothing that chance drew (label create --random-share)"
        )
    else:
        worth, saved = told.worth, told.worth["labels_saved"]
        accuracy, gain = worth["accuracy"], worth["next_gain"]
        say(
            f"a model on {worth['num_labels']:,} labels is right about {accuracy['value']:.1%} of what nobody was "
            f"asked about ({accuracy['low']:.1%} to {accuracy['high']:.1%}, by {worth['num_random']} answers)"
        )
        high = "any number" if saved["high"] is None else f"{saved['high']:,.0f}"
        say(f"labels saved against random ones: {saved['low']:,.0f} to {high}")
        say(f"the next 100 labels are expected to bring {gain['low']:.1%} to {gain['high']:.1%} of accuracy")
    emit_table(
        "does asking on still pay?",
        ("criterion", "now", "says stop at", "says"),
        [
            (
                one.name,
                one.figure,
                one.limit,
                "too early" if one.says_stop is None else "stop" if one.says_stop else "go on",
            )
            for one in told.advice
        ],
    )
    for one in told.anchoring:
        seen, unseen = f"{one['num_accepted']} of {one['num_shown']}", f"{one['num_agreed']} of {one['num_hidden']}"
        bias = "" if one["bias"] is None else f": led by {one['bias']:+.1%} ({one['low']:+.1%} to {one['high']:+.1%})"
        say(f"suggestions of {one['source']}: agreed with {seen} seen and {unseen} unseen ones{bias}")
    if known:
        emit_table("known tasks", ("annotator", "answered", "right"), known)


def history(
    dataset: Dataset,
    name: Name = "labels",
    *,
    record: Annotated[str | None, typer.Option(help="Only of this record.")] = None,
    annotator: Annotated[str | None, typer.Option(help="Only of this person.")] = None,
    until: Annotated[datetime | None, typer.Option(help="Up to this moment, UTC: what was so then, and why.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Events shown, the newest.")] = 50,
    json: AsJson = False,
) -> None:
    """Tell what happened in a queue: who got what, when, and why."""
    catalog = workspace()
    with catalog.read() as session:
        found = queues.find_queue(session, dataset_id=manifests.find_dataset(session, dataset).id, name=name)
        from service.api.reviews import names_of

        task_id = None
        if record is not None:
            named = select(LabelTask.id).where(LabelTask.queue_id == found.id, LabelTask.record_id == record)
            task_id = session.scalar(named)
            if task_id is None:
                raise NotFoundError(f"record {record!r} was never offered in queue {name!r}")
        who = annotator and (session.scalar(select(User.id).where(User.name == annotator)) or annotator)
        events = replay.history(
            session,
            queue_id=found.id,
            task_id=task_id,
            annotator_id=who,
            until=until.replace(tzinfo=until.tzinfo or UTC) if until else None,
            limit=limit,
        )
        if annotator and who == annotator and not events:
            raise NotFoundError(f"no account is named {annotator!r}, and queue {name!r} has no event under that name")
        names = names_of(session, {(one.annotator_id or "").removeprefix(DECIDES) for one in events})
        tasks = select(LabelTask.id, LabelTask.record_id).where(LabelTask.id.in_({one.task_id for one in events}))
        records = {row.id: row.record_id for row in session.execute(tasks)}
    rows = [
        (
            one.at.isoformat(timespec="milliseconds"),
            one.kind,
            names[one.annotator_id.removeprefix(DECIDES)] if one.annotator_id else "",
            records.get(one.task_id or "", ""),
            one.detail.get("why") or one.detail.get("reason") or one.detail.get("note") or "",
        )
        for one in reversed(events)
    ]
    header = ("at", "what", "annotator", "record", "why")
    if json:
        details = [one.detail for one in reversed(events)]
        emit_json(
            [dict(zip(header, row, strict=True)) | {"detail": told} for row, told in zip(rows, details, strict=True)]
        )
        return
    emit_table("", header, rows)
