"""``winnow recipe`` for trainings: what one would train, without starting it."""

import json
from pathlib import Path
from typing import Any

import yaml

from catalog.errors import ConfigError, NotFoundError
from catalog.yaml_keys import StrictLoader
from service.cli.output import emit_json, emit_table, say, show, workspace
from training.presets import preset_names, preset_text


def training_text(name: str) -> str | None:
    """The YAML of a training recipe by preset, path, or the run that went by it; None where it is none of them."""
    if name in preset_names():
        return preset_text(name)
    if Path(name).suffix in (".yaml", ".yml"):
        return _file_text(Path(name))
    return _run_text(name) if len(name) >= 4 else None


def show_training(text: str, name: str, *, as_json: bool) -> None:
    """Print the recipe as it is written, or as JSON with every default written out.

    Raises
    ------
    ConfigError : with ``as_json``, what is wrong with it.
    """
    if as_json:
        emit_json(_document(text, name))
        return
    for line in text.splitlines():
        show(line)


def tell_training(text: str, name: str, *, as_json: bool) -> None:
    """Print every model that would be trained, controls and seeds too.

    Raises
    ------
    ConfigError : what is wrong with it.
    """
    found = _document(text, name)
    if as_json:
        emit_json(found)
        return
    show(f"{found['name']}, hash {found['hash'][:12]}")
    columns = ("arm", "control of", "objective", "backbone", "pacing", "seed", "steps", "batch", "tokens")
    emit_table(
        "models, in the order in which they are trained", columns, [tuple(one.values()) for one in found["plan"]]
    )
    say("it is right by itself; whether the dataset has what it needs is said by `winnow train`")


def _document(text: str, name: str) -> dict[str, Any]:
    from training.recipe import TrainRecipe, load_recipe

    is_file = name in preset_names() or Path(name).is_file()
    recipe = load_recipe(name) if is_file else TrainRecipe.from_canonical(json.dumps(yaml.safe_load(text)))
    plan = [
        {
            "arm": one.config.name,
            "control_of": one.control_of or "",
            "objective": one.config.objective,
            "backbone": one.config.backbone,
            "pacing": one.config.pacing,
            "seed": one.config.seed,
            "steps": one.config.steps,
            "batch_size": one.config.batch_size,
            "max_tokens": one.config.max_tokens,
        }
        for one in recipe.plan()
    ]
    document: dict[str, Any] = json.loads(recipe.canonical())
    return document | {"hash": recipe.digest(), "plan": plan}


def _file_text(path: Path) -> str | None:
    try:
        text = path.read_text("utf-8")
        given = yaml.load(text, Loader=StrictLoader)  # noqa: S506 - a SafeLoader
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ConfigError):
        return None  # Told by those who read it as a cleaning recipe.
    return text if isinstance(given, dict) and "arms" in given else None


def _run_text(name: str) -> str | None:
    from workers import engine

    with workspace().read() as session:
        try:
            run = engine.find_run(session, name)
        except NotFoundError:
            return None
        recipe = run.config.get("recipe")
        is_training = isinstance(recipe, dict) and "arms" in recipe
        return yaml.safe_dump(recipe, allow_unicode=True, sort_keys=False) if is_training else None
