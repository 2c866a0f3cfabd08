"""Train: a curated version and a recipe in, measured models out.

prepare (all) → fit (an arm) → evaluate (all, one after the other, so that nothing else runs while time is measured)
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog.database import Catalog
from catalog.errors import DataError
from catalog.store import Store, StoredFile
from catalog.tables.base import new_id
from catalog.tables.datasets import Dataset, Version
from catalog.tables.engine import Run, Unit
from catalog.tables.labeling import LabelQueue
from catalog.tables.training import Evaluation, LossPoint
from labeling.quality import consensus_labels
from training.split import is_test
from workers import curated, learned, manifests, runs
from workers.device import best_device
from workers.engine import UnitResult
from workers.execution import StoppedError, UnitContext
from workers.pipelines import PIPELINES, Pipeline, Stage, single

if TYPE_CHECKING:
    from training.recipe import PlannedArm, TrainRecipe

MIN_TEST_RECORDS = 20


def submit_train(
    catalog: Catalog, *, dataset: str, recipe: TrainRecipe, requested_by: str | None = None
) -> tuple[str, str]:
    """Ask for a training on the newest curated version; the same version, labels and recipe again is the same run.

    Returns
    -------
    the run's id and ``"new"``, ``"running"``, ``"resumed"`` or ``"done"``.

    Raises
    ------
    NotFoundError : no such dataset, nothing cleaned yet, or the recipe's difficulty was not measured.
    DataError : there are no labels, with the commands that bring some.
    """
    with catalog.read() as session:
        found = manifests.find_dataset(session, dataset)
        version = manifests.require_version(session, found, "curated")
        annotated = annotated_labels(session, found.id)
        measured_by = learned.source_of(session, Store.of(catalog.settings), version, recipe.difficulty)
    _check_labels(found, recipe, len(annotated))
    config = {
        "recipe": json.loads(recipe.canonical()),
        "recipe_hash": recipe.digest(),
        "manifest": version.manifest_sha256,
        "labels": runs.digest(annotated),
    }
    if measured_by is not None:
        config["difficulty_run"] = measured_by
    # Kept now: people go on answering before a worker takes this up, and it is asked for with the labels of today.
    snapshot = Store.of(catalog.settings).write_frame(_answers(annotated), "labels")
    with catalog.write() as session:
        run, state = runs.submit(
            session,
            now=catalog.now(session),
            kind="train",
            dataset_id=found.id,
            version_id=version.id,
            config=config | {"snapshot": snapshot.to_json()},
            idempotency_key=runs.digest({"train": found.id} | config),
            requested_by=requested_by,
        )
        return run.id, state


def _check_labels(dataset: Dataset, recipe: TrainRecipe, num_annotated: int) -> None:
    ask = f"collect some with `winnow label create {dataset.name} --schema labels.yaml`"
    if recipe.labels == "annotated" and num_annotated == 0:
        raise DataError(f"recipe {recipe.name!r} takes annotated labels, and {dataset.name!r} has none; {ask}")
    if dataset.label_column is None and num_annotated == 0:
        raise DataError(f"dataset {dataset.name!r} has no labels; ingest it with --label COLUMN, or {ask}")


def annotated_labels(session: Session, dataset_id: str) -> dict[str, str]:
    """What people answered, by record; a later queue's answer replaces an earlier one's. Rehearsals do not count."""
    found: dict[str, str] = {}
    for queue_id in session.scalars(
        select(LabelQueue.id)
        .where(LabelQueue.dataset_id == dataset_id, LabelQueue.rehearsal.is_(False))
        .order_by(LabelQueue.created_at, LabelQueue.id)
    ):
        found.update({one.record_id: str(one.value) for one in consensus_labels(session, queue_id=queue_id)})
    return found


def _recipe(config: dict[str, Any]) -> TrainRecipe:
    from training.recipe import TrainRecipe

    return TrainRecipe.from_canonical(json.dumps(config["recipe"]))


def _prepare(unit: UnitContext) -> UnitResult:
    """Records with their labels, split by the hash of the id into a part to train on and a part to measure on."""
    recipe = _recipe(unit.claim.config)
    with unit.catalog.read() as session:
        version = session.get_one(Version, unit.claim.version_id)
        run_id = unit.claim.config.get("difficulty_run")
        difficulty = learned.chosen(session, unit.store, version, recipe.difficulty, run_id)
    answers = unit.store.read_frame(StoredFile.from_json(unit.claim.config["snapshot"]))
    records = curated.read_records(unit.store, version).drop("difficulty")
    records = with_labels(records.join(difficulty, on="id", maintain_order="left"), answers, recipe.labels)
    classes = sorted(records["label"].unique().to_list())
    if len(classes) < 2:
        have = (
            f"all {records.height:,} labelled records are {classes[0]!r}"
            if classes
            else "no record that stayed has a label"
        )
        raise DataError(f"{have}; a classifier needs two classes: label more, or loosen the cleaning recipe")
    held_out = is_test(records["id"], recipe.test_share, recipe.seed)
    test = _at_most(records.filter(held_out), recipe.max_test_records)
    train = _at_most(records.filter(~held_out), recipe.max_train_records)
    if test.height < MIN_TEST_RECORDS:
        raise DataError(
            f"only {test.height} labelled records fall into the held-out slice, at least {MIN_TEST_RECORDS} are "
            "needed; label more, or raise test_share"
        )
    from training.data import TrainingData

    # Refuses what the trainer would refuse, before any arm starts.
    TrainingData.build(train, classes)
    return UnitResult(
        result={"classes": classes, "train": train.height, "test": test.height},
        shards=[("train", unit.store.write_frame(train, "train")), ("test", unit.store.write_frame(test, "train"))],
    )


def _answers(annotated: dict[str, str]) -> pl.DataFrame:
    schema = {"id": pl.String, "answer": pl.String}
    return pl.DataFrame(sorted(annotated.items()), schema=schema, orient="row")


def with_labels(records: pl.DataFrame, answers: pl.DataFrame, source: str) -> pl.DataFrame:
    """Records with the label to train on and the hash of their content; their weights are those of the version.

    Parameters
    ----------
    answers : ``id`` and ``answer`` of what people labelled.
    source : ``given``, ``annotated`` or ``merged``.
    """
    joined = records.join(answers, on="id", how="left", maintain_order="left")
    chosen = {"given": pl.col("label"), "annotated": pl.col("answer"), "merged": pl.coalesce("answer", "label")}[source]
    return (
        joined.with_columns(label=chosen, hash=pl.col("id").str.slice(0, 32))
        .drop("answer")
        .drop_nulls("label")
        .sort("id")
    )


def _at_most(records: pl.DataFrame, limit: int) -> pl.DataFrame:
    # Sorted by id, which begins with a hash: the first are a random sample that never changes.
    return records.head(limit) if limit else records


def _plan_fit(_session: Session, run: Run) -> list[dict[str, Any]]:
    return [
        {"arm": planned.config.name, "index": index, "steps": planned.config.steps}
        for index, planned in enumerate(_recipe(run.config).plan())
    ]


def _prepared(unit: UnitContext) -> tuple[list[str], pl.DataFrame, pl.DataFrame]:
    with unit.catalog.read() as session:
        prepared = session.scalars(select(Unit).where(Unit.run_id == unit.claim.run_id, Unit.stage == 0)).one()
        classes = list((prepared.result or {})["classes"])
        (train,) = manifests.unit_files(session, prepared.id, "train")
        (test,) = manifests.unit_files(session, prepared.id, "test")
    return classes, unit.store.read_frame(train), unit.store.read_frame(test)


def _fit(unit: UnitContext) -> UnitResult:
    """Train one arm, from its newest checkpoint if an earlier attempt left one."""
    from training.data import TrainingData
    from training.export import save_model
    from training.fit import fit

    planned = _recipe(unit.claim.config).plan()[unit.claim.payload["index"]]
    classes, train, _ = _prepared(unit)
    data = TrainingData.build(train, classes)
    checkpoints = unit.catalog.settings.home / "checkpoints" / unit.claim.run_id / planned.config.name
    stopped: list[Exception] = []

    def should_stop() -> bool:
        try:
            unit.check()
        except Exception as error:  # noqa: BLE001 - kept, and raised once the checkpoint is written
            stopped.append(error)
            return True
        return False

    def on_progress(step: int, total: int, _loss: float) -> None:
        unit.num_done, unit.num_total = step, total

    result = fit(
        planned.config,
        data,
        device=best_device(),
        checkpoint_dir=checkpoints,
        on_progress=on_progress,
        should_stop=should_stop,
    )
    if not result.finished:
        raise stopped[0] if stopped else StoppedError
    with tempfile.TemporaryDirectory() as folder:
        saved = save_model(result, Path(folder) / "model", facts={"dataset version": unit.claim.version_id or ""})
        files = [
            (path.name, unit.store.write_bytes(path.read_bytes(), "models", path.suffix.lstrip(".")))
            for path in sorted(saved.iterdir())
        ]
    points = pl.DataFrame(result.losses, schema={"step": pl.Int64, "loss": pl.Float64}, orient="row")
    rows = points.with_columns(run_id=pl.lit(unit.claim.run_id), arm=pl.lit(planned.config.name))
    return UnitResult(
        result={
            "arm": planned.config.name,
            "files": {name: file.to_json() for name, file in files},
            "steps": result.steps,
            "seconds": result.seconds,
            "flops": result.flops,
            "num_parameters": result.num_parameters,
            "num_trained_parameters": result.num_trained_parameters,
            "precision": result.precision,
        },
        rows=[(LossPoint.metadata.tables["loss_points"], rows)],
    )


def _fitted(unit: UnitContext) -> dict[str, dict[str, Any]]:
    with unit.catalog.read() as session:
        units = session.scalars(select(Unit).where(Unit.run_id == unit.claim.run_id, Unit.stage == 1))
        return {one.payload["arm"]: one.result or {} for one in units}


def _evaluate(unit: UnitContext) -> UnitResult:
    """Measure every arm and what is made of it on the held-out slice, and every arm against its control."""
    recipe = _recipe(unit.claim.config)
    classes, _, test = _prepared(unit)
    gold = np.array([classes.index(label) for label in test["label"]], dtype=np.int64)
    fitted = _fitted(unit)
    plan = recipe.plan()
    total = sum(1 + len(planned.compressions) for planned in plan)
    evaluations: list[Evaluation] = []
    predictions: dict[str, np.ndarray[Any, Any]] = {}
    frames: list[pl.DataFrame] = []
    for planned in plan:
        measured = _measure_arm(unit, planned, fitted[planned.config.name], test["text"].to_list(), gold, classes)
        for variant, row in measured:
            answers = row.pop("predictions")
            if variant == "none":
                predictions[planned.config.name] = answers
            frames.append(_predicted(test["id"], planned.config.name, variant, answers, classes))
            evaluations.append(_evaluation(unit, planned.config.name, variant, row, fitted[planned.config.name]))
            unit.progress(len(evaluations), total)
    comparisons = _compare(plan, predictions, gold, recipe.seed)
    shutil.rmtree(unit.catalog.settings.home / "checkpoints" / unit.claim.run_id, ignore_errors=True)

    def apply(session: Session, _now: object) -> None:
        session.add_all(evaluations)

    table = [
        {name: getattr(one, name) for name in ("arm", "variant", "accuracy", "macro_f1", "latency_ms", "flops")}
        | {"size_bytes": one.size_bytes, "energy_joules": one.energy_joules, "agreement": one.detail["agreement"]}
        for one in evaluations
    ]
    return UnitResult(
        result={
            "classes": classes,
            "test": test.height,
            "variants": table,
            "energy_method": evaluations[0].detail["energy_method"],
            "comparisons": comparisons,
        },
        shards=[("predictions", unit.store.write_frame(pl.concat(frames), "predictions"))],
        apply=apply,
    )


def _measure_arm(
    unit: UnitContext,
    planned: PlannedArm,
    fitted: dict[str, Any],
    texts: list[str],
    gold: np.ndarray[Any, Any],
    classes: list[str],
) -> list[tuple[str, dict[str, Any]]]:
    from training.compression import COMPRESSION
    from training.evaluation.evaluate import evaluate
    from training.export import load_model

    with tempfile.TemporaryDirectory() as folder:
        for name, file in fitted["files"].items():
            (Path(folder) / name).write_bytes(unit.store.read_bytes(StoredFile.from_json(file)))
        saved = load_model(Path(folder))
    seed = planned.config.seed
    whole = evaluate(saved.model, saved.encode, texts, gold.tolist(), classes, seed=seed)
    rows = [("none", whole)]
    for name in planned.compressions:
        unit.check()
        smaller = COMPRESSION[name].member(saved.model)
        rows.append(
            (
                name,
                evaluate(
                    smaller,
                    saved.encode,
                    texts,
                    gold.tolist(),
                    classes,
                    seed=seed,
                    reference=whole["predictions"],
                    uncompressed=saved.model,
                ),
            )
        )
    return rows


def _predicted(
    ids: pl.Series, arm: str, variant: str, answers: np.ndarray[Any, Any], classes: list[str]
) -> pl.DataFrame:
    return pl.DataFrame({"id": ids, "predicted": [classes[answer] for answer in answers]}).with_columns(
        arm=pl.lit(arm), variant=pl.lit(variant)
    )


def _evaluation(unit: UnitContext, arm: str, variant: str, row: dict[str, Any], fitted: dict[str, Any]) -> Evaluation:
    columns = ("num_examples", "accuracy", "macro_f1", "latency_ms", "flops", "size_bytes", "energy_joules")
    detail = {name: value for name, value in row.items() if name not in columns}
    trained = {
        name: fitted[name] for name in ("steps", "seconds", "num_parameters", "num_trained_parameters", "precision")
    }
    return Evaluation(
        id=new_id(),
        run_id=unit.claim.run_id,
        arm=arm,
        variant=variant,
        detail=detail | {"trained": trained | {"flops": fitted["flops"]}},
        **{name: row[name] for name in columns},
    )


def _compare(
    plan: tuple[PlannedArm, ...], predictions: dict[str, np.ndarray[Any, Any]], gold: np.ndarray[Any, Any], seed: int
) -> list[dict[str, Any]]:
    from training.evaluation.quality import paired_difference

    found = []
    for control in plan:
        if control.control_of is None:
            continue
        difference = paired_difference(
            predictions[control.control_of], predictions[control.config.name], gold, np.random.default_rng(seed)
        )
        verdict = (
            "paid" if difference.low > 0 else "did worse than random order" if difference.high < 0 else "no gain shown"
        )
        found.append(
            {
                "arm": control.control_of,
                "control": control.config.name,
                "steps": control.config.steps,
                "difference": difference.diff,
                "low": difference.low,
                "high": difference.high,
                "verdict": verdict,
            }
        )
    return found


PIPELINES.register("train")(
    Pipeline(
        stages=(
            Stage(name="prepare", plan=single, work=_prepare),
            Stage(name="fit", plan=_plan_fit, work=_fit, needs="train"),
            Stage(name="evaluate", plan=single, work=_evaluate, needs="train"),
        )
    )
)
