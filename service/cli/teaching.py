"""``winnow train``: a curated version in, a table of measured models out."""

from typing import Annotated, Any

import typer

from service.cli.output import COMMAND_LINE, AsJson, detached, emit_json, emit_table, run_to_end, say, workspace
from service.cli.schedules import ask_after


def add(app: typer.Typer) -> None:
    """Register this module's commands."""
    app.command("train")(train)


def train(
    dataset: Annotated[str, typer.Argument(help="Name of a dataset that was cleaned.")],
    *,
    recipe: Annotated[str, typer.Option(help="Preset (classify, classify-small) or YAML file.")],
    detach: Annotated[bool, typer.Option("--detach", help="Return at once; the workers go on.")] = False,
    after: Annotated[
        str | None, typer.Option(help="Only once this run, request or queue has ended; returns at once.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Train in curriculum order, each model against itself in random order; compress, measure, print the table."""
    from training.recipe import load_recipe
    from workers.pipelines.train import submit_train

    catalog = workspace()
    if after is not None:
        ask_after(catalog, after=after, kind="train", dataset=dataset, recipe=recipe, as_json=json)
        return
    run_id, state = submit_train(catalog, dataset=dataset, recipe=load_recipe(recipe), requested_by=COMMAND_LINE)
    if detach:
        detached(catalog, run_id, as_json=json)
        return
    if state == "done":
        say("this version was trained by this recipe before; the same result:", as_json=json)
    elif state == "resumed":
        say("going on from where the last try ended", as_json=json)
    result = run_to_end(catalog, run_id, as_json=json).result or {}
    if json:
        emit_json({"run": run_id} | result)
        return
    emit_table("variants", HEADER, [variant_row(one) for one in result["variants"]])
    say(f"measured on {result['test']:,} held-out records; energy: {result['energy_method']}")
    for one in result["comparisons"]:
        say(comparison(one))
    say(f"drawn: `winnow report {dataset}`")


HEADER = ("arm", "variant", "accuracy", "macro F1", "latency ms", "MFLOP", "MB", "mJ/text", "agrees")


def variant_row(one: dict[str, Any]) -> tuple[Any, ...]:
    """One line of the variant table."""
    return (
        one["arm"],
        "as trained" if one["variant"] == "none" else one["variant"],
        round(one["accuracy"], 4),
        round(one["macro_f1"], 4),
        round(one["latency_ms"], 2),
        round(one["flops"] / 1e6, 2),
        round(one["size_bytes"] / 1e6, 2),
        None if one["energy_joules"] is None else round(1000 * one["energy_joules"], 2),
        None if one["agreement"] is None else round(one["agreement"], 4),
    )


def comparison(one: dict[str, Any]) -> str:
    """Whether a curriculum paid, with its interval."""
    return (
        f"{one['arm']} against random order at {one['steps']} equal steps: accuracy "
        f"{100 * one['difference']:+.1f} points ({100 * one['low']:+.1f} to {100 * one['high']:+.1f}): {one['verdict']}"
    )
