"""``winnow train``: a curated version in, a table of measured models out."""

from json import loads as parse_json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.output import COMMAND_LINE, AsJson, detached, emit_json, emit_table, run_to_end, say, workspace
from service.cli.schedules import ask_after
from service.outcome import outcome_of
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
    found = outcome_of(result, asked=asked)
    emit_table(found.title, found.header, found.rows)
    for line in found.lines:
        say(line)
    drawn = "" if "held_out" in result else f"drawn: `winnow report {dataset}`; "
    say(f"{drawn}taken out: `winnow export-model {run_id[:8]}/ARM --output FOLDER`")


SAME_MEMORY = 0.1
"""Share by which what a step takes may differ without being told again."""


class MemoryTold:
    """Says what memory a step of an arm takes, as soon as it was measured: before the arm's first update.

    Of the first arm, then of those that differ by more than 10 % from each that was told: controls and seeds seldom do.

    Parameters
    ----------
    as_json : say nothing; the result has it.
    """

    def __init__(self, catalog: "Catalog", run_id: str, *, as_json: bool) -> None:
        self._catalog, self._run_id, self._as_json = catalog, run_id, as_json
        self._seen: set[int] = set()
        self._told: list[int] = []

    def look(self) -> None:
        """Say what is new."""
        from workers.live_curves import memory_of_arms

        if self._as_json:
            return
        with self._catalog.read() as session:
            new = memory_of_arms(session, self._run_id, skip=self._seen)
        self._seen |= new.keys()
        for one in new.values():
            total = one["total_bytes"]
            if any(abs(total - told) <= SAME_MEMORY * told for told in self._told):
                continue
            self._told.append(total)
            say(memory_line(one))


def memory_line(one: dict[str, Any]) -> str:
    """What a step of an arm took beyond the weights, as it was measured before the first."""
    parts = ", ".join(f"{name} {size_text(one[f'{name}_bytes'])}" for name in _MEMORY_PARTS)
    return (
        f"memory of {one['arm']}: {size_text(one['total_bytes'])} beyond the weights ({parts}; "
        f"{one['records']} records at a time), {size_text(one['free_bytes'])} were free"
    )


_MEMORY_PARTS = ("gradients", "optimizer", "average", "activations", "other")
