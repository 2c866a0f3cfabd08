"""``winnow train``: a curated version in, a table of measured models out."""

from json import loads as parse_json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.output import COMMAND_LINE, AsJson, detached, emit_json, emit_table, run_to_end, say, workspace
from service.cli.schedules import ask_after
from service.sizes import size_text

if TYPE_CHECKING:
    from catalog.database import Catalog


def add(app: typer.Typer) -> None:
    """Register this module's commands."""
    app.command("train")(train)


def train(
    dataset: Annotated[str, typer.Argument(help="Name of a dataset that was cleaned.")],
    *,
    recipe: Annotated[str, typer.Option(help="Preset (classify, classify-small, pretrain) or YAML file.")],
    detach: Annotated[bool, typer.Option("--detach", help="Return at once; the workers go on.")] = False,
    after: Annotated[
        str | None, typer.Option(help="Only once this run, request or queue has ended; returns at once.")
    ] = None,
    compare: Annotated[
        bool,
        typer.Option("--compare", help="Every control at equal steps, under several seeds: did it pay?"),
    ] = False,
    seeds: Annotated[
        int | None, typer.Option(help="Seeds of --compare, 2 to 20; default the recipe's compare_seeds, or 3.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Train in curriculum order, each model against itself in random order; compress, measure, print the table."""
    from catalog.errors import ConfigError
    from training.recipe import load_recipe
    from workers.pipelines.train import submit_train

    if seeds is not None and not compare:
        raise ConfigError(f"--seeds {seeds} has no effect without --compare; give both")
    catalog = workspace()
    if after is not None and not compare:
        ask_after(catalog, after=after, kind="train", dataset=dataset, recipe=recipe, as_json=json)
        return
    loaded = load_recipe(recipe)
    if compare:
        loaded = loaded.compared(seeds)
    if after is not None:
        config = {"recipe": loaded.name, "document": parse_json(loaded.canonical())}
        ask_after(catalog, after=after, kind="train", dataset=dataset, config=config, as_json=json)
        return
    run_id, state = submit_train(catalog, dataset=dataset, recipe=loaded, requested_by=COMMAND_LINE)
    if detach:
        detached(catalog, run_id, as_json=json)
        return
    if state == "done":
        say("this version was trained by this recipe before; the same result:", as_json=json)
    elif state == "resumed":
        say("going on from where the last try ended", as_json=json)
    told = MemoryTold(catalog, run_id, as_json=json)
    result = run_to_end(catalog, run_id, as_json=json, meanwhile=told.look).result or {}
    told.look()
    if json:
        emit_json({"run": run_id} | result)
        return
    show_training(result, run_id=run_id, dataset=dataset, asked=compare)


def show_training(result: dict[str, Any], *, run_id: str, dataset: str, asked: bool) -> None:
    """Print what a training measured.

    Parameters
    ----------
    result : of a run that is done.
    asked : whether every control was asked for.
    """
    if "held_out" in result:
        show_held_out(result)
        show_curricula(result, asked=asked)
        say(f"taken out: `winnow export-model {run_id[:8]}/ARM --output FOLDER`")
        return
    emit_table("variants", HEADER, [variant_row(one) for one in result["variants"]])
    say(f"measured on {result['test']:,} held-out records; energy: {result['energy_method']}")
    for one in result["variants"]:
        for line in exit_lines(one):
            say(line)
    for one in result.get("memories", []):
        say(recall_line(one))
    for one in result["comparisons"]:
        say(comparison(one))
    show_curricula(result, asked=asked)
    say(f"drawn: `winnow report {dataset}`; taken out: `winnow export-model {run_id[:8]}/ARM --output FOLDER`")


def show_curricula(result: dict[str, Any], *, asked: bool) -> None:
    """Whether each arm's order paid, where every control was asked for."""
    for one in result.get("curricula", []) if asked else []:
        say(f"curriculum of {one['arm']}: {one['verdict']}")


class MemoryTold:
    """Says what memory a step of each arm takes, once, as soon as it was measured: before the arm's first update.

    Parameters
    ----------
    as_json : say nothing; the result has it.
    """

    def __init__(self, catalog: "Catalog", run_id: str, *, as_json: bool) -> None:
        self._catalog, self._run_id, self._as_json = catalog, run_id, as_json
        self._told: set[int] = set()

    def look(self) -> None:
        """Say what is new."""
        from workers.live_curves import memory_of_arms

        if self._as_json:
            return
        with self._catalog.read() as session:
            new = memory_of_arms(session, self._run_id, skip=self._told)
        self._told |= new.keys()
        for one in new.values():
            say(memory_line(one))


def memory_line(one: dict[str, Any]) -> str:
    """What a step of an arm took beyond the weights, as it was measured before the first."""
    parts = ", ".join(f"{name} {size_text(one[f'{name}_bytes'])}" for name in _MEMORY_PARTS)
    return (
        f"memory of {one['arm']}: {size_text(one['total_bytes'])} beyond the weights ({parts}; "
        f"{one['records']} records at a time), {size_text(one['free_bytes'])} were free"
    )


_MEMORY_PARTS = ("gradients", "optimizer", "average", "activations", "other")
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


def exit_lines(one: dict[str, Any]) -> list[str]:
    """What a variant gains by leaving early, a line a threshold; none where it has no heads behind earlier layers."""
    if "exits" not in one:
        return []
    name = f"{one['arm']}, {'as trained' if one['variant'] == 'none' else one['variant']}"
    return [
        f"{name}: leaving once {at['threshold']:g} sure takes {100 * at['layers_share']:.0f} % of the layers, accuracy "
        f"{at['accuracy']:.4f}"
        for at in one["exits"]["thresholds"]
    ]


def show_held_out(result: dict[str, Any]) -> None:
    """What models cost on held-out records that are no classifiers, and what those of people's answers find there."""
    rows = [
        (
            f"{one['arm']} + {one['retrieval']}" if "retrieval" in one else one["arm"],
            one["objective"],
            round(one["loss"], 4),
            *(None if value is None else round(value, 4) for value in _measures(one).values()),
            round(one["size_bytes"] / 1e6, 2),
        )
        for one in result["held_out"]
    ]
    emit_table("held out", ("arm", "objective", "loss", *_measures(result["held_out"][0]), "MB"), rows)
    say(f"measured on {result['test']:,} held-out records; another training starts from an arm by init_from: RUN/ARM")
    for reason, count in result.get("left_out", {}).items():
        if count:
            say(f"{count:,} answers were left out: {reason}")
    for one in result.get("memories", []):
        say(recall_line(one))
    for one in result["loss_comparisons"]:
        say(
            f"{one['arm']} against {one['control']} at {one['steps']} equal steps{_seeds(one)}: "
            f"{one['loss_saved']:+.4f} nats saved ({one['low']:+.4f} to {one['high']:+.4f}): {one['verdict']}"
        )


def _measures(one: dict[str, Any]) -> dict[str, float | None]:
    """What says most about an arm beside its loss, by its names for people."""
    if spans := one.get("spans"):
        return {"span F1": spans["f1"], "low": spans["f1_low"], "high": spans["f1_high"], "token F1": spans["token_f1"]}
    if pairs := one.get("pairs"):
        return {"accuracy": pairs["accuracy"], "low": pairs["accuracy_low"], "high": pairs["accuracy_high"]}
    return {"perplexity": one["perplexity"]}


def recall_line(one: dict[str, Any]) -> str:
    """What an arm's memory was worth, with its interval."""
    of = f" of {one['memory_of']}" if one["memory_of"] else ""
    scale, unit = (100, "points of accuracy") if one["measure"] == "accuracy" else (1, "nats saved")
    found = [f"{scale * one[name]:+.{1 if scale > 1 else 4}f}" for name in ("difference", "low", "high")]
    trust = "" if one["weight"] is None else f", weight {one['weight']:.3f}, temperature {one['temperature']:.3g}"
    return (
        f"{one['arm']} with {one['retrieval']}, {one['num_entries']:,} entries{of} by {one['vectors']}{trust}: "
        f"{found[0]} {unit} ({found[1]} to {found[2]}): {one['verdict']}"
    )


def comparison(one: dict[str, Any]) -> str:
    """Whether a curriculum paid, with its interval."""
    return (
        f"{one['arm']} against {one.get('order', 'random order')} at {one['steps']} equal steps{_seeds(one)}: accuracy "
        f"{100 * one['difference']:+.1f} points ({100 * one['low']:+.1f} to {100 * one['high']:+.1f}): {one['verdict']}"
    )


def _seeds(one: dict[str, Any]) -> str:
    return f" and {one['seeds']} seeds" if one.get("seeds", 1) > 1 else ""
