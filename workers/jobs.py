"""Jobs by kind and options, as the API, schedules and requests ask for them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from catalog.database import Catalog
from catalog.errors import ConfigError, nearest
from catalog.tables.engine import Run
from workers import runs

if TYPE_CHECKING:
    from training.recipe import TrainRecipe


_UNNAMED = "asked-for"
"""What a recipe is called that came without a name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """What became of a job that was asked for.

    Parameters
    ----------
    run_id : the run that does it.
    state : ``"new"``, ``"running"``, ``"resumed"`` or ``"done"``.
    queue_id : the labeling queue that it opened, if it did.
    """

    run_id: str
    state: str
    queue_id: str | None = None


def submit_run(
    catalog: Catalog, *, kind: str, dataset: str, config: dict[str, Any], requested_by: str | None = None
) -> str:
    """Ask for a job over a dataset; the same request again is the same run. Returns the run's id.

    Parameters
    ----------
    kind, config : as of ``check_job``.

    Raises
    ------
    ConfigError : as of ``check_job``. NotFoundError : no such dataset. Others : as the job's own submission.
    """
    check_job(kind, config)
    return start_job(catalog, kind=kind, dataset=dataset, config=config, requested_by=requested_by).run_id


def check_job(kind: str, config: dict[str, Any]) -> None:
    """Refuse what no job is: for whoever asks from outside, before anything is written down.

    Parameters
    ----------
    kind : one of ``KINDS``.
    config : its options: ``clean`` and ``train`` take ``recipe``, a preset's name; ``train`` in its place ``document``,
        a recipe's settings themselves, and ``compare`` and ``seeds`` as ``winnow train`` does; ``dedup`` takes
        ``threshold``;
        ``label_errors`` and ``difficulty`` take ``labels`` and ``features``; ``label`` takes ``schema`` (YAML as text),
        ``name``, ``strategy``, ``overlap`` and ``model``.

    Raises
    ------
    ConfigError : an unknown kind, option or preset, with the nearest known.
    """
    if kind not in _JOBS:
        raise ConfigError(f"there is no job kind {kind!r} to ask for; {nearest(kind, KINDS)}")
    options = _JOBS[kind].options
    for option in config:
        if option not in options:
            raise ConfigError(f"{kind}: unknown option {option!r}; {nearest(option, options)}")
    if "recipe" in options and "document" not in config:
        # Only presets: a path given over HTTP would let a client read the server's files.
        name, known = str(config.get("recipe", "")), _preset_names(kind)
        if "recipe" not in config:
            also = ", or a recipe's settings as document" if "document" in options else ""
            raise ConfigError(f"{kind}: give a preset's name as recipe{also}; presets: {', '.join(sorted(known))}")
        if name not in known:
            raise ConfigError(f"there is no {kind} recipe {name!r}; {nearest(name, known)}")
    _JOBS[kind].check(config)


def recipe_config(kind: str, name_or_path: str) -> dict[str, Any]:
    """The options that name a recipe: a preset by its name, the content of a file, which may change or go away.

    Raises
    ------
    NotFoundError : neither a preset nor a file. ConfigError : the recipe is refused.
    """
    if name_or_path in _preset_names(kind):
        return {"recipe": name_or_path}
    if kind == "clean":
        from curation.recipe import load_recipe

        recipe = load_recipe(name_or_path)
        return {"recipe": recipe.name, "document": recipe.canonical()}
    from training.recipe import load_recipe as load_training

    taught = load_training(name_or_path)
    return {"recipe": taught.name, "document": json.loads(taught.canonical())}


def start_job(
    catalog: Catalog,
    *,
    kind: str,
    dataset: str,
    config: dict[str, Any],
    requested_by: str | None = None,
    priority: int = 0,
    max_units: int | None = None,
) -> Started:
    """Ask for a job whose options were checked, or made by ``recipe_config``; the same again is the same run.

    Raises
    ------
    ServiceError : as the job's own submission.
    """
    started = _JOBS[kind].start(catalog, dataset, config, requested_by)
    if priority or max_units:
        with catalog.write() as session:
            run = session.get_one(Run, started.run_id)
            if run.state == "running":
                runs.steer(session, run, catalog.now(session), priority=priority, max_units=max_units or 0)
    return started


def _preset_names(kind: str) -> list[str]:
    if kind == "clean":
        from curation.recipe import preset_names

        return preset_names()
    from training.presets import preset_names as training_presets

    return training_presets()


def _start_clean(catalog: Catalog, dataset: str, config: dict[str, Any], requested_by: str | None) -> Started:
    from curation.recipe import load_recipe, recipe_from_canonical
    from workers.pipelines.clean import submit_clean

    recipe = recipe_from_canonical(config["document"]) if "document" in config else load_recipe(config["recipe"])
    return Started(**_named(submit_clean(catalog, dataset=dataset, recipe=recipe, requested_by=requested_by)))


def _start_train(catalog: Catalog, dataset: str, config: dict[str, Any], requested_by: str | None) -> Started:
    from training.recipe import TrainRecipe, load_recipe
    from workers.pipelines.train import submit_train

    if "document" in config:
        document = {"name": config.get("recipe", _UNNAMED)} | config["document"]
        recipe = TrainRecipe.from_canonical(json.dumps(document))
    else:
        recipe = load_recipe(config["recipe"])
    if config.get("compare"):
        recipe = recipe.compared(config.get("seeds"))
    return Started(**_named(submit_train(catalog, dataset=dataset, recipe=recipe, requested_by=requested_by)))


def _start_dedup(catalog: Catalog, dataset: str, config: dict[str, Any], requested_by: str | None) -> Started:
    from curation.dedup.config import NearConfig
    from curation.recipe import Recipe
    from workers.pipelines.deduplicate import submit_dedup

    recipe = Recipe(name="dedup", near=NearConfig.configured(dict(config)))
    return Started(**_named(submit_dedup(catalog, dataset=dataset, recipe=recipe, requested_by=requested_by)))


def _start_label_errors(catalog: Catalog, dataset: str, config: dict[str, Any], requested_by: str | None) -> Started:
    from workers.pipelines.label_errors import submit_label_errors

    return Started(**_named(submit_label_errors(catalog, dataset=dataset, requested_by=requested_by, **config)))


def _start_difficulty(catalog: Catalog, dataset: str, config: dict[str, Any], requested_by: str | None) -> Started:
    from workers.pipelines.difficulty import submit_difficulty

    return Started(**_named(submit_difficulty(catalog, dataset=dataset, requested_by=requested_by, **config)))


def _start_label(catalog: Catalog, dataset: str, config: dict[str, Any], requested_by: str | None) -> Started:
    from labeling.schema import parse_schema
    from workers.labeling import open_queue

    queue_id, run_id, state = open_queue(
        catalog,
        dataset=dataset,
        name=config.get("name", "labels"),
        schema=parse_schema(config["schema"]),
        strategy=config.get("strategy"),
        overlap=config.get("overlap"),
        model=config.get("model"),
        requested_by=requested_by,
    )
    return Started(run_id=run_id, state=state, queue_id=queue_id)


def _named(outcome: tuple[str, str]) -> dict[str, Any]:
    return {"run_id": outcome[0], "state": outcome[1]}


def _check_nothing(_config: dict[str, Any]) -> None:
    """The options of some jobs are checked by ``check_job`` alone."""


def _check_train(config: dict[str, Any]) -> None:
    compare, seeds = config.get("compare", False), config.get("seeds")
    if not isinstance(compare, bool):
        raise ConfigError(f"train: compare={compare!r} must be true or false")
    if seeds is not None and (isinstance(seeds, bool) or not isinstance(seeds, int)):
        raise ConfigError(f"train: seeds={seeds!r} must be a number from 2 to 20")
    if seeds is not None and not compare:
        raise ConfigError(f"train: seeds={seeds} has no effect without compare; set compare to true")
    if "document" in config and "recipe" in config:
        raise ConfigError("train: recipe has no effect beside document, which is a recipe; give one of the two")
    if "document" not in config and not compare:
        # A preset as it is: nothing that torch would have to be loaded for.
        return
    recipe = _taught(config)
    if compare:
        recipe.compared(seeds)


def _taught(config: dict[str, Any]) -> TrainRecipe:
    """The recipe of a train job that was asked for from outside."""
    from training.initial import is_folder
    from training.recipe import TrainRecipe, load_recipe

    if "document" not in config:
        return load_recipe(config["recipe"])
    document = config["document"]
    if not isinstance(document, dict):
        raise ConfigError(f"train: document={document!r} must be a mapping of a recipe's settings")
    # A copy: what is read is taken out of it.
    recipe = TrainRecipe.from_document(json.loads(json.dumps(document)), name=_UNNAMED)
    for arm in recipe.arms:
        if is_folder(arm.init_from):
            raise ConfigError(
                f"train: init_from={arm.init_from!r} of arm {arm.name!r} is a folder, and a request may read none of "
                "the server's; name a training as RUN/ARM"
            )
    return recipe


def _check_dedup(config: dict[str, Any]) -> None:
    from curation.dedup.config import NearConfig

    NearConfig.configured(dict(config))


def _check_choices(config: dict[str, Any]) -> None:
    from workers.pipelines.labelled import check_choices

    check_choices(config.get("labels", "merged"), config.get("features", "embeddings"))


def _check_label(config: dict[str, Any]) -> None:
    from labeling.fitness import check_fit
    from labeling.model_choice import LINEAR, check_model
    from labeling.schema import parse_schema

    if not isinstance(config.get("schema"), str):
        raise ConfigError("label: schema must be the text of a label schema, YAML with question and labels")
    schema = parse_schema(config["schema"])
    check_fit(str(config.get("strategy", "auto")), schema)
    check_model(str(config.get("model", LINEAR)), schema)
    name, overlap = config.get("name", "labels"), config.get("overlap", 1)
    if not isinstance(name, str) or not name.strip():
        raise ConfigError(f"label: name={name!r} must be a name")
    if isinstance(overlap, bool) or not isinstance(overlap, int) or not 1 <= overlap <= 100:
        raise ConfigError(f"label: overlap={overlap!r} must be 1 to 100")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Job:
    options: tuple[str, ...]
    start: Callable[[Catalog, str, dict[str, Any], str | None], Started]
    check: Callable[[dict[str, Any]], None] = _check_nothing


_JOBS = {
    "clean": _Job(options=("recipe",), start=_start_clean),
    "train": _Job(options=("recipe", "document", "compare", "seeds"), start=_start_train, check=_check_train),
    "dedup": _Job(options=("threshold",), start=_start_dedup, check=_check_dedup),
    "label_errors": _Job(options=("labels", "features"), start=_start_label_errors, check=_check_choices),
    "difficulty": _Job(options=("labels", "features"), start=_start_difficulty, check=_check_choices),
    "label": _Job(options=("schema", "name", "strategy", "overlap", "model"), start=_start_label, check=_check_label),
}
KINDS = tuple(_JOBS)

__all__ = ["KINDS", "Started", "check_job", "recipe_config", "start_job", "submit_run"]
