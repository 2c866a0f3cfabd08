"""Trainings that are measured by what their objective costs, and models that others start from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl
from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog.errors import ConfigError, NotFoundError
from catalog.store import Store, StoredFile
from catalog.tables.engine import Unit
from workers import comparing, engine
from workers.execution import UnitContext

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from training.export import SavedModel
    from training.initial import Initial
    from training.recipe import TrainRecipe


def without_labels(records: pl.DataFrame) -> pl.DataFrame:
    """Records to learn from as they are, by id."""
    return records.with_columns(label=pl.lit(None, dtype=pl.String), hash=pl.col("id").str.slice(0, 32)).sort("id")


def fitted_files(session: Session, init_from: str) -> dict[str, StoredFile]:
    """Files of the model that ``RUN/ARM`` names; none where nothing is named.

    Raises
    ------
    ConfigError, NotFoundError : as ``trained_arm``.
    """
    if not init_from:
        return {}
    also = ", or a folder that begins with / or ./"
    unit = trained_arm(session, init_from, of=f"init_from={init_from!r}", also=also)
    return files_of((unit.result or {})["files"])


def trained_arm(session: Session, name: str, *, of: str, also: str = "") -> Unit:
    """The finished unit that trained what ``RUN/ARM`` names, the run by its id or the first characters of it.

    Parameters
    ----------
    of : what is said to be wrong where there is none: the setting with its value.
    also : what else it may be.

    Raises
    ------
    ConfigError : the name is none.
    NotFoundError : no such run, or it has no such arm that is trained.
    """
    run_id, slash, arm = name.partition("/")
    if not (run_id and slash and arm):
        raise ConfigError(f"{of} must be RUN/ARM, the run as `winnow runs` names it{also}")
    try:
        run = engine.find_run(session, run_id)
    except NotFoundError as error:
        raise NotFoundError(f"{of}: {error}") from error
    if run.kind != "train":
        raise NotFoundError(f"{of}: run {run.id[:8]} is a {run.kind}, no training; see `winnow runs`")
    # One that still trains has a result too: what memory it takes.
    done = select(Unit).where(Unit.run_id == run.id, Unit.stage == 1, Unit.state == "done")
    fitted = {one.payload["arm"]: one for one in session.scalars(done)}
    if arm not in fitted:
        have = ", ".join(sorted(fitted)) or "none yet"
        raise NotFoundError(f"{of}: the training has no trained arm {arm!r}; it has {have}")
    return fitted[arm]


def kept_folders(store: Store, recipe: TrainRecipe) -> dict[str, dict[str, Any]]:
    """The folders that arms start from, by name: copied into the store, so that any worker finds what was asked for.

    Returns
    -------
    Files by name, as JSON.

    Raises
    ------
    NotFoundError, ConfigError, CorruptionError, ConflictError : as ``training.export.load_folder``.
    """
    import tempfile
    from pathlib import Path

    from training.initial import is_folder

    folders = sorted({arm.init_from for arm in recipe.arms if is_folder(arm.init_from)})
    kept: dict[str, dict[str, Any]] = {}
    if not folders:
        return kept
    from training.export import load_folder, write_model

    for init_from in folders:
        with tempfile.TemporaryDirectory() as folder:
            write_model(load_folder(Path(init_from)), Path(folder))
            kept[init_from] = {
                one.name: store.write_bytes(one.read_bytes(), "models", one.suffix.lstrip(".")).to_json()
                for one in sorted(Path(folder).iterdir())
            }
    return kept


def check_starts(session: Session, store: Store, recipe: TrainRecipe, kept: dict[str, dict[str, Any]]) -> None:
    """Refuse what an arm cannot start from.

    Parameters
    ----------
    kept : as of ``kept_folders``.

    Raises
    ------
    ConfigError : a name is none, or the model there is of another config. NotFoundError : there is none.
    """
    from training.arm import ArmConfig
    from training.initial import check_as_it_is, check_same

    for arm in recipe.arms:
        if not arm.init_from:
            continue
        files = files_of(kept[arm.init_from]) if arm.init_from in kept else fitted_files(session, arm.init_from)
        document = json.loads(store.read_bytes(files["config.json"]))
        trained = ArmConfig(**document["arm"])
        check_same(arm, trained)
        if not arm.steps:
            check_as_it_is(arm, trained)


def initial_of(unit: UnitContext, init_from: str) -> Initial | None:
    """The model that an arm starts from; None where it starts from nothing."""
    return loaded(unit, initial_files(unit, init_from)).as_initial() if init_from else None


def initial_files(unit: UnitContext, init_from: str) -> dict[str, StoredFile]:
    """Files of the model that an arm starts from."""
    kept = unit.claim.config.get("initial", {})
    if init_from in kept:
        return files_of(kept[init_from])
    with unit.catalog.read() as session:
        return fitted_files(session, init_from)


def files_of(kept: dict[str, Any]) -> dict[str, StoredFile]:
    """Files by name, of the same as plain JSON."""
    return {name: StoredFile.from_json(file) for name, file in kept.items()}


def loaded(unit: UnitContext, files: dict[str, StoredFile]) -> SavedModel:
    """Read a stored model."""
    import tempfile
    from pathlib import Path

    from training.export import load_model

    with tempfile.TemporaryDirectory() as folder:
        for name, file in files.items():
            (Path(folder) / name).write_bytes(unit.store.read_bytes(file))
        return load_model(Path(folder))


def measured(
    unit: UnitContext,
    recipe: TrainRecipe,
    fitted: dict[str, dict[str, Any]],
    test: pl.DataFrame,
    classes: Sequence[str],
) -> dict[str, Any]:
    """What every arm costs on the held-out records, and every arm against its controls there.

    Of spans and preferences also how many an arm finds. Nothing is compressed: compression quantizes the embeddings,
    from which the head over tokens is made, and is measured by classes.

    Returns
    -------
    ``held_out`` (a row an arm), ``loss_comparisons`` and ``curricula``, as JSON.
    """
    import numpy as np

    from training.data import TrainingData
    from training.evaluation.held_out import held_out_loss
    from training.evaluation.preferences import preference_quality
    from training.evaluation.spans import span_quality

    plan, seed = recipe.plan(), recipe.seed
    qualities = {"spans": span_quality, "pairs": preference_quality}
    data = TrainingData.build(test, classes or None)
    from workers import recall

    rows: list[dict[str, Any]] = []
    remembered: list[dict[str, Any]] = []
    losses: dict[str, npt.NDArray[np.float64]] = {}
    for planned in plan:
        arm = planned.config
        files = {name: StoredFile.from_json(file) for name, file in fitted[arm.name]["files"].items()}
        saved = loaded(unit, files)
        found = held_out_loss(saved.network, saved.model, saved.tokenizer, arm, data)
        losses[arm.name] = found.pop("losses")
        if recipe.reads in qualities:
            # The loss is a mean over targets of one kind: its exponential is no perplexity of a text.
            found["perplexity"] = None
            found[recipe.reads] = qualities[recipe.reads](
                saved.model, saved.tokenizer, arm.max_tokens, data, np.random.default_rng(seed)
            )
        took = {name: fitted[arm.name][name] for name in ("steps", "seconds", "flops", "num_parameters")}
        rows.append({"arm": arm.name, "objective": arm.objective} | found | {"trained": took})
        if "recall" in fitted[arm.name]:
            facts = fitted[arm.name]["recall"]
            size, plain = found["size_bytes"] + recall.memory_bytes(facts), rows[-1]
            for further, told in recall.language_rows(unit, arm, saved, facts, data, losses[arm.name]):
                rows.append(plain | further | {"size_bytes": size})
                remembered.append(told)
        unit.progress(len(losses), len(plan))
    comparisons = comparing.by_loss(plan, losses, seed)
    told = {"loss_comparisons": comparisons, "curricula": comparing.conclusions(comparisons)}
    return {"held_out": rows} | told | ({"memories": remembered} if remembered else {})
