"""Train: a curated version and a recipe in, measured models out.

prepare (all) → fit (an arm) → evaluate (all, one after the other, so that nothing else runs while time is measured)
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import polars as pl
from sqlalchemy.orm import Session

from catalog.database import Catalog
from catalog.errors import DataError
from catalog.store import Store, StoredFile
from catalog.tables.datasets import Version
from catalog.tables.engine import Run
from training.split import is_test
from workers import answered, curated, learnable, learned, manifests, memories, pretraining, runs
from workers.engine import UnitResult
from workers.execution import UnitContext
from workers.fitting import fit_arm, learned_from, recipe_of
from workers.pipelines import PIPELINES, Pipeline, Stage, single
from workers.variants import measure_arms

if TYPE_CHECKING:
    from training.recipe import TrainRecipe

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


def _prepare(unit: UnitContext) -> UnitResult:
    """Records with their labels, split by the hash of the id into a part to train on and a part to measure on."""
    recipe = recipe_of(unit.claim.config)
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
        part = learned_from(planned.config, train)
        data = whole if part.height == train.height else TrainingData.build(part, classes)
        objective_of(planned.config).check(data)
        if planned.config.steps:
            stream_of(planned.config, data)
    return UnitResult(
        result=facts | {"train": train.height, "test": test.height},
        shards=[("train", unit.store.write_frame(train, "train")), ("test", unit.store.write_frame(test, "train"))],
    )


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
        for index, planned in enumerate(recipe_of(run.config).plan())
    ]


PIPELINES.register("train")(
    Pipeline(
        stages=(
            Stage(name="prepare", plan=single, work=_prepare),
            Stage(name="fit", plan=_plan_fit, work=fit_arm, needs="train"),
            Stage(name="evaluate", plan=single, work=measure_arms, needs="train"),
        )
    )
)
