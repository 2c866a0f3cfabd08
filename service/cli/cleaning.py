"""``winnow ingest``, ``rejected``, ``clean`` and ``explain``: files in, verdicts out, and why."""

from json import dumps
from typing import Annotated, Any

import typer
from sqlalchemy import func, select

from catalog.database import Catalog
from catalog.errors import ConfigError
from catalog.store import Store
from catalog.tables.curation import Verdict
from catalog.tables.datasets import Quarantined, Source
from catalog.tables.engine import Run
from curation.recipe import preset_names
from curation.sources.conversations import STYLES
from service.cli.bias import tell_balance
from service.cli.difficulty import explain_difficulty, explain_losses
from service.cli.edits import explain_edits, tell_edits
from service.cli.label_errors import explain_label
from service.cli.mapping import explain_place
from service.cli.output import (
    COMMAND_LINE,
    AsJson,
    byte_progress,
    detached,
    emit_json,
    emit_table,
    run_to_end,
    say,
    show,
    workspace,
)
from service.cli.passages import explain_passages, outcome
from service.cli.pii import explain_pii, tell_pii
from service.cli.schedules import ask_after
from service.cli.semantic import tell_semantic
from workers import manifests
from workers.biography import biography

EXCERPT_CHARS = 500
EXAMPLE_CHARS = 12


def add(app: typer.Typer) -> None:
    """Register this module's commands."""
    app.command("ingest")(ingest)
    app.command("rejected")(rejected)
    app.command("clean")(clean)
    app.command("explain")(explain)


def ingest(
    files: Annotated[
        list[str],
        typer.Argument(
            help="JSONL, JSON, CSV, TSV, Parquet, Arrow, text, HTML or WARC files, also .gz, .zst, .bz2 and .xz; or "
            "folders of datasets as Hugging Face libraries write them."
        ),
    ],
    *,
    dataset: Annotated[str, typer.Option(help="Name of the dataset; made if it does not exist.")],
    text: Annotated[
        str | None,
        typer.Option("--text", "--text-field", help="Column of the text, a.b of a nested one; default text."),
    ] = None,
    label: Annotated[
        str | None, typer.Option("--label", "--label-field", help="Column that holds a label, if there is one.")
    ] = None,
    source: Annotated[
        str | None, typer.Option("--source-field", help="Column that says where a record came from, e.g. url or site.")
    ] = None,
    turns: Annotated[
        str | None, typer.Option(help=f"The rows are conversations in this style: {', '.join(STYLES)}.")
    ] = None,
    mapping: Annotated[str | None, typer.Option(help="YAML file that says all this instead of the options.")] = None,
    format_: Annotated[
        str | None, typer.Option("--format", help="Reader of the files, where their suffix does not tell.")
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="Of JSON, CSV and text files, e.g. latin-1 or cp949; default utf-8.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Read files into a dataset. Bad rows are set aside with file, line and reason; the rest goes in."""
    from curation.sources.mapping import Mapping, load_mapping
    from workers.pipelines.ingest import submit_ingest

    options = {
        "text": text, "label": label, "source": source, "turns": turns, "format": format_, "encoding": encoding,
    }  # fmt: skip
    given = {name: value for name, value in options.items() if value is not None}
    if mapping is not None and given:
        raise ConfigError(f"--mapping says all of it; put {', '.join(given)} into {mapping}, or leave it out")
    asked_mapping = load_mapping(mapping) if mapping is not None else Mapping(**given)
    label = asked_mapping.label
    catalog = workspace()
    with byte_progress("hashing", as_json=json) as on_hash:
        asked = submit_ingest(
            catalog, dataset=dataset, paths=files, mapping=asked_mapping, requested_by=COMMAND_LINE, on_hash=on_hash
        )
    for name, reason in asked.skipped.items():
        say(f"{name}: {reason}; skipped", as_json=json)
    for name, other in asked.others.items():
        say(
            f"{name}: run {other[:8]} is reading these bytes already; waiting for it "
            f"(`winnow cancel {other[:8]}` ends it)",
            as_json=json,
        )
    others = [run_to_end(catalog, other, as_json=json).result or {} for other in dict.fromkeys(asked.others.values())]
    own = (run_to_end(catalog, asked.run_id, as_json=json).result or {}) if asked.run_id is not None else {}
    if json:
        skipped = [*asked.skipped, *own.get("skipped", [])]
        emit_json({"run": asked.run_id} | own | {"skipped": skipped, "others": asked.others})
    refused = False
    for result in [*others, own]:
        if result:
            _tell_ingested(result, dataset, label, as_json=json)
            refused = refused or bool(result["refused"]) or (result["rejected"] > 0 and not result["records"])
    if refused:
        raise typer.Exit(1)


def _tell_ingested(result: dict[str, Any], dataset: str, label: str | None, *, as_json: bool) -> None:
    """What a run brought, for people."""
    if not as_json:
        say(f"{result['records']:,} records in {dataset!r} from {result['files']} files")
        say(f"{result['rejected']:,} rows set aside, {result['labelled']:,} records with a label")
        if label is not None and result["records"] and not result["labelled"]:
            say(f"no record has a label: is {label!r} the right column?")
        if result["reasons"]:
            emit_table("rows set aside", ("reason", "rows"), list(result["reasons"].items()))
            say(f"each with file and line: `winnow rejected {dataset}`")
        if result["reasons"].get("invalid_utf8"):
            say("rows that are no UTF-8: give their encoding, e.g. --encoding cp949 or latin-1")
    for name in result.get("skipped", []):
        say(f"{name}: another run has brought these bytes meanwhile; skipped", as_json=as_json)
    for name, reason in result["refused"].items():
        say(f"refused whole: {reason if name in reason else f'{name}: {reason}'}", as_json=as_json)


def rejected(
    dataset: Annotated[str, typer.Argument(help="Name of a dataset.")],
    *,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="Rows shown at most.")] = 50,
    json: AsJson = False,
) -> None:
    """List the rows that ingest set aside, and why."""
    catalog = workspace()
    with catalog.read() as session:
        found = manifests.find_dataset(session, dataset)
        of_dataset = Source.dataset_id == found.id
        query = (
            select(Source.name, Quarantined.line, Quarantined.reason, Quarantined.detail)
            .join(Source, Source.id == Quarantined.source_id)
            .where(of_dataset)
            .order_by(Source.name, Quarantined.line)
        )
        rows = [tuple(row) for row in session.execute(query.limit(limit))]
        total = session.scalars(
            select(func.count())
            .select_from(Quarantined)
            .join(Source, Source.id == Quarantined.source_id)
            .where(of_dataset)
        ).one()
        newest = session.execute(
            select(Source.name, Source.refused).join(Run).where(of_dataset).order_by(Run.created_at)
        )
        # A file that went in since, with other bytes, is refused no more.
        by_name = {row[0]: row[1] for row in newest}
        refused = [(name, 0, "refused", reason) for name, reason in sorted(by_name.items()) if reason]
        total += len(refused)
        shown = [*refused, *rows][:limit]
    header = ("file", "line", "reason", "detail")
    if json:
        emit_json({"total": total, "rows": [dict(zip(header, row, strict=True)) for row in shown]})
        return
    emit_table("", header, shown)
    say(f"{len(shown):,} of {total:,} shown; a file refused whole is one")


def clean(
    dataset: Annotated[str, typer.Argument(help="Name of a dataset.")],
    *,
    recipe: Annotated[str, typer.Option(help=f"Preset ({', '.join(preset_names())}) or YAML file.")],
    against: Annotated[
        list[str] | None,
        typer.Option(
            help="Another dataset, e.g. an evaluation set, whose records leave too; may be given several times."
        ),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return at once; the workers go on.")] = False,
    after: Annotated[
        str | None, typer.Option(help="Only once this run, request or queue has ended; returns at once.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Judge every record by a recipe and publish what stays as a new version."""
    from curation.recipe import load_recipe
    from workers.pipelines.clean import submit_clean

    catalog = workspace()
    if after is not None:
        if against:
            raise ConfigError("--after starts a plain cleaning; leave out --against, or ask once that has ended")
        ask_after(catalog, after=after, kind="clean", dataset=dataset, recipe=recipe, as_json=json)
        return
    run_id, state = submit_clean(
        catalog, dataset=dataset, recipe=load_recipe(recipe), against=against or (), requested_by=COMMAND_LINE
    )
    if detach:
        detached(catalog, run_id, as_json=json)
        return
    if state == "done":
        say("this version was cleaned by this recipe before; the same result:", as_json=json)
    elif state == "resumed":
        say("going on from where the last try ended", as_json=json)
    result = run_to_end(catalog, run_id, as_json=json).result or {}
    examples = _examples(catalog, run_id)
    if json:
        emit_json({"run": run_id} | result | {"examples": examples})
        return
    rows = [(*row, examples.get(row[0], "")[:EXAMPLE_CHARS]) for row in funnel_rows(result)]
    emit_table("funnel", ("rule", "dropped", "left", "for example"), rows)
    say(f"{result['kept']:,} of {result['records']:,} records stay; {result['clusters']:,} duplicate clusters")
    if "passages" in result:
        found = result["passages"]
        say(f"{found['passages']:,} repeated passages in {found['records']:,} records: {outcome(found)}")
    tell_pii(result.get("pii"))
    tell_semantic(result.get("semantic"))
    tell_edits(result.get("edits"))
    tell_balance(result.get("balance"))
    if 10 * result["kept"] < result["records"]:
        say(_few_stay(dataset, result))
    say(f"why a record left: `winnow explain {dataset} RECORD`; all of it drawn: `winnow report {dataset}`")


def _few_stay(dataset: str, result: dict[str, Any]) -> str:
    """A warning that the recipe may not be meant for such texts."""
    from curation.recipe import advised_presets

    rule, dropped = max(result["dropped"].items(), key=lambda one: one[1])
    return (
        f"warning: fewer than a tenth of the records stay, {rule} alone dropped {dropped:,}; recipe "
        f"{result['recipe']!r} may not be meant for such texts: try {advised_presets(dataset, but=result['recipe'])}"
    )


def _examples(catalog: Catalog, run_id: str) -> dict[str, str]:
    """One record that each rule dropped, so that there is something to explain."""
    dropped = (Verdict.run_id == run_id, Verdict.reason.is_not(None))
    query = select(Verdict.reason, func.min(Verdict.record_id)).where(*dropped).group_by(Verdict.reason)
    with catalog.read() as session:
        return {str(reason): record_id for reason, record_id in session.execute(query)}


def funnel_rows(result: dict[str, Any]) -> list[tuple[str, int, int]]:
    """Rule by rule: how many it dropped first, how many were left after it."""
    left = result["records"]
    rows = [("(in)", 0, left)]
    for rule, dropped in result["dropped"].items():
        left -= dropped
        rows.append((rule, dropped, left))
    return rows


def explain(
    dataset: Annotated[str, typer.Argument(help="Name of a dataset.")],
    record: Annotated[str, typer.Argument(help="Record id, or its first six characters, or FILE:LINE.")],
    *,
    clear: Annotated[bool, typer.Option("--clear", help="Show personal data that was found, not masked.")] = False,
    json: AsJson = False,
) -> None:
    """Tell a record's story: origin, values against thresholds, personal data, duplicates, scores, labels, losses."""
    catalog = workspace()
    with catalog.read() as session:
        found = manifests.find_dataset(session, dataset)
        story = biography(session, Store.of(catalog.settings), found, record, clear=clear)
    if json:
        emit_json(story)
        return
    show(f"record   {story['record']}")
    show(f"origin   {story['origin']['file']}, line {story['origin']['line']}")
    show(f"text     {_excerpt(story['text'])}")
    show(f"label    {story['label'] or '(none)'}")
    if story["verdict"] is None:
        explain_passages(story["passages"])
        say(story["hint"])
        return
    because = f" by {story['reason']}" if story["reason"] else ""
    show(f"verdict  {story['verdict']}{because} (recipe {story['recipe']}, run {story['run'][:8]})")
    explain_edits(story["edits"])
    _explain_rules(story)
    explain_pii(story.get("pii"))
    if story["identity"]:
        show(f"mentions {', '.join(story['identity'])}")
    _explain_duplicates(story)
    explain_passages(story["passages"])
    explain_place(story["map"])
    emit_table("scores", ("score", "value"), list(story["scores"].items()))
    explain_difficulty(story["learned"])
    explain_losses(story["losses"])
    explain_label(story["label_error"])
    for one in story["labels"]:
        show(_answer(one))


def _excerpt(text: str) -> str:
    """The beginning of a text, its lines indented so that none can pass for one of ours."""
    shown = text if len(text) <= EXCERPT_CHARS else f"{text[:EXCERPT_CHARS]} … ({len(text):,} characters)"
    return "\n         ".join(shown.splitlines())


def _answer(one: dict[str, Any]) -> str:
    no_more = f", {one['retracted']}" if one["retracted"] else ", late" if one["late"] else ""
    value = one["value"] if isinstance(one["value"], str) else dumps(one["value"], ensure_ascii=False)
    return f"answered {value} by {one['annotator']} in {one['queue']!r}, {one['created_at'][:19]}{no_more}"


def _explain_rules(story: dict[str, Any]) -> None:
    rows = [
        (one["rule"], one["measured"], one["minimum"], one["maximum"], "passed" if one["passed"] else "FAILED")
        for one in story["rules"]
    ]
    emit_table("rules", ("rule", "measured", "minimum", "maximum", ""), rows)
    language = story["language"]
    if language["code"]:
        others = language["other"]
        mixed = f", {language['other_ratio']:.0%} of it in others, mostly {others}" if others else ""
        show(f"language {language['code']} ({language['confidence']:.2f}){mixed}")


def similarity(pair: dict[str, Any]) -> str:
    """What was measured of a pair, by its name."""
    return f"Jaccard {pair['jaccard']:.3f}" if pair["cosine"] is None else f"cosine {pair['cosine']:.3f}"


def _explain_duplicates(story: dict[str, Any]) -> None:
    kept = story["duplicate_of"]
    if kept is not None:
        further = story["keeper_left_for"]
        then = f"which left in its turn for {further}" if further else "which was kept"
        show(f"{kept['kind']} duplicate of {kept['kept']}, {then}: {similarity(kept)} ({kept['rule']})")
    for one in story["duplicates"][:20]:
        show(f"kept instead of {one['record']}: {one['kind']}, {similarity(one)}")
    for one in story["reported"][:20]:
        show(f"{one['record']} would leave for {one['kept']}: {one['kind']}, {similarity(one)}; only reported")
    if story["compared_and_different"]:
        show(f"compared with {len(story['compared_and_different'])} more and found different enough")
