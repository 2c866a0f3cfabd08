"""What other models than the queue's own head say of a version's texts: computed by jobs, read by choices.

A choice takes what is there and waits for nothing. A job that scores is asked for by the choice that found a newer
model, and the choice after the job uses it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog.errors import ConfigError, NotFoundError
from catalog.store import Store
from catalog.tables.engine import Run
from catalog.tables.labeling import LabelQueue
from labeling.model_choice import LINEAR, SETFIT, trained_by
from labeling.schema import LabelSchema
from workers import manifests, runs

KIND = "model_scores"
FIRST_TUNING = 16
"""Labels before which an encoder is not tuned."""
TUNING_STEPS = 60
"""A minute of one core for short texts, three for texts of 64 tokens and more, which are cut there."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Scores:
    """What a model says of some records.

    Parameters
    ----------
    model : its name, for people.
    known : (num_records,) bool, which records of the version it was asked about.
    proba : (num_records, num_classes) float64, rows summing to 1 where known, else 0.
    """

    model: str
    known: np.ndarray[Any, np.dtype[np.bool_]]
    proba: np.ndarray[Any, np.dtype[np.float64]]


def find_training(session: Session, dataset_id: str, name: str) -> Run:
    """The finished training whose id begins so.

    Raises
    ------
    NotFoundError : the dataset has none; the message says how to make one.
    ConfigError : several do, or it is not done.
    """
    query = select(Run).where(
        Run.kind == "train", Run.dataset_id == dataset_id, Run.id.startswith(name, autoescape=True)
    )
    found = session.scalars(query.limit(2)).all()
    if not found:
        raise NotFoundError(f"the dataset has no training {name!r}; `winnow runs` lists them, `winnow train` makes one")
    if len(found) > 1:
        raise ConfigError(f"several trainings begin with {name!r}; give more of the id")
    if found[0].state != "done":
        raise ConfigError(f"training {found[0].id[:8]} is {found[0].state}; only a finished one says anything")
    return found[0]


def usable_training(session: Session, queue: LabelQueue, schema: LabelSchema) -> Run | None:
    """The training that a queue's model names, or else the newest finished one that knows two of its classes."""
    named = trained_by(queue.model)
    query = select(Run).where(Run.kind == "train", Run.dataset_id == queue.dataset_id, Run.state == "done")
    if named is not None:
        query = query.where(Run.id == named)
    known = set(schema.classes)
    for run in session.scalars(query.order_by(Run.finished_at.desc(), Run.id)):
        if len(known & set((run.result or {}).get("classes", []))) > 1:
            return run
    return None


def submit_if_newer(
    session: Session, *, now: datetime, queue_id: str, labels: Sequence[str], steps: int = TUNING_STEPS
) -> str | None:
    """Ask for the scores of the queue's model where they are not there yet; return the run's id.

    None where the queue goes by its own head, there is no training that fits, or there are too few labels to tune on.

    Parameters
    ----------
    labels : classes of the answers so far.
    steps : updates of an encoder that is tuned; asked for again, a tuning stays as it was asked for first.
    """
    queue = session.get_one(LabelQueue, queue_id)
    if queue.model == LINEAR:
        return None
    schema = LabelSchema.from_json(queue.schema)
    decides: dict[str, Any] = {"queue": queue.id, "classes": list(schema.classes)}
    if queue.model == SETFIT:
        due = tuning_due(labels)
        if due is None:
            return None
        decides["tuned_at"] = due
    else:
        training = usable_training(session, queue, schema)
        if training is None:
            return None
        decides["training"] = training.id
    key = runs.digest({KIND: queue.version_id} | decides)
    run, _ = runs.submit(
        session,
        now=now,
        kind=KIND,
        dataset_id=queue.dataset_id,
        version_id=queue.version_id,
        config=decides | ({"steps": steps} if queue.model == SETFIT else {}),
        idempotency_key=key,
    )
    return run.id


def tuning_due(labels: Sequence[str]) -> int | None:
    """With how many labels the encoder was to be tuned last: with 16, and with every half as many more.

    None before that, and while they make no pairs (see ``training.setfit.tune``).

    >>> tuning_due(["a", "b"] * 7), tuning_due(["a", "b"] * 8), tuning_due(["a", "b"] * 30), tuning_due(["a"] * 30)
    (None, 16, 54, None)
    """
    counts = Counter(labels)
    if len(labels) < FIRST_TUNING or len(counts) < 2 or max(counts.values()) < 2:
        return None
    due = FIRST_TUNING
    while due * 3 // 2 <= len(labels):
        due = due * 3 // 2
    return due


def newest_scores(
    session: Session, store: Store, queue: LabelQueue, schema: LabelSchema, records: pl.DataFrame
) -> Scores | None:
    """What the queue's model says, as far as a job has computed it; None where there is nothing.

    Parameters
    ----------
    records : of the queue's version, with their ``id``.
    """
    if queue.model == LINEAR:
        return None
    done = select(Run).where(
        Run.kind == KIND,
        Run.dataset_id == queue.dataset_id,
        Run.config["queue"].as_string() == queue.id,
        Run.state == "done",
    )
    for run in session.scalars(done.order_by(Run.finished_at.desc(), Run.id)):
        if run.config["classes"] != list(schema.classes):
            # Another schema's.
            continue
        (file,) = manifests.run_files(session, run.id, "proba")
        found = records.select("id").join(store.read_frame(file), on="id", how="left", maintain_order="left")
        known = found["proba"].is_not_null().to_numpy()
        proba = np.zeros((records.height, len(schema.classes)))
        if known.any():
            proba[known] = np.array(found["proba"].drop_nulls().to_list(), dtype=np.float64)
        tuned = (run.result or {}).get("num_labels")
        name = f"setfit, {tuned} labels" if tuned is not None else f"checkpoint {run.config['training'][:8]}"
        return Scores(model=name, known=known, proba=proba)
    return None
