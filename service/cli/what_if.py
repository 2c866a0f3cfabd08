"""``winnow what-if``: other thresholds, answered from what a run stored, and made a version if wanted."""

from typing import Annotated

import typer
from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog.database import Catalog
from catalog.errors import ConfigError, NotFoundError
from catalog.store import Store
from catalog.tables.datasets import Dataset
from catalog.tables.engine import Run
from curation.dedup.config import NearConfig
from service.cli.output import COMMAND_LINE, AsJson, detached, emit_json, emit_table, run_to_end, say, show, workspace
from workers import clusters as reading
from workers import engine, manifests

SHOWN_CHARS = 160
SHOWN_GROUPS = 20


def add(app: typer.Typer) -> None:
    """Register this module's commands."""
    app.command("what-if")(what_if)


def what_if(
    run: Annotated[str, typer.Argument(help="Run of `winnow clean` (id or its beginning), or a dataset: its newest.")],
    *,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="KEY=VALUE of the recipe, e.g. word_count.minimum=30; may be given several times."),
    ] = None,
    threshold: Annotated[
        list[float] | None,
        typer.Option(help="Count near duplicates at this Jaccard threshold; may be given several times."),
    ] = None,
    samples: Annotated[int, typer.Option(min=0, max=100, help="Texts shown for each rule and direction.")] = 3,
    publish: Annotated[
        bool, typer.Option("--publish", help="Make it a new curated version; texts are not read again.")
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="With --publish: return at once; the workers go on.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Say who would stay and leave under other thresholds, from stored values, without a new run."""
    if bool(settings) == bool(threshold):
        raise ConfigError(
            "give --set KEY=VALUE, e.g. --set word_count.minimum=30, or --threshold to count near duplicates alone"
        )
    if threshold:
        if publish:
            raise ConfigError("--threshold only counts; to publish give --set near.threshold=VALUE")
        _near(run, threshold, as_json=json)
        return
    if detach and not publish:
        raise ConfigError("--detach leaves a --publish to the workers; without one there is nothing to leave")
    catalog = workspace()
    if publish:
        _publish(catalog, run, settings or [], detach=detach, as_json=json)
        return
    _ask(catalog, run, settings or [], samples, as_json=json)


def _ask(catalog: Catalog, run: str, settings: list[str], samples: int, *, as_json: bool) -> None:
    from workers import whatif

    store = Store.of(catalog.settings)
    with catalog.read() as session:
        asked = whatif.find_judging(session, run)
        found = whatif.what_if(session, store, asked, settings, samples=samples)
    if as_json:
        emit_json(found)
        return
    changes = [(one["key"], one["before"], one["after"]) for one in found["settings"] if one["key"] != "name"]
    emit_table(f"run {found['run'][:8]} over {found['dataset']!r}, with", ("key", "was", "would be"), changes)
    for title, key in (("would return, by why they left", "returning"), ("would leave, by why", "leaving")):
        if found[key]:
            emit_table(title, ("rule", "records"), list(found[key].items()))
    for name, groups in found["by"].items():
        header = (name, "records", "stay", "would stay", "return", "leave")
        rows = [tuple(one.values()) for one in groups[:SHOWN_GROUPS]]
        emit_table(f"by {name}" + (f", the {SHOWN_GROUPS} largest" if len(groups) > SHOWN_GROUPS else ""), header, rows)
    for one in found["samples"]:
        where = f"{one['source']}:{one['line']}"
        show(f"{one['change']} ({one['rule']}) {one['record'][:12]} {where}: {_excerpt(one['text'])}")
    say(f"{found['kept_after']:,} of {found['records']:,} records would stay; {found['kept_before']:,} do")
    for doubt in found["doubts"]:
        say(f"a new run may differ: {doubt}")
    if found["unpublishable"]:
        say(f"no version can be made of it: {found['unpublishable']}")
    else:
        say("make it a version: the same command with --publish")


def _excerpt(text: str) -> str:
    shown = " ".join(text[: 2 * SHOWN_CHARS].split())
    return shown if len(shown) <= SHOWN_CHARS else f"{shown[:SHOWN_CHARS]}…"


def _publish(catalog: Catalog, run: str, settings: list[str], *, detach: bool, as_json: bool) -> None:
    from workers.pipelines.what_if import submit_what_if

    run_id, state = submit_what_if(catalog, run=run, settings=settings, requested_by=COMMAND_LINE)
    if detach:
        detached(catalog, run_id, as_json=as_json)
        return
    if state == "done":
        say("this was published before; the same result:", as_json=as_json)
    result = run_to_end(catalog, run_id, as_json=as_json).result or {}
    if as_json:
        emit_json({"run": run_id} | result)
        return
    say(f"{result['kept']:,} of {result['records']:,} records stay in the new version, by run {run_id[:8]}")


def _near(run: str, threshold: list[float], *, as_json: bool) -> None:
    """What other thresholds would have removed as near-duplicates, from the stored pairs."""
    for value in threshold:
        if not 0 < value <= 1:
            raise ConfigError(f"threshold={value} must lie in (0, 1]; 0.8 is usual")
    catalog = workspace()
    store = Store.of(catalog.settings)
    with catalog.read() as session:
        found = _measuring(session, run)
        given = found.config["recipe"]["near"]
        asked = sorted({*threshold, given["threshold"]})
        outcomes = reading.what_if(session, store, found, asked)
        run_id = found.id
    near = NearConfig(bands=given["bands"], rows=given["rows"])
    rows = [
        {
            "threshold": one.threshold,
            "removed": one.removed,
            "clusters": one.clusters,
            "biggest": one.biggest,
            "found_at_threshold": round(near.recall(one.threshold), 4),
            "of_the_run": one.threshold == given["threshold"],
        }
        for one in outcomes
    ]
    if as_json:
        emit_json({"run": run_id, "thresholds": rows})
        return
    header = ("threshold", "near duplicates", "clusters", "biggest", "found by theory", "")
    emit_table(
        f"from the pairs of run {run_id[:8]}",
        header,
        [
            (
                row["threshold"],
                row["removed"],
                row["clusters"],
                row["biggest"],
                f"{row['found_at_threshold']:.1%}",
                "the run's own" if row["of_the_run"] else "",
            )
            for row in rows
        ],
    )
    if min(threshold) < given["threshold"]:
        say("below the run's own threshold fewer pairs were measured: the figures there are lower bounds")


def _measuring(session: Session, name: str) -> Run:
    """A run by id, or a dataset's newest, that looked for near duplicates."""
    known = session.scalars(select(Dataset.name).where(Dataset.name == name)).one_or_none() is not None
    try:
        found = None if known else engine.find_run(session, name)
    except NotFoundError:
        found = None
    if found is None:
        return reading.newest_run(session, manifests.find_dataset(session, name), measured=True)
    if found.state != "done" or not found.config.get("recipe", {}).get("near"):
        raise ConfigError(f"run {found.id[:8]} has not looked for near duplicates, or is not done; see `winnow runs`")
    return found
