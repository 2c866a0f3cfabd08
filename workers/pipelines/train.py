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
from catalog.tables.datasets import Version
from catalog.tables.engine import Run, Unit
from catalog.tables.training import Evaluation, LossPoint
from training.split import is_test
from workers import answered, comparing, curated, learnable, learned, manifests, memories, pretraining, recall, runs
from workers.device import best_device
from workers.engine import UnitResult
from workers.execution import StoppedError, UnitContext
from workers.live_curves import LiveCurve
from workers.pipelines import PIPELINES, Pipeline, Stage, single

if TYPE_CHECKING:
    from training.arm import ArmConfig
    from training.data import TrainingData
    from training.fit import FitResult
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
    NotFoundError : no such dataset, nothing cleaned yet, the recipe's difficulty was not measured, or there is no model
        that an arm starts from.
    ConfigError : an arm starts from a model of another config, or would read a memory that was made by something else.
    DataError : there are no labels, with the commands that bring some, or only answers that teach something else.
    """
    store = Store.of(catalog.settings)
    initial = pretraining.kept_folders(store, recipe)
    with catalog.read() as session:
        found = manifests.find_dataset(session, dataset)
        version = manifests.require_version(session, found, "curated")
        pretraining.check_starts(session, store, recipe, initial)
        memories.check_memories(session, store, version, recipe, initial)
        answers, digest = learnable.answers_of(session, found, recipe)
        measured_by = learned.source_of(session, store, version, recipe.difficulty)
    config = {
        "recipe": json.loads(recipe.canonical()),
        "recipe_hash": recipe.digest(),
        "manifest": version.manifest_sha256,
        "labels": digest,
    }
    if measured_by is not None:
        config["difficulty_run"] = measured_by
    if initial:
        config["initial"] = initial
    # Kept now: people go on answering before a worker takes this up, and it is asked for with the labels of today.
    snapshot = store.write_frame(answers, "labels")
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
        languages = curated.languages_of(session, unit.store, version)
    answers = unit.store.read_frame(StoredFile.from_json(unit.claim.config["snapshot"]))
    from training.data import TrainingData, short_names

    records = curated.read_records(unit.store, version, "source").drop("difficulty")
    records = records.with_columns(source=short_names(records["source"]))
    records = records.join(difficulty, on="id", maintain_order="left")
    records = records.join(languages, on="id", how="left", maintain_order="left")
    records, facts = learnable.labelled(unit, recipe, version, records, answers)
    classes: list[str] = facts["classes"]
    records = records.with_columns(slices=learnable.slices(recipe.reads)).drop("language")
    if not recipe.draws_by_source():
        records = records.drop("source")
    held_out = is_test(records["id"], recipe.test_share, recipe.seed)
    test = _at_most(records.filter(held_out), recipe.max_test_records)
    train = _at_most(records.filter(~held_out), recipe.max_train_records)
    if test.height < MIN_TEST_RECORDS:
        what, remedy = ("records", "ingest") if recipe.reads == "texts" else ("labelled records", "label")
        raise DataError(
            f"only {test.height} {what} fall into the held-out slice, at least {MIN_TEST_RECORDS} are needed; {remedy} "
            "more, or raise test_share"
        )
    if recipe.reads in answered.TASK_OF:
        answered.check_measurable(test, recipe.reads)
    from training.fit import stream_of
    from training.objectives import objective_of

    # Refuses what the trainer would refuse, before any arm starts.
    memories.check_classes(unit, recipe, classes)
    whole = TrainingData.build(train, classes)
    for planned in recipe.plan():
        learned_from = _learned_from(planned.config, train)
        data = whole if learned_from.height == train.height else TrainingData.build(learned_from, classes)
        objective_of(planned.config).check(data)
        if planned.config.steps:
            stream_of(planned.config, data)
    return UnitResult(
        result=facts | {"train": train.height, "test": test.height},
        shards=[("train", unit.store.write_frame(train, "train")), ("test", unit.store.write_frame(test, "train"))],
    )


def _learned_from(arm: ArmConfig, train: pl.DataFrame) -> pl.DataFrame:
    """What an arm trains on: all but what the trust in its memory is chosen on."""
    from training.remembering import kept_back

    return train.filter(~kept_back(arm, train["id"]))


def _at_most(records: pl.DataFrame, limit: int) -> pl.DataFrame:
    # Sorted by id, which begins with a hash: the first are a random sample that never changes.
    return records.head(limit) if limit else records


def _plan_fit(_session: Session, run: Run) -> list[dict[str, Any]]:
    return [
        {
            "arm": planned.config.name,
            "index": index,
            "steps": planned.config.steps,
            "seed": planned.config.seed,
            "control_of": planned.control_of,
            "replica_of": planned.replica_of,
        }
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

    recipe = _recipe(unit.claim.config)
    planned = recipe.plan()[unit.claim.payload["index"]]
    classes, train, _ = _prepared(unit)
    if not planned.config.steps:
        return _as_it_is(unit, planned.config, train, classes)
    data = TrainingData.build(_learned_from(planned.config, train), classes)
    checkpoints = _folder(unit, "checkpoints") / planned.config.name
    stopped: list[Exception] = []

    def should_stop() -> bool:
        try:
            unit.check()
        except Exception as error:  # noqa: BLE001 - kept, and raised once the checkpoint is written
            stopped.append(error)
            return True
        return False

    curve = LiveCurve(unit.claim, planned.config.name)
    unit.shown_early = curve.write

    def on_progress(step: int, total: int, loss: float) -> None:
        curve.add(step, loss)
        unit.num_done, unit.num_total = step, total

    result = fit(
        planned.config,
        data,
        device=best_device(),
        checkpoint_dir=checkpoints,
        on_start=curve.begin,
        on_progress=on_progress,
        should_stop=should_stop,
        token_dir=_folder(unit, "tokens"),
        trackers=recipe.trackers,
        track_dir=_folder(unit, "tracked") / planned.config.name,
        initial=pretraining.initial_of(unit, planned.config.init_from),
    )
    if not result.finished:
        raise stopped[0] if stopped else StoppedError
    with tempfile.TemporaryDirectory() as folder:
        saved = save_model(result, Path(folder) / "model", facts={"dataset version": unit.claim.version_id or ""})
        files = [
            (path.name, unit.store.write_bytes(path.read_bytes(), "models", path.suffix.lstrip(".")))
            for path in sorted(saved.iterdir())
        ]
    remembered = {}
    if planned.remembers:
        remembered["recall"] = memories.remember_arm(unit, planned.config, dict(files), train, classes)
    drawn = []
    if result.record_losses is not None:
        drawn = [("record_losses", _losses(unit, planned.config.name, data, result))]
    published = [unit.store.write_frame(one.manifest.frame, "stream_manifests") for one in result.revisions]
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
            "stream_wait_share": result.stream_wait_share,
            "stopped_early": result.stopped_early,
            "held_out_losses": result.checks,
            "router": result.router,
            "memory": curve.memory,
            "manifests": [
                {"step": start, "digest": manifest.digest, "file": file.to_json()}
                for (start, manifest), file in zip(result.revisions, published, strict=True)
            ],
        }
        | remembered,
        rows=[(LossPoint.metadata.tables["loss_points"], rows)],
        shards=drawn,
        apply=lambda session, _now: curve.cut(session, result.steps),
    )


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


def _folder(unit: UnitContext, kind: str) -> Path:
    """Where a run's passing files lie on this machine."""
    return unit.catalog.settings.home / kind / unit.claim.run_id


def _forget(unit: UnitContext) -> None:
    for kind in ("checkpoints", "tokens"):
        shutil.rmtree(_folder(unit, kind), ignore_errors=True)


def _fitted(unit: UnitContext) -> dict[str, dict[str, Any]]:
    with unit.catalog.read() as session:
        units = session.scalars(select(Unit).where(Unit.run_id == unit.claim.run_id, Unit.stage == 1))
        return {one.payload["arm"]: one.result or {} for one in units}


def _memory(fitted: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """What a step of each arm takes; nothing of one that was trained before that was kept."""
    return [{"arm": arm} | one["memory"] for arm, one in fitted.items() if one.get("memory")]


def _told(unit: UnitContext) -> dict[str, Any]:
    """What the first stage found out about the answers."""
    with unit.catalog.read() as session:
        prepared = session.scalars(select(Unit).where(Unit.run_id == unit.claim.run_id, Unit.stage == 0)).one()
        return {name: one for name, one in (prepared.result or {}).items() if name == "left_out"}


def _evaluate(unit: UnitContext) -> UnitResult:
    """Measure every arm and what is made of it on the held-out slice, and every arm against its control."""
    recipe = _recipe(unit.claim.config)
    classes, _, test = _prepared(unit)
    if recipe.reads != "classes":
        fitted = _fitted(unit)
        found = pretraining.measured(unit, recipe, fitted, test, classes)
        _forget(unit)
        return UnitResult(result={"test": test.height, "memory": _memory(fitted)} | _told(unit) | found)
    gold = np.array([classes.index(label) for label in test["label"]], dtype=np.int64)
    fitted = _fitted(unit)
    plan = recipe.plan()
    total = sum(1 + len(planned.compressions) + planned.remembers for planned in plan)
    evaluations: list[Evaluation] = []
    predictions: dict[str, np.ndarray[Any, Any]] = {}
    frames: list[pl.DataFrame] = []
    remembered: list[dict[str, Any]] = []
    for planned in plan:
        measured, told = _measure_arm(unit, planned, fitted[planned.config.name], test, gold, classes)
        remembered += told
        for variant, row in measured:
            answers = row.pop("predictions")
            if variant == "none":
                predictions[planned.config.name] = answers
            frames.append(_predicted(test["id"], planned.config.name, variant, answers, classes))
            evaluations.append(_evaluation(unit, planned.config.name, variant, row, fitted[planned.config.name]))
            unit.progress(len(evaluations), total)
    comparisons = comparing.by_accuracy(plan, predictions, gold, recipe.seed)
    _forget(unit)

    def apply(session: Session, _now: object) -> None:
        session.add_all(evaluations)

    table = [
        {name: getattr(one, name) for name in ("arm", "variant", "accuracy", "macro_f1", "latency_ms", "flops")}
        | {"size_bytes": one.size_bytes, "energy_joules": one.energy_joules, "agreement": one.detail["agreement"]}
        | {name: one.detail[name] for name in ("exits",) if name in one.detail}
        for one in evaluations
    ]
    return UnitResult(
        result={
            "classes": classes,
            "test": test.height,
            "variants": table,
            "memory": _memory(fitted),
            "energy_method": evaluations[0].detail["energy_method"],
            "comparisons": comparisons,
            "curricula": comparing.conclusions(comparisons),
        }
        | ({"memories": remembered} if remembered else {}),
        shards=[("predictions", unit.store.write_frame(pl.concat(frames), "predictions"))],
        apply=apply,
    )


def _measure_arm(
    unit: UnitContext,
    planned: PlannedArm,
    fitted: dict[str, Any],
    test: pl.DataFrame,
    gold: np.ndarray[Any, Any],
    classes: list[str],
) -> tuple[list[tuple[str, dict[str, Any]]], list[dict[str, Any]]]:
    """A row a variant, by its name, and what the arm's memory was worth, if it has one."""
    from training.compression import COMPRESSION
    from training.evaluation.evaluate import evaluate

    files = {name: StoredFile.from_json(file) for name, file in fitted["files"].items()}
    saved = pretraining.loaded(unit, files)
    seed, texts = planned.config.seed, test["text"].to_list()
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
    if not planned.remembers:
        return rows, []
    unit.check()
    row, told = recall.class_row(unit, planned.config, saved, fitted["recall"], test, classes, whole)
    return [*rows, (planned.config.retrieval, row)], [told]


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


PIPELINES.register("train")(
    Pipeline(
        stages=(
            Stage(name="prepare", plan=single, work=_prepare),
            Stage(name="fit", plan=_plan_fit, work=_fit, needs="train"),
            Stage(name="evaluate", plan=single, work=_evaluate, needs="train"),
        )
    )
)
