"""``winnow dedup``: find duplicates within a dataset or against others, look at them, take them away."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from catalog.database import Catalog
from catalog.errors import ConfigError
from catalog.store import Store
from curation.dedup.config import PRESETS, NearConfig
from curation.dedup.curve import curve
from curation.recipe import Recipe
from service.cli.output import COMMAND_LINE, AsJson, detached, emit_json, emit_table, run_to_end, say, show, workspace
from service.cli.parquet import aside, write_parquet
from service.cli.semantic import semantic, tell_funnel
from workers import clusters as reading
from workers import manifests, passages

TEXT_CHARS = 100
PRESET_HELP = f"Banding by name: {', '.join(sorted(PRESETS))}; default fineweb."


class RunByDefault(TyperGroup):
    """``winnow dedup DATASET`` means ``winnow dedup run DATASET``, and so do options before a dataset."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Take the first word as a dataset where it is no command; two words can only be a mistyped command."""
        first, second = [*args, "--help", "--help"][:2]
        if first not in (*self.commands, "--help") and (first.startswith("-") or second.startswith("-")):
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=RunByDefault,
    help="Find duplicates: `winnow dedup DATASET`, or one of the commands below.",
    no_args_is_help=True,
)

Threshold = Annotated[float, typer.Option(help="Jaccard similarity from which a record leaves, in (0, 1].")]
Preset = Annotated[str | None, typer.Option(help=PRESET_HELP)]
Bands = Annotated[int | None, typer.Option(help="Bands of the signature, instead of a preset.")]
Rows = Annotated[int | None, typer.Option(help="Rows a band, instead of a preset.")]
Recall = Annotated[float | None, typer.Option(help="Share of pairs at the threshold to find; chooses the banding.")]
MinWords = Annotated[int, typer.Option(min=1, help="Texts with fewer words are compared by characters.")]
FoldDigits = Annotated[bool, typer.Option("--fold-digits", help="All digits are alike.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Estimate time and memory on a sample, and stop.")]
Detach = Annotated[bool, typer.Option("--detach", help="Return at once; the workers go on.")]


def near_config(**given: Any) -> NearConfig:
    """The configuration that the options ask for; what is left out is chosen."""
    wanted = {key: value for key, value in given.items() if value is not None}
    return NearConfig.configured(wanted)


@app.command("run")
def run(
    dataset: Annotated[str, typer.Argument(help="Name of a dataset.")],
    *,
    threshold: Threshold = 0.8,
    preset: Preset = None,
    bands: Bands = None,
    rows: Rows = None,
    recall: Recall = None,
    min_words: MinWords = 50,
    fold_digits: FoldDigits = False,
    exact_only: Annotated[
        bool, typer.Option("--exact-only", help="Only texts that are equal once normalized.")
    ] = False,
    per_source: Annotated[bool, typer.Option("--per-source", help="Compare records of one file only.")] = False,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Look at everything again, not only at what came since the last time.")
    ] = False,
    dry_run: DryRun = False,
    detach: Detach = False,
    json: AsJson = False,
) -> None:
    """Find exact and verified near duplicates within a dataset and publish what stays.

    What came since the last time is matched against the index of then, with the result of looking at everything.
    """
    near = near_config(
        threshold=threshold,
        preset=preset,
        bands=bands,
        rows=rows,
        recall=recall,
        min_words=min_words,
        fold_digits=fold_digits,
    )
    if exact_only and near != NearConfig():
        raise ConfigError("--exact-only measures no similarity; leave it out, or the options about near duplicates")
    recipe = Recipe(name="dedup", near=None if exact_only else near)
    scope = {"per_source": per_source, "rebuild": rebuild}
    _submit(dataset, recipe, dry_run=dry_run, detach=detach, json=json, scope=scope)


@app.command("against")
def against(
    dataset: Annotated[str, typer.Argument(help="Name of the dataset that records leave.")],
    others: Annotated[list[str], typer.Argument(help="Datasets that stay whole, e.g. evaluation sets; or 'all'.")],
    *,
    threshold: Threshold = 0.8,
    preset: Preset = None,
    bands: Bands = None,
    rows: Rows = None,
    recall: Recall = None,
    min_words: MinWords = 50,
    fold_digits: FoldDigits = False,
    within: Annotated[bool, typer.Option("--within", help="Remove the dataset's own duplicates too.")] = False,
    dry_run: DryRun = False,
    detach: Detach = False,
    json: AsJson = False,
) -> None:
    """Remove from a dataset what stands in others: decontamination, or everything ever ingested with 'all'."""
    from workers.pipelines.deduplicate import other_datasets

    near = near_config(
        threshold=threshold,
        preset=preset,
        bands=bands,
        rows=rows,
        recall=recall,
        min_words=min_words,
        fold_digits=fold_digits,
    )
    if others == ["all"]:
        others = other_datasets(workspace(), dataset)
        if not others:
            raise ConfigError(f"nothing but {dataset!r} was ever ingested; there is nothing to compare with")
    scope = {"against": others, "within": within}
    _submit(dataset, Recipe(name="dedup", near=near), dry_run=dry_run, detach=detach, json=json, scope=scope)


def _submit(dataset: str, recipe: Recipe, *, dry_run: bool, detach: bool, json: bool, scope: dict[str, Any]) -> None:
    from workers.pipelines.deduplicate import submit_dedup

    if dry_run and detach:
        raise ConfigError("--dry-run starts nothing that --detach could leave to the workers; leave out one of the two")
    catalog = workspace()
    if dry_run:
        _estimate(catalog, dataset, recipe, scope, as_json=json)
        return
    run_id, state = submit_dedup(catalog, dataset=dataset, recipe=recipe, requested_by=COMMAND_LINE, **scope)
    if detach:
        detached(catalog, run_id, as_json=json)
        return
    if state == "done":
        say("this version was deduplicated so before; the same result:", as_json=json)
    elif state == "resumed":
        say("going on from where the last try ended", as_json=json)
    result = run_to_end(catalog, run_id, as_json=json).result or {}
    if json:
        emit_json({"run": run_id} | result)
        return
    tell_funnel(result)
    if "added" in result:
        say(
            f"{result['added']:,} records were new: {result['added_duplicates']:,} of them left as duplicates, "
            f"{result['of_earlier']:,} of earlier records; {_fewer(result['earlier_removed'])} on their account. "
            f"{result['read_again']:,} earlier records were read again"
        )
    if recipe.near is not None:
        near = recipe.near
        say(
            f"{near.bands} bands of {near.rows} find {near.recall(near.threshold):.1%} of pairs at {near.threshold:g}, "
            f"{near.recall((1 + near.threshold) / 2):.1%} at {(1 + near.threshold) / 2:g}; every one found was measured"
        )
    say(f"look at them: `winnow dedup clusters {dataset}`; take them away: `winnow dedup export {dataset}`")


def _estimate(catalog: Catalog, dataset: str, recipe: Recipe, scope: dict[str, Any], *, as_json: bool) -> None:
    from workers.estimate import estimate

    found = estimate(catalog, dataset=dataset, recipe=recipe, **scope)
    if as_json:
        emit_json(found)
        return
    show(
        f"{found['records']:,} records, {found['bytes'] / 1e6:,.0f} MB of text in {found['units']:,} units: about "
        f"{found['seconds']:,.0f} s on {found['workers']} workers, {found['worker_memory_bytes'] / 2**20:,.0f} MiB "
        f"each, {found['disk_bytes'] / 1e6:,.0f} MB in the store"
    )
    if found["known"]:
        say(f"{found['known']:,} more are in the index already (--rebuild looks at all of them again)")
    say(f"from {found['sampled']:,} records, on which it took {found['sample_seconds']:.2f} s; nothing was written")


def _fewer(number: int) -> str:
    """Earlier records that left, or came back, in words."""
    return f"{number:,} earlier ones left" if number >= 0 else f"{-number:,} earlier ones came back"


@app.command("rollback")
def rollback(
    dataset: Annotated[str, typer.Argument(help="Name of a dataset.")],
    *,
    json: AsJson = False,
) -> None:
    """Take back the newest update: what stayed before stays again. The next `winnow dedup` matches the records anew."""
    from workers.pipelines.update import submit_rollback

    catalog = workspace()
    run_id, _ = submit_rollback(catalog, dataset=dataset, requested_by=COMMAND_LINE)
    result = run_to_end(catalog, run_id, as_json=json).result or {}
    if json:
        emit_json({"run": run_id} | result)
        return
    say(f"{result['kept']:,} of {result['records']:,} records stay, as before the update")


@app.command("clusters")
def clusters(
    dataset: Annotated[str, typer.Argument(help="Name of a dataset.")],
    *,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Clusters shown at most.")] = 10,
    json: AsJson = False,
) -> None:
    """Show the biggest duplicate clusters of the newest run."""
    catalog = workspace()
    store = Store.of(catalog.settings)
    with catalog.read() as session:
        found = reading.newest_run(session, manifests.find_dataset(session, dataset))
        biggest = reading.biggest_clusters(session, found, limit)
        reported = reading.biggest_clusters(session, found, limit, accepted=False)
        texts = reading.texts_of(session, store, found, {keeper for keeper, _ in biggest + reported})
        kinds = reading.kinds_of(session, found, [keeper for keeper, _ in biggest])
        run_id = found.id
    rows = [
        {"keeper": keeper, "removed": size, "kinds": kinds[keeper], "text": texts[keeper]["text"]}
        for keeper, size in biggest
    ]
    only_reported = [
        {"keeper": keeper, "would_leave": size, "text": texts[keeper]["text"]} for keeper, size in reported
    ]
    if json:
        emit_json({"run": run_id, "clusters": rows, "reported": only_reported})
        return
    if only_reported:
        emit_table(
            f"semantic duplicates that run {run_id[:8]} reports, and does not remove",
            ("would leave", "behind record", "text"),
            [(row["would_leave"], row["keeper"], str(row["text"])[:TEXT_CHARS]) for row in only_reported],
        )
    if not rows:
        say(f"no record of {dataset!r} left as a duplicate in run {run_id[:8]}")
        return
    emit_table(
        f"biggest clusters of run {run_id[:8]}",
        ("removed", "kept record", "by", "text"),
        [(row["removed"], row["keeper"], ", ".join(row["kinds"]), str(row["text"])[:TEXT_CHARS]) for row in rows],
    )


@app.command("export")
def export(
    dataset: Annotated[str, typer.Argument(help="Name of a dataset.")],
    *,
    output: Annotated[
        Path | None, typer.Option(help="Parquet file; default DATASET-clusters.parquet or DATASET-spans.parquet here.")
    ] = None,
    spans: Annotated[
        bool, typer.Option("--spans", help="Repeated passages instead, each with its text and what it repeats.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Write every removed record with its keeper, both with text, file and line, as Parquet; or repeated passages."""
    catalog = workspace()
    path = output or Path(f"{dataset}-{'spans' if spans else 'clusters'}.parquet")
    with aside(path, "clusters.parquet") as file, catalog.read() as session:
        of, store = manifests.find_dataset(session, dataset), Store.of(catalog.settings)
        if spans:
            rows = passages.span_rows(session, store, passages.require_run(session, of))
            total, removed = write_parquet(file, rows, passages.EXPORT_SCHEMA)
        else:
            rows = reading.cluster_rows(session, store, reading.newest_run(session, of))
            total, removed = write_parquet(file, rows, reading.CLUSTER_SCHEMA)
        if not total:
            nothing = "no passage of {!r} stands twice" if spans else "no record of {!r} left as a duplicate"
            raise ConfigError(f"{nothing.format(dataset)}; there is nothing to export")
    if json:
        emit_json({"file": str(path), "rows": total})
        return
    show(str(path))
    if spans:
        say(f"{total:,} repeated passages, each with the record that keeps it in column 'keeper_id'")
        return
    say(f"{removed:,} removed records, each with its keeper in column 'cluster'")
    if removed < total:
        say(f"{total - removed:,} more that are only reported: column 'accepted' is false")


@app.command("curve")
def show_curve(
    *,
    threshold: Threshold = 0.8,
    preset: Preset = None,
    bands: Bands = None,
    rows: Rows = None,
    recall: Recall = None,
    json: AsJson = False,
) -> None:
    """Draw the S-curve of a banding: which share of pairs of each similarity it finds."""
    near = near_config(threshold=threshold, preset=preset, bands=bands, rows=rows, recall=recall)
    points = curve(near.bands, near.rows)
    if json:
        emit_json({"bands": near.bands, "rows": near.rows, "threshold": threshold, "curve": points})
        return
    say(f"{near.bands} bands of {near.rows} rows ({near.num_perm} permutations)")
    for similarity, probability in sorted({*points[::2], (threshold, near.recall(threshold))}):
        mark = " <- threshold" if similarity == threshold else ""
        show(f"{similarity:<5.4g} {'█' * round(50 * probability):<50} {probability:7.3%}{mark}")


app.command("semantic")(semantic)


def add(root: typer.Typer) -> None:
    """Register this module's commands."""
    root.add_typer(app, name="dedup")
