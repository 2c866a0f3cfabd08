"""``winnow difficulty``: how hard records are to learn, by learning them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from catalog.store import Store
from catalog.tables.engine import Run
from curation.dynamics.head import HeadConfig
from service.cli.label_errors import Features, Labels, check_output, write_table
from service.cli.output import COMMAND_LINE, AsJson, detached, emit_json, emit_table, run_to_end, say, show, workspace
from workers import learned

DEFAULT = HeadConfig()


def add(app: typer.Typer) -> None:
    """Register this module's command."""
    app.command("difficulty")(difficulty)


def difficulty(
    dataset: Annotated[str, typer.Argument(help="Name of a dataset that was cleaned.")],
    *,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Trainings that are averaged over.")] = 5,
    epochs: Annotated[int, typer.Option(min=2, max=1000, help="Passes over the records in each.")] = DEFAULT.epochs,
    hidden: Annotated[
        int, typer.Option(min=0, max=4096, help="Units of a hidden layer; 0 is a linear head, which memorizes least.")
    ] = DEFAULT.hidden,
    labels: Labels = "merged",
    features: Features = "embeddings",
    reference: Annotated[
        str | None, typer.Option(help="Another dataset: how well its texts foresee each record's, as perplexity.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Write all values and percentiles to a .jsonl, .csv or .parquet file."),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return at once; the workers go on.")] = False,
    json: AsJson = False,
) -> None:
    """Measure how hard each record is to learn; what is likely labelled wrong never counts as hard."""
    from workers.pipelines.difficulty import submit_difficulty

    if output is not None:
        check_output(output)
    catalog = workspace()
    run_id, state = submit_difficulty(
        catalog,
        dataset=dataset,
        labels=labels,
        features=features,
        num_seeds=seeds,
        head=HeadConfig(epochs=epochs, hidden=hidden),
        reference=reference,
        requested_by=COMMAND_LINE,
    )
    if detach:
        detached(catalog, run_id, as_json=json)
        return
    if state == "done":
        say("this was measured so before; the same result:", as_json=json)
    elif state == "resumed":
        say("going on from where the last try ended", as_json=json)
    result = run_to_end(catalog, run_id, as_json=json).result or {}
    if output is not None:
        with catalog.read() as session:
            write_table(learned.table(session, Store.of(catalog.settings), session.get_one(Run, run_id)), output)
    if json:
        emit_json({"run": run_id} | result)
        return
    _tell(result)
    if output is not None:
        show(str(output))


def _tell(result: dict[str, Any]) -> None:
    if "regions" in result:
        rows = [(name, count, f"{count / result['labelled']:.1%}") for name, count in result["regions"].items()]
        title = f"{result['labelled']:,} labelled records, as a head learned them"
        emit_table(title, ("region", "records", "share"), rows)
    else:
        say("the dataset has no labels: only the reference set was used")
    say(f"train by one of them with `difficulty: NAME` in the training recipe: {', '.join(result['measures'])}")


def explain_difficulty(found: dict[str, Any] | None) -> None:
    """What ``winnow explain`` tells of how a record was learned."""
    if found is None:
        return
    values = {name: value for name, value in found.items() if isinstance(value, float) and name != "label_quality"}
    names = dict.fromkeys(name.removesuffix("_rank") for name in values)
    rows = [(name, values.get(name), values.get(f"{name}_rank")) for name in names]
    if found.get("region"):
        show(f"learned  {found['region']}" + (", so no percentile counts" if found["region"] == "suspected" else ""))
    if rows:
        emit_table("learned difficulty", ("measure", "value", "percentile, 1 is hardest"), rows)


def explain_losses(found: dict[str, Any] | None) -> None:
    """What ``winnow explain`` tells of what a record cost the models that learned from it."""
    if found is None:
        return
    rows = [
        (
            f"{one['run'][:8]}/{one['arm']}",
            one["steps"],
            one["loss"],
            one["percentile"],
            one["num_drawn"],
            one["difficulty"],
        )
        for one in found["arms"]
    ]
    if rows:
        columns = ("training", "steps", "last loss, nats", "percentile, 1 is highest", "among", "difficulty it had")
        emit_table("losses in training", columns, rows)
    if found["never_drew"]:
        show(f"losses   {found['never_drew']} arms that kept losses never drew it: it was held out, or not reached")
    if found["not_read"]:
        show(f"losses   {found['not_read']} older arms kept losses too, which are not looked through")
