"""Jobs by kind and options, as the API and the schedules ask for them."""

from typing import Any

from catalog.database import Catalog
from catalog.errors import ConfigError, nearest
from workers.pipelines.clean import submit_clean
from workers.pipelines.train import submit_train

KINDS = ("clean", "train")
OPTIONS = ("recipe",)


def submit_run(
    catalog: Catalog, *, kind: str, dataset: str, config: dict[str, Any], requested_by: str | None = None
) -> str:
    """Ask for a job over a dataset; the same request again is the same run. Returns the run's id.

    Parameters
    ----------
    kind : ``clean`` or ``train``.
    config : ``{"recipe": preset name}``.

    Raises
    ------
    ConfigError : an unknown kind, option or recipe, with the nearest known. NotFoundError : no such dataset.
    """
    from curation import recipe as cleaning
    from training import recipe as teaching

    for option in config:
        if option not in OPTIONS:
            raise ConfigError(f"{kind}: unknown option {option!r}; {nearest(option, OPTIONS)}")
    presets = {"clean": cleaning.preset_names, "train": teaching.preset_names}
    if kind not in presets:
        raise ConfigError(f"there is no job kind {kind!r} to ask for; {nearest(kind, KINDS)}")
    name = str(config.get("recipe", ""))
    # Only presets: a path given over HTTP would let a client read the server's files.
    if name not in presets[kind]():
        raise ConfigError(f"there is no {kind} recipe {name!r}; {nearest(name, presets[kind]())}")
    if kind == "clean":
        run_id, _ = submit_clean(catalog, dataset=dataset, recipe=cleaning.load_recipe(name), requested_by=requested_by)
    else:
        run_id, _ = submit_train(catalog, dataset=dataset, recipe=teaching.load_recipe(name), requested_by=requested_by)
    return run_id
