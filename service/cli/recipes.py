"""``winnow recipe``: look at a recipe, of cleaning or of training, check one before it is used, compare two."""

from pathlib import Path
from typing import Annotated, Any

import typer

from catalog.errors import ConfigError, NotFoundError, nearest
from curation import recipe_check
from curation.recipe import PURPOSES, Recipe, load_recipe, preset_names, preset_text, recipe_from_canonical
from curation.recipe_diff import differences
from service.cli.output import AsJson, emit_json, emit_table, say, show, workspace
from service.cli.training_recipes import show_training, tell_training, training_text
from training import presets as trainings

app = typer.Typer(help="Look at recipes: presets, YAML files, and those of runs.", no_args_is_help=True)
NAME = "Preset, YAML file, or run (id or its beginning)."


def add(root: typer.Typer) -> None:
    """Register this module's commands."""
    root.add_typer(app, name="recipe")


def find_recipe(name: str) -> Recipe:
    """A recipe by preset, path, or the run that went by it.

    Raises
    ------
    NotFoundError : it is none of them, with the nearest preset. ConfigError : it is wrong, or of another release.
    """
    if name in preset_names() or Path(name).suffix in (".yaml", ".yml") or len(name) < 4:
        return load_recipe(name)
    from workers import engine

    with workspace().read() as session:
        try:
            run = engine.find_run(session, name)
        except NotFoundError:
            known = [*preset_names(), *trainings.preset_names()]
            raise NotFoundError(
                f"no recipe {name!r}; {nearest(name, known)}, the path of a .yaml file, or a run"
            ) from None
        if "versions" not in run.config.get("recipe", {}):
            raise ConfigError(f"run {run.id[:8]} is of kind {run.kind!r} and goes by no cleaning recipe")
        return recipe_from_canonical(run.config["recipe"])


@app.command("show")
def show_recipe(
    name: Annotated[str | None, typer.Argument(help=f"{NAME} Without it the presets are listed.")] = None,
    *,
    json: AsJson = False,
) -> None:
    """Print a recipe as YAML, a preset with its comments; without a name, list the presets."""
    if name is None:
        rows = [{"preset": one, "job": "clean", "for": PURPOSES.get(one, "")} for one in preset_names()]
        rows += [
            {"preset": one, "job": "train", "for": trainings.PURPOSES.get(one, "")} for one in trainings.preset_names()
        ]
        if json:
            emit_json(rows)
            return
        emit_table("", ("preset", "job", "for"), [tuple(row.values()) for row in rows])
        return
    if (training := training_text(name)) is not None:
        show_training(training, name, as_json=json)
        return
    recipe = find_recipe(name)
    if json:
        emit_json(recipe.canonical() | {"hash": recipe.digest()})
        return
    text = preset_text(name) if name in preset_names() else recipe_check.to_yaml(recipe.canonical())
    for line in text.splitlines():
        show(line)


@app.command("check")
def check(
    file: Annotated[str, typer.Argument(help=NAME)],
    *,
    json: AsJson = False,
) -> None:
    """Say what a recipe would do and what it needs that is missing here; or everything that is wrong with it."""
    if (training := training_text(file)) is not None:
        tell_training(training, file, as_json=json)
        return
    if file not in preset_names() and Path(file).is_file():
        found = recipe_check.problems(_read(file), Path(file).parent)
        if found:
            listed = "\n".join(f"  {one}" for one in found)
            raise ConfigError(f"recipe {file} has {len(found)} problem{'s' if len(found) > 1 else ''}:\n{listed}")
    recipe = find_recipe(file)
    missing, rules, steps = recipe_check.missing(recipe), recipe_check.rule_rows(recipe), recipe_check.steps(recipe)
    if json:
        named = {"name": recipe.name, "version": recipe.version, "hash": recipe.digest()}
        emit_json(named | {"rules": rules, "steps": steps, "missing": missing})
    else:
        show(f"{recipe.name} version {recipe.version}, hash {recipe.digest()[:12]}")
        _tell_rules(rules)
        emit_table("steps", ("key", "value"), [(key, _shown(value)) for key, value in steps.items()])
        if recipe.near is not None:
            near = recipe.near
            found_share = f"{near.recall(near.threshold):.1%} of pairs at {near.threshold:g}"
            say(f"near duplicates: {found_share} are found, by theory, and each is measured")
        for one in missing:
            say(f"missing here: {one}")
        say("it can run here" if not missing else "it is right, but cannot run here")
    if missing:
        raise typer.Exit(1)


def _read(file: str) -> str:
    try:
        return Path(file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe {file} cannot be read: {error}") from error


def _tell_rules(rules: list[dict[str, Any]]) -> None:
    rows = [
        (
            one["rule"],
            one["minimum"],
            one["maximum"],
            "published" if one["published"] == [one["minimum"], one["maximum"]] else _bounds(*one["published"]),
            one["measures"],
        )
        for one in rules
    ]
    emit_table("rules, first failure first", ("rule", "minimum", "maximum", "published", "measures"), rows)


def _bounds(minimum: float | None, maximum: float | None) -> str:
    return f"{'' if minimum is None else f'{minimum:g}'} to {'' if maximum is None else f'{maximum:g}'}"


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "(none)"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "(none)" if value is None else str(value)


@app.command("diff")
def diff(
    old: Annotated[str, typer.Argument(help=NAME)],
    new: Annotated[str, typer.Argument(help=NAME)],
    *,
    json: AsJson = False,
) -> None:
    """Say in what two recipes differ, key by key, old beside new."""
    sides = [find_recipe(old), find_recipe(new)]
    found = differences(*sides)
    if json:
        emit_json({"old": sides[0].digest(), "new": sides[1].digest(), "differences": found})
        return
    if not found:
        say("they decide alike")
        return
    emit_table("", ("key", old, new), [(one["key"], _shown(one["before"]), _shown(one["after"])) for one in found])
