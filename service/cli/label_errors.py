"""``winnow label-errors``: labels that are likely wrong, listed, exported, and asked about once more."""

from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer

from catalog.errors import ConfigError
from catalog.store import Store
from catalog.tables.engine import Run
from service.cli.output import COMMAND_LINE, AsJson, detached, emit_json, emit_table, run_to_end, say, show, workspace
from workers import suspects

TEXT_CHARS = 80
ID_CHARS = 12
WRITERS = {".jsonl": pl.DataFrame.write_ndjson, ".csv": pl.DataFrame.write_csv, ".parquet": pl.DataFrame.write_parquet}
Labels = Annotated[str, typer.Option(help="Which labels: merged (people's where there are any), given, annotated.")]
Features = Annotated[
    str, typer.Option(help="What a classifier looks at: embeddings, or tfidf where the encoder knows not the language.")
]


def add(app: typer.Typer) -> None:
    """Register this module's command."""
    app.command("label-errors")(label_errors)


def label_errors(
    dataset: Annotated[str, typer.Argument(help="Name of a dataset that was cleaned and has labels.")],
    *,
    labels: Labels = "merged",
    features: Features = "embeddings",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Suspected labels shown at most.")] = 20,
    output: Annotated[
        Path | None, typer.Option(help="Write all of them, with their texts, to a .jsonl, .csv or .parquet file.")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return at once; the workers go on.")] = False,
    json: AsJson = False,
) -> None:
    """Find labels that are likely wrong, the likeliest first, and what people have said of them since."""
    from workers.pipelines.label_errors import submit_label_errors

    if output is not None:
        check_output(output)
    catalog = workspace()
    run_id, state = submit_label_errors(
        catalog, dataset=dataset, labels=labels, features=features, requested_by=COMMAND_LINE
    )
    if detach:
        detached(catalog, run_id, as_json=json)
        return
    if state == "done":
        say("these labels were looked at so before; the same result:", as_json=json)
    elif state == "resumed":
        say("going on from where the last try ended", as_json=json)
    result = run_to_end(catalog, run_id, as_json=json).result or {}
    with catalog.read() as session:
        run, store = session.get_one(Run, run_id), Store.of(catalog.settings)
        found = suspects.listed(session, store, run, limit=None if output is not None else limit)
    if output is not None:
        write_table(found, output)
    if json:
        emit_json({"run": run_id} | result | {"errors": found.head(limit).to_dicts()})
        return
    _tell(dataset, result, found.head(limit))
    if output is not None:
        say(f"all {found.height:,} with their texts:")
        show(str(output))


def check_output(path: Path) -> None:
    """Refuse a file that could not be written, before anything is computed.

    Raises
    ------
    ConfigError : a folder, a folder that is not there, or a suffix that names no format.
    """
    if path.suffix not in WRITERS:
        raise ConfigError(f"--output {path} must end in one of {', '.join(WRITERS)}, which says the format")
    if path.is_dir() or not path.parent.is_dir():
        raise ConfigError(f"--output {path} is a folder or lies in none; give a file name in a folder that exists")


def write_table(frame: pl.DataFrame, path: Path) -> None:
    """Write aside, then rename: nobody finds half a file."""
    aside = path.with_name(f".{path.name}.tmp")
    try:
        WRITERS[path.suffix](frame, aside)  # type: ignore[operator]
        aside.replace(path)
    except OSError as error:
        raise ConfigError(f"--output {path} cannot be written: {error.strerror or error}") from error
    finally:
        aside.unlink(missing_ok=True)


def _tell(dataset: str, result: dict[str, Any], found: pl.DataFrame) -> None:
    emit_table(
        "labels that are likely wrong",
        ("record", "label", "likelier", "confidence", "second opinion", "text"),
        [
            (
                one["record_id"][:ID_CHARS],
                one["given"],
                one["suggested"],
                f"{one['confidence']:.2f}",
                one["outcome"] if one["outcome"] != suspects.CORRECTED else f"corrected: {one['answer']}",
                excerpt(one["text"]),
            )
            for one in found.to_dicts()
        ],
    )
    say(
        f"{result['suspected']:,} of {result['records']:,} labels are suspected; confident learning estimates that "
        f"{result['estimated_errors']:,} are wrong"
    )
    if result["rare"]:
        say(f"{result['rare']:,} records have a label that fewer than five share; they were left out")
    if result["suspected"]:
        say(f"have people look at them, unaware of what is suspected: `winnow label review {dataset}`")


def excerpt(text: str) -> str:
    """The beginning of a text in one line."""
    line = " ".join(text.split())
    return line if len(line) <= TEXT_CHARS else f"{line[:TEXT_CHARS]} …"


def explain_label(found: dict[str, Any] | None) -> None:
    """What ``winnow explain`` tells of a record's label."""
    if found is None:
        return
    verdict = "SUSPECTED" if found["suspected"] else "not suspected"
    show(
        f"label    {found['label']!r} is {verdict}: quality {found['quality']:.2f}, likeliest other "
        f"{found['suggested']!r} ({found['confidence']:.2f}); second opinion: {found['answer'] or 'none'} "
        f"(run {found['run'][:8]})"
    )
