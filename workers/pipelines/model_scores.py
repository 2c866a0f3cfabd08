"""Model scores: what a trained or tuned model says of the texts that a queue may ask about."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog.errors import DataError
from catalog.store import StoredFile
from catalog.tables.datasets import Version
from catalog.tables.engine import Unit
from catalog.tables.labeling import LabelQueue
from catalog.tables.training import Evaluation
from labeling import queue as queues
from labeling.learner import Learner
from labeling.schema import LabelSchema
from workers import curated
from workers.engine import UnitResult
from workers.execution import UnitContext
from workers.model_scores import KIND
from workers.pipelines import PIPELINES, Pipeline, Stage, single

SCORED_TEXTS = 10_000
"""Of a version so many texts are scored, and those that have an answer: a pretrained encoder takes two minutes.
Which ones, the hashes that their ids begin with say, so they are a sample by chance."""
CHUNK_TEXTS = 256
Proba = np.ndarray[Any, np.dtype[np.float64]]
Judge = Callable[[list[str]], Proba]


def _score(unit: UnitContext) -> UnitResult:
    """Probabilities of the queue's classes for a sample of the version and all that is answered."""
    config = unit.claim.config
    with unit.catalog.read() as session:
        version = session.get_one(Version, unit.claim.version_id)
        schema = LabelSchema.from_json(session.get_one(LabelQueue, config["queue"]).schema)
        current = queues.current_labels(session, queue_id=config["queue"])
    answers = {one.record_id: schema.class_of(one.value) for one in current}
    records = curated.read_records(unit.store, version).select("id", "text").sort("id")
    answered = records.filter(pl.col("id").is_in(list(answers)))
    texts = pl.concat([records.head(SCORED_TEXTS), answered]).unique("id").sort("id")
    if "training" in config:
        judge, told = _trained(unit, config)
    else:
        judge, told = _tuned(unit, answered["text"].to_list(), [answers[one] for one in answered["id"]], config)
    rows: list[Proba] = []
    for start in range(0, texts.height, CHUNK_TEXTS):
        unit.progress(start, texts.height)
        unit.check()
        rows.append(judge(texts["text"][start : start + CHUNK_TEXTS].to_list()))
    proba = np.concatenate(rows)
    frame = texts.select("id").with_columns(proba=pl.Series(proba.tolist(), dtype=pl.List(pl.Float64)))
    return UnitResult(
        result=told | {"num_scored": texts.height}, shards=[("proba", unit.store.write_frame(frame, "proba"))]
    )


def _trained(unit: UnitContext, config: dict[str, Any]) -> tuple[Judge, dict[str, Any]]:
    """What a training says, by its best arm."""
    from training.evaluation.evaluate import probabilities
    from training.export import load_model

    with unit.catalog.read() as session:
        arm, files = best_arm(session, config["training"])
    with tempfile.TemporaryDirectory() as folder:
        for name, file in files.items():
            (Path(folder) / name).write_bytes(unit.store.read_bytes(StoredFile.from_json(file)))
        saved = load_model(Path(folder))

    def judge(texts: list[str]) -> Proba:
        return in_classes(probabilities(saved.model, saved.encode, texts), saved.classes, config["classes"])

    return judge, {"training": config["training"], "arm": arm}


def _tuned(
    unit: UnitContext, texts: list[str], labels: Sequence[str | None], config: dict[str, Any]
) -> tuple[Judge, dict[str, Any]]:
    """What a head says on an encoder that is tuned on the answers."""
    from training.setfit import SetFit, tune

    given = [(text, label) for text, label in zip(texts, labels, strict=True) if label in config["classes"]]
    read, classes = [text for text, _ in given], [str(label) for _, label in given]
    encoder = tune(read, classes, SetFit(steps=config["steps"]), config["tuned_at"], lambda _: unit.check())
    head = Learner.fit(encoder.encode(read), classes, config["classes"], config["tuned_at"])
    return lambda some: head.proba(encoder.encode(some)), {"num_labels": len(given)}


def in_classes(proba: Proba, known: tuple[str, ...], wanted: list[str]) -> Proba:
    """Probabilities of the queue's classes, given that it is one of them.

    Parameters
    ----------
    proba : (n, len(known)), rows summing to 1.
    wanted : the queue's classes; those that the model does not know get 0.

    Returns
    -------
    (n, len(wanted)), rows summing to 1.
    """
    found = np.zeros((len(proba), len(wanted)))
    shared = [name for name in wanted if name in known]
    if not shared:
        raise DataError(f"the training knows none of the queue's classes {', '.join(wanted[:20])}; train on its labels")
    places = [wanted.index(name) for name in shared]
    # What leaves nothing for any of them says nothing of them.
    given = np.maximum(proba[:, [known.index(name) for name in shared]], 1e-12)
    found[:, places] = given / given.sum(axis=1, keepdims=True)
    return found


def best_arm(session: Session, training: str) -> tuple[str, dict[str, Any]]:
    """The arm with the best accuracy on the training's held-out slice, as it was trained, and its files."""
    query = select(Evaluation.arm).where(Evaluation.run_id == training, Evaluation.variant == "none")
    best = session.scalars(query.order_by(Evaluation.accuracy.desc(), Evaluation.arm).limit(1)).one()
    units = session.scalars(select(Unit).where(Unit.run_id == training, Unit.stage == 1))
    return best, next((one.result or {})["files"] for one in units if one.payload["arm"] == best)


PIPELINES.register(KIND)(Pipeline(stages=(Stage(name="score", plan=single, work=_score, needs="train"),)))
