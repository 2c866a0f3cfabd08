"""Measuring what a training made: every arm and what is made of it on the held-out slice, against its controls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from sqlalchemy import select

from catalog.store import StoredFile
from catalog.tables.base import new_id
from catalog.tables.engine import Unit
from catalog.tables.training import Evaluation
from workers import comparing, pretraining, recall
from workers.engine import UnitResult
from workers.execution import UnitContext
from workers.fitting import forget, prepared, recipe_of

if TYPE_CHECKING:
    from training.recipe import PlannedArm, TrainRecipe


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
        first = session.scalars(select(Unit).where(Unit.run_id == unit.claim.run_id, Unit.stage == 0)).one()
        return {name: one for name, one in (first.result or {}).items() if name == "left_out"}


def measure_arms(unit: UnitContext) -> UnitResult:
    """Measure every arm and what is made of it on the held-out slice, and every arm against its control."""
    recipe = recipe_of(unit.claim.config)
    classes, _, test = prepared(unit)
    fitted = _fitted(unit)
    if recipe.reads == "classes":
        return _classifiers(unit, recipe, fitted, test, classes)
    found = pretraining.measured(unit, recipe, fitted, test, classes)
    forget(unit)
    return UnitResult(result={"test": test.height, "memory": _memory(fitted)} | _told(unit) | found)


def _classifiers(
    unit: UnitContext, recipe: TrainRecipe, fitted: dict[str, dict[str, Any]], test: pl.DataFrame, classes: list[str]
) -> UnitResult:
    """The variant table, what memories were worth, and the predictions of every variant."""
    gold = np.array([classes.index(label) for label in test["label"]], dtype=np.int64)
    plan = recipe.plan()
    total = sum(1 + len(planned.compressions) + planned.remembers for planned in plan)
    evaluations: list[Evaluation] = []
    predictions: dict[str, np.ndarray[Any, Any]] = {}
    frames: list[pl.DataFrame] = []
    remembered: list[dict[str, Any]] = []
    for planned in plan:
        measured, told = _measure_arm(unit, planned, fitted[planned.config.name], test, gold, classes, recipe.seed)
        remembered += told
        for variant, row in measured:
            answers = row.pop("predictions")
            if variant == "none":
                predictions[planned.config.name] = answers
            frames.append(_predicted(test["id"], planned.config.name, variant, answers, classes))
            evaluations.append(_evaluation(unit, planned.config.name, variant, row, fitted[planned.config.name]))
            unit.progress(len(evaluations), total)
    comparisons = comparing.by_accuracy(plan, predictions, gold, recipe.seed)
    forget(unit)
    return UnitResult(
        result={
            "classes": classes,
            "test": test.height,
            "variants": [_row(one) for one in evaluations],
            "memory": _memory(fitted),
            "energy_method": evaluations[0].detail["energy_method"],
            "comparisons": comparisons,
            "curricula": comparing.conclusions(comparisons),
        }
        | ({"memories": remembered} if remembered else {}),
        shards=[("predictions", unit.store.write_frame(pl.concat(frames), "predictions"))],
        apply=lambda session, _now: session.add_all(evaluations),
    )


def _row(one: Evaluation) -> dict[str, Any]:
    """A row of the variant table, as JSON."""
    named = ("arm", "variant", "accuracy", "macro_f1", "latency_ms", "flops")
    return (
        {name: getattr(one, name) for name in named}
        | {"size_bytes": one.size_bytes, "energy_joules": one.energy_joules, "agreement": one.detail["agreement"]}
        | {name: one.detail[name] for name in ("exits",) if name in one.detail}
    )


def _measure_arm(
    unit: UnitContext,
    planned: PlannedArm,
    fitted: dict[str, Any],
    test: pl.DataFrame,
    gold: np.ndarray[Any, Any],
    classes: list[str],
    seed: int,
) -> tuple[list[tuple[str, dict[str, Any]]], list[dict[str, Any]]]:
    """A row a variant, by its name, and what the arm's memory was worth, if it has one.

    Parameters
    ----------
    seed : of the run and not of the arm, so that every arm is timed, and its operations are counted, on the same texts.
    """
    from training.compression import COMPRESSION
    from training.evaluation.evaluate import evaluate

    files = {name: StoredFile.from_json(file) for name, file in fitted["files"].items()}
    saved = pretraining.loaded(unit, files)
    texts = test["text"].to_list()
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
    row, told = recall.class_row(unit, planned.config, saved, fitted["recall"], test, classes, whole, seed=seed)
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
