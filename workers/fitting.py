"""Training one arm: from its newest checkpoint if an earlier attempt left one, to a model in the store."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from sqlalchemy import select

from catalog.store import StoredFile
from catalog.tables.engine import Unit
from catalog.tables.training import LossPoint
from workers import manifests, memories, pretraining
from workers.device import best_device
from workers.engine import UnitResult
from workers.execution import StoppedError, UnitContext
from workers.live_curves import LiveCurve

if TYPE_CHECKING:
    from training.arm import ArmConfig
    from training.data import TrainingData
    from training.fit import FitResult
    from training.recipe import TrainRecipe


def recipe_of(config: dict[str, Any]) -> TrainRecipe:
    """The recipe that a training was asked for with."""
    from training.recipe import TrainRecipe

    return TrainRecipe.from_canonical(json.dumps(config["recipe"]))


def prepared(unit: UnitContext) -> tuple[list[str], pl.DataFrame, pl.DataFrame]:
    """Classes, and the records to train on and to measure on, as the first stage left them."""
    with unit.catalog.read() as session:
        prepared = session.scalars(select(Unit).where(Unit.run_id == unit.claim.run_id, Unit.stage == 0)).one()
        classes = list((prepared.result or {})["classes"])
        (train,) = manifests.unit_files(session, prepared.id, "train")
        (test,) = manifests.unit_files(session, prepared.id, "test")
    return classes, unit.store.read_frame(train), unit.store.read_frame(test)


def learned_from(arm: ArmConfig, train: pl.DataFrame) -> pl.DataFrame:
    """What an arm trains on: all but what the trust in its memory is chosen on."""
    from training.remembering import kept_back

    return train.filter(~kept_back(arm, train["id"]))


def fit_arm(unit: UnitContext) -> UnitResult:
    """Train the unit's arm: its model, its losses, the memory that it asks for, what an online pacing published.

    Raises
    ------
    LostClaimError, StoppedError : the unit is not this worker's any more, or the worker ends; a checkpoint is left.
    """
    from training.data import TrainingData

    recipe = recipe_of(unit.claim.config)
    planned = recipe.plan()[unit.claim.payload["index"]]
    classes, train, _ = prepared(unit)
    if not planned.config.steps:
        return _as_it_is(unit, planned.config, train, classes)
    data = TrainingData.build(learned_from(planned.config, train), classes)
    curve = LiveCurve(unit.claim, planned.config.name)
    unit.shown_early = curve.write
    result = _trained(unit, recipe, planned.config, data, curve)
    files = _saved(unit, result)
    remembered = {}
    if planned.remembers:
        remembered["recall"] = memories.remember_arm(unit, planned.config, files, train, classes)
    drawn = []
    if result.record_losses is not None:
        drawn = [("record_losses", _losses(unit, planned.config.name, data, result))]
    points = pl.DataFrame(result.losses, schema={"step": pl.Int64, "loss": pl.Float64}, orient="row")
    rows = points.with_columns(run_id=pl.lit(unit.claim.run_id), arm=pl.lit(planned.config.name))
    return UnitResult(
        result=_told(unit, planned.config.name, files, result) | {"memory": curve.memory} | remembered,
        rows=[(LossPoint.metadata.tables["loss_points"], rows)],
        shards=drawn,
        apply=lambda session, _now: curve.cut(session, result.steps),
    )


def _trained(unit: UnitContext, recipe: TrainRecipe, arm: ArmConfig, data: TrainingData, curve: LiveCurve) -> FitResult:
    """The arm after all its steps; ends with the checkpoint that a loss of the unit, or a stop, leaves."""
    from training.fit import fit

    stopped: list[Exception] = []

    def should_stop() -> bool:
        try:
            unit.check()
        except Exception as error:  # noqa: BLE001 - kept, and raised once the checkpoint is written
            stopped.append(error)
            return True
        return False

    def on_progress(step: int, total: int, loss: float) -> None:
        curve.add(step, loss)
        unit.num_done, unit.num_total = step, total

    result = fit(
        arm,
        data,
        device=best_device(),
        checkpoint_dir=folder_of(unit, "checkpoints") / arm.name,
        on_start=curve.begin,
        on_progress=on_progress,
        should_stop=should_stop,
        token_dir=folder_of(unit, "tokens"),
        trackers=recipe.trackers,
        track_dir=folder_of(unit, "tracked") / arm.name,
        initial=pretraining.initial_of(unit, arm.init_from),
    )
    if not result.finished:
        raise stopped[0] if stopped else StoppedError
    return result


def _saved(unit: UnitContext, result: FitResult) -> dict[str, StoredFile]:
    """The files of a model in the store, by name."""
    from training.export import save_model

    with tempfile.TemporaryDirectory() as folder:
        saved = save_model(result, Path(folder) / "model", facts={"dataset version": unit.claim.version_id or ""})
        return {
            path.name: unit.store.write_bytes(path.read_bytes(), "models", path.suffix.lstrip("."))
            for path in sorted(saved.iterdir())
        }


def _told(unit: UnitContext, arm: str, files: dict[str, StoredFile], result: FitResult) -> dict[str, Any]:
    """What is kept with the unit, as JSON; the manifests that an online pacing published are stored for it."""
    published = [unit.store.write_frame(one.manifest.frame, "stream_manifests") for one in result.revisions]
    return {
        "arm": arm,
        "files": {name: file.to_json() for name, file in files.items()},
        "steps": result.steps,
        "seconds": result.seconds,
        "flops": result.flops,
        "num_parameters": result.num_parameters,
        "num_trained_parameters": result.num_trained_parameters,
        "precision": result.precision,
        "stream_wait_share": result.stream_wait_share,
        "stopped_early": result.stopped_early,
        "held_out_losses": result.checks,
        "router": result.router,
        "manifests": [
            {"step": start, "digest": manifest.digest, "file": file.to_json()}
            for (start, manifest), file in zip(result.revisions, published, strict=True)
        ],
    }


def _as_it_is(unit: UnitContext, arm: ArmConfig, train: pl.DataFrame, classes: list[str]) -> UnitResult:
    """The model that an arm starts from, with a memory and without a step of training."""
    files = pretraining.initial_files(unit, arm.init_from)
    num_parameters = sum(one.numel() for one in pretraining.loaded(unit, files).network.parameters())
    return UnitResult(
        result={
            "arm": arm.name,
            "files": {name: file.to_json() for name, file in files.items()},
            "steps": 0,
            "seconds": 0.0,
            "flops": 0,
            "num_parameters": num_parameters,
            "num_trained_parameters": 0,
            "precision": arm.precision,
            "recall": memories.remember_arm(unit, arm, files, train, classes),
        }
    )


def _losses(unit: UnitContext, arm: str, data: TrainingData, result: FitResult) -> StoredFile:
    """A row a record that was drawn: its loss when it was drawn last, and how difficult it was said to be."""
    frame = data.manifest.frame.select("id", "difficulty").with_columns(loss=pl.Series(result.record_losses))
    frame = frame.filter(pl.col("loss").is_not_nan()).with_columns(arm=pl.lit(arm))
    return unit.store.write_frame(frame, "record_losses")


def folder_of(unit: UnitContext, kind: str) -> Path:
    """Where a run's passing files lie on this machine."""
    return unit.catalog.settings.home / kind / unit.claim.run_id


def forget(unit: UnitContext) -> None:
    """Remove what a training needs no more once all its arms are trained."""
    for kind in ("checkpoints", "tokens"):
        shutil.rmtree(folder_of(unit, kind), ignore_errors=True)
