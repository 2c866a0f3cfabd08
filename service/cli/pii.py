"""``winnow pii``: what personal data a dataset or a text holds, and what a recipe's run found, values masked."""

import time
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer

from catalog.errors import ConfigError
from catalog.store import Store, StoredFile
from curation.pii import KINDS
from curation.pii.finding import MIN_CONFIDENCE, find_spans
from curation.pii.replacing import masked, redact
from curation.pii.step import ACTIONS, PiiStep
from service.cli.dedup import RunByDefault
from service.cli.output import AsJson, byte_progress, emit_json, emit_table, say, show, workspace
from service.cli.parquet import aside, write_parquet
from workers import manifests
from workers import pii as reading
from workers.pipelines.pii import check as check_here

NUM_EXPLAINED = 20

app = typer.Typer(
    cls=RunByDefault,
    help="Find personal data and secrets: `winnow pii DATASET`, or one of the commands below.",
    no_args_is_help=True,
)
Least = Annotated[float, typer.Option(min=0.0, max=1.0, help="Smallest confidence of what counts as found.")]
Clear = Annotated[bool, typer.Option("--clear", help="Show values as they are, not masked.")]


def add(root: typer.Typer) -> None:
    """Register this module's commands."""
    root.add_typer(app, name="pii")


@app.command("run")
def run(
    dataset: Annotated[str, typer.Argument(help="Name of a dataset.")],
    *,
    recipe: Annotated[str | None, typer.Option(help="Look for what this recipe's pii step names; default all.")] = None,
    min_confidence: Least = MIN_CONFIDENCE,
    samples: Annotated[int, typer.Option(min=0, max=100, help="Masked samples shown of each kind.")] = 3,
    json: AsJson = False,
) -> None:
    """Look through a dataset as it was ingested, and say what is in it; nothing is changed or stored."""
    step = _step(recipe, min_confidence)
    step.require()
    catalog = workspace()
    store = Store.of(catalog.settings)
    with catalog.read() as session:
        version = manifests.require_version(session, manifests.find_dataset(session, dataset), "raw")
        files = [StoredFile.from_json(one["data"]) for one in manifests.read(store, version)["shards"]]
    began, num_records, num_bytes = time.perf_counter(), 0, 0
    kinds: dict[str, dict[str, Any]] = {}
    with byte_progress("looking", as_json=json) as progress:
        for number, file in enumerate(files):
            texts = store.read_frame(file, ["text"])["text"]
            _count(kinds, texts, find_spans(texts, step.kinds, step.min_confidence), samples)
            num_records += len(texts)
            num_bytes += int(texts.str.len_bytes().sum())
            progress(num_bytes, num_bytes * len(files) // (number + 1))
    seconds = time.perf_counter() - began
    found = dict(sorted(kinds.items()))
    if json:
        emit_json(
            {
                "dataset": dataset,
                "records": num_records,
                "bytes": num_bytes,
                "seconds": round(seconds, 3),
                "kinds": found,
            }
        )
        return
    rows = [
        (
            name,
            one["values"],
            one["records"],
            f"{one['records'] / num_records:.2%}",
            _checked(one),
            "  ".join(one["samples"]),
        )
        for name, one in found.items()
    ]
    emit_table("personal data", ("kind", "values", "records", "share", "check digit held", "for example"), rows)
    rate = num_bytes / 1e6 / seconds if seconds else 0.0
    say(f"{num_records:,} records, {num_bytes / 1e6:,.1f} MB in {seconds:.1f} s ({rate:,.1f} MB/s)")
    say("to replace it: the key 'pii' of a recipe, e.g. `pii: {action: tag}`, with `winnow clean`")


def _step(recipe: str | None, least: float) -> PiiStep:
    from curation.recipe import load_recipe

    if recipe is None:
        return PiiStep.configured({"min_confidence": least})
    step = load_recipe(recipe).pii
    if step is None:
        raise ConfigError(
            f"recipe {recipe} has no key 'pii'; add one, e.g. `pii: {{action: tag}}`, or leave out --recipe"
        )
    return step


def _count(kinds: dict[str, dict[str, Any]], texts: pl.Series, spans: pl.DataFrame, samples: int) -> None:
    """Add what was found in one shard."""
    for (name,), of_kind in spans.group_by("kind", maintain_order=True):
        one = kinds.setdefault(str(name), {"values": 0, "records": 0, "checked": 0, "samples": []})
        one["values"] += of_kind.height
        one["records"] += of_kind["row"].n_unique()
        one["checked"] += int(of_kind["checksum"].sum())
        for row, start, end in of_kind.select("row", "start", "end").iter_rows():
            if len(one["samples"]) >= samples:
                break
            shown = short(masked(KINDS[str(name)].member, texts[row][start:end]))
            if shown not in one["samples"]:
                one["samples"].append(shown)


def _checked(one: dict[str, Any]) -> str:
    return f"{one['checked']:,}" if one["checked"] else ""


def short(value: str) -> str:
    """A value in one line of bounded length."""
    line = " ".join(value.split())
    return line if len(line) <= 40 else f"{line[:37]}..."


@app.command("check")
def check(
    text: Annotated[str | None, typer.Argument(help="A text, or - for standard input.")] = None,
    *,
    file: Annotated[Path | None, typer.Option(help="A UTF-8 text file instead.")] = None,
    action: Annotated[str, typer.Option(help=f"Show the text after: {', '.join(ACTIONS)}.")] = "tag",
    min_confidence: Least = MIN_CONFIDENCE,
    clear: Clear = False,
    json: AsJson = False,
) -> None:
    """Try it: what is found in a text, where, how sure, and what the text would become."""
    from catalog.settings import load_settings
    from curation.recipe import Recipe

    given = _given(text, file)
    step = PiiStep.configured({"action": action, "min_confidence": max(min_confidence, 1e-9)})
    key = b""
    if step.needs_key:
        settings = load_settings()
        check_here(settings, Recipe(name="check", pii=step))
        key = settings.pii_key.get_secret_value().encode() if settings.pii_key else b""
    texts = pl.Series([given])
    found = [
        one | {"value": value if clear else masked(KINDS[one["kind"]].member, value)}
        for one in find_spans(texts, step.kinds, step.min_confidence).drop("row").to_dicts()
        for value in [given[one["start"] : one["end"]]]
    ]
    after = redact(texts, step, key)[0]
    if json:
        emit_json({"found": found, "action": action, "text": after if step.replaces or clear else None})
        return
    emit_found("found", found)
    if step.replaces:
        show(after)
    elif not found:
        say("nothing found")


def _given(text: str | None, file: Path | None) -> str:
    import sys

    if (text is None) == (file is None):
        raise ConfigError("give one text, or - for standard input, or --file PATH")
    if file is not None:
        return file.read_text("utf-8")
    return sys.stdin.read() if text == "-" else str(text)


def emit_found(title: str, found: list[dict[str, Any]]) -> None:
    """A table of values in one text, those of a run with their action."""
    if not found:
        return
    acts = "action" in found[0]
    rows = [
        (
            one["kind"],
            f"{one['start']:,} to {one['end']:,}",
            one["confidence"],
            one["checksum"],
            *([one["action"]] if acts else []),
            short(one["value"]),
        )
        for one in found
    ]
    header = ("kind", "characters", "confidence", "check digit held", *(["action"] if acts else []), "value")
    emit_table(title, header, rows)


def explain_pii(found: list[dict[str, Any]] | None) -> None:
    """What ``winnow explain`` tells of a record's personal data."""
    if found is None:
        return
    emit_found("personal data in it, as it was ingested", found[:NUM_EXPLAINED])
    if len(found) > NUM_EXPLAINED:
        say(f"{NUM_EXPLAINED} of {len(found):,} shown; all of them with --json")


def tell_pii(found: dict[str, Any] | None) -> None:
    """What ``winnow clean`` tells of the step."""
    if found is None:
        return
    rows = [(name, one["action"], one["values"], one["records"], _checked(one)) for name, one in found["kinds"].items()]
    emit_table("personal data", ("kind", "action", "values", "records", "check digit held"), rows)
    if found["changed"]:
        equal = f"; {found['became_equal']:,} of them equal another by that" if found["became_equal"] else ""
        say(f"{found['changed']:,} texts that stay were rewritten{equal}; the raw version holds them as they were")


@app.command("export")
def export(
    dataset: Annotated[str, typer.Argument(help="Name of a dataset.")],
    *,
    output: Annotated[Path | None, typer.Option(help="Parquet file; default DATASET-pii.parquet here.")] = None,
    json: AsJson = False,
) -> None:
    """Write every value that the newest run found, masked, with record, place, confidence and action, as Parquet."""
    catalog = workspace()
    path = output or Path(f"{dataset}-pii.parquet")
    with aside(path, "pii.parquet") as file, catalog.read() as session:
        store = Store.of(catalog.settings)
        found = reading.require_run(session, manifests.find_dataset(session, dataset))
        total, _ = write_parquet(file, reading.export_rows(session, store, found), reading.EXPORT_SCHEMA)
    if json:
        emit_json({"file": str(path), "rows": total})
        return
    show(str(path))
    say(f"{total:,} values, each with the record it stands in and its place in the text as it was ingested")
