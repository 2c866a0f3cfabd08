"""Query: refit the labeling model on the labels so far and publish what to ask next."""

import time
from datetime import datetime
from functools import cache
from typing import Any

import numpy as np
import polars as pl
from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog.tables.datasets import Version
from catalog.tables.labeling import LabelQueue, LabelRound
from labeling import queue as queues
from labeling.candidates import Candidates
from labeling.learner import Learner, fit_committee
from labeling.queue import QueueEntry
from labeling.schema import LabelSchema
from labeling.selection import choose
from labeling.strategies.label_errors import SECOND_OPINION
from training.split import is_test
from workers import curated, runs, suspects
from workers.engine import UnitResult
from workers.execution import UnitContext
from workers.pipelines import PIPELINES, Pipeline, Stage, single

NUM_ENTRIES = 200
"""New tasks in a generation at least: enough that no annotator waits for the model."""
MAX_ENTRIES = 5_000
"""At most, however rarely the model is refitted: when they run out, the next generation is asked for."""


def generation_size(refresh_every: int) -> int:
    """New tasks in a generation: two refreshes' worth, so that it does not run out before the next one is there.

    >>> generation_size(20), generation_size(150), generation_size(10**6)
    (200, 300, 5000)
    """
    return min(max(NUM_ENTRIES, 2 * refresh_every), MAX_ENTRIES)


def request_key(queue_id: str, *, num_labels: int, after: int | None = None) -> str:
    """What makes two requests for a generation one: the labels it is due at, or the generation that ran out."""
    return runs.digest({"query": queue_id} | ({"num_labels": num_labels} if after is None else {"after": after}))


def submit_query(
    session: Session,
    *,
    now: datetime,
    queue_id: str,
    num_labels: int,
    after: int | None = None,
    num_entries: int | None = None,
    requested_by: str | None = None,
) -> tuple[str, str]:
    """Ask for the next generation of a queue; asked again it is the same run, resumed if it had ended without one.

    Parameters
    ----------
    num_labels : finished tasks at which it is due.
    after : it is wanted because this generation ran out (0: there was none yet), whatever the labels.
    num_entries : new tasks in it; default ``generation_size``.

    Returns
    -------
    the run's id, and what ``runs.submit`` says of it.
    """
    found = session.get_one(LabelQueue, queue_id)
    config = {
        "queue": queue_id,
        "num_labels": num_labels,
        "held_out_share": found.held_out_share,
        "num_entries": num_entries or generation_size(found.refresh_every),
        "strategy": found.strategy,
    }
    run, state = runs.submit(
        session,
        now=now,
        kind="query",
        dataset_id=found.dataset_id,
        version_id=found.version_id,
        config=config,
        idempotency_key=request_key(queue_id, num_labels=num_labels, after=after),
        requested_by=requested_by,
    )
    if state in ("new", "resumed"):
        # Until it is done, an annotator who finds nothing is told to wait, not that all is labelled.
        queues.await_model(session, queue_id=queue_id)
    return run.id, state


def _choose(unit: UnitContext) -> UnitResult:
    """Fit on the labels, measure on the held-out slice where gold labels exist, rank the pool."""
    config = unit.claim.config
    with unit.catalog.read() as session:
        found = session.get_one(LabelQueue, config["queue"])
        version = session.get_one(Version, unit.claim.version_id)
        labels = {one.record_id: one.value for one in queues.current_labels(session, queue_id=found.id)}
        now = unit.catalog.now(session)
        open_tasks = queues.unfinished(session, now=now, queue_id=found.id)
        taken = queues.taken_records(session, now=now, queue_id=found.id)
        schema = LabelSchema.from_json(found.schema)
        seed, strategy, generation = found.seed, found.strategy, found.generation
    records = curated.read_records(unit.store, version)
    vectors = curated.read_embeddings(unit.store, version)
    unit.progress(0, records.height)
    began = time.perf_counter()
    held_out = is_test(records["id"], config["held_out_share"], seed).to_numpy()
    labelled = records["id"].is_in(list(labels)).to_numpy()
    given = [labels[one] for one in records["id"].filter(pl.Series(labelled))]
    learner = _fit(vectors[labelled], given, schema, seed)
    begun = records["id"].is_in([one.record_id for one in open_tasks] + sorted(taken)).to_numpy()
    # A rehearsal's program can answer only what was ingested with a label.
    askable = records["label"].is_in(list(schema.names)).fill_null(value=False).to_numpy() | (not found.rehearsal)
    suspicion = None if found.rehearsal else _suspicion(unit, records, strategy)
    if suspicion is not None:
        # Whoever is asked for second opinions is asked about nothing else.
        askable &= ~np.isnan(suspicion)
    pool = np.flatnonzero(askable & ~labelled & ~held_out & ~begun)
    new = _entries(
        records,
        vectors,
        pool,
        labelled,
        given,
        learner,
        schema,
        strategy,
        config["num_entries"],
        seed + generation,
        suspicion,
    )
    entries = _with_open_tasks(records, new, queues.carried_over(open_tasks, config["num_entries"]))
    unit.progress(records.height, records.height)
    measured = _evaluate(records, vectors, held_out, learner, schema)
    seconds = time.perf_counter() - began

    def apply(session: Session, now: datetime) -> None:
        queues.publish_generation(
            session, now=now, queue_id=config["queue"], entries=entries, num_left=len(pool) - len(new)
        )
        if measured is not None:
            _record_round(session, config["queue"], strategy, len(labels), measured, seconds, now)

    return UnitResult(
        result={"num_labels": len(labels), "num_entries": len(entries), "pool": len(pool), "measured": measured},
        apply=apply,
    )


def _fit(vectors: np.ndarray[Any, Any], labels: list[str], schema: LabelSchema, seed: int) -> Learner | None:
    return Learner.fit(vectors, labels, schema.names, seed) if len(set(labels)) > 1 else None


def _suspicion(unit: UnitContext, records: pl.DataFrame, strategy: str) -> np.ndarray[Any, Any] | None:
    """Of each record how likely its label is wrong, NaN where it is not suspected; None if nobody asks."""
    if strategy != SECOND_OPINION:
        return None
    with unit.catalog.read() as session:
        found = suspects.suspicions(session, unit.claim.dataset_id)
    if found is None:
        return None
    return records.join(found, on="id", how="left", maintain_order="left")["suspicion"].to_numpy()


def _entries(
    records: pl.DataFrame,
    vectors: np.ndarray[Any, Any],
    pool: np.ndarray[Any, Any],
    labelled: np.ndarray[Any, Any],
    given: list[str],
    learner: Learner | None,
    schema: LabelSchema,
    strategy: str,
    num_entries: int,
    seed: int,
    suspicion: np.ndarray[Any, Any] | None,
) -> list[QueueEntry]:
    if not len(pool):
        return []
    # One copy: a million vectors are 1.5 GB.
    unlabelled, known = vectors[pool], vectors[labelled]
    members = cache(lambda: fit_committee(known, given, schema.names, seed))
    candidates = Candidates(
        embeddings=unlabelled,
        proba=learner.proba(unlabelled) if learner is not None else None,
        labelled_embeddings=known,
        classes=schema.names,
        suspicion=None if suspicion is None else suspicion[pool],
        labelled_codes=np.array([schema.names.index(one) for one in given], dtype=np.int64),
        labelled_proba=learner.proba(known) if learner is not None else None,
        # Fitted only if the strategy asks.
        committee=(lambda rows: np.stack([one.proba(unlabelled[rows]) for one in members()])) if learner else None,
    )
    chosen = choose(candidates, strategy, min(num_entries, len(pool)), np.random.default_rng(seed))
    rows = records[pool[chosen.indices]]
    return [
        QueueEntry(record_id=record_id, text=text, utility=float(utility), why=why)
        for record_id, text, utility, why in zip(rows["id"], rows["text"], chosen.utility, chosen.why, strict=True)
    ]


def _with_open_tasks(
    records: pl.DataFrame, new: list[QueueEntry], open_tasks: list[queues.Unfinished]
) -> list[QueueEntry]:
    """Half answered tasks first, so that the overlap is reached; what was only skipped last."""
    wanted = [one.record_id for one in open_tasks]
    rows = records.filter(pl.col("id").is_in(wanted))
    texts = dict(zip(rows["id"].to_list(), rows["text"].to_list(), strict=True))
    entries = [
        (
            one.is_answered,
            QueueEntry(record_id=one.record_id, text=texts[one.record_id], utility=one.utility, why=one.why),
        )
        for one in open_tasks
    ]
    return [one for answered, one in entries if answered] + new + [one for answered, one in entries if not answered]


def _evaluate(
    records: pl.DataFrame,
    vectors: np.ndarray[Any, Any],
    held_out: np.ndarray[Any, Any],
    learner: Learner | None,
    schema: LabelSchema,
) -> dict[str, float] | None:
    known = records["label"].is_in(list(schema.names)).fill_null(value=False).to_numpy() & held_out
    if learner is None or not known.any():
        return None
    return learner.evaluate(vectors[known], records["label"].filter(pl.Series(known)).to_list())


def _record_round(
    session: Session,
    queue_id: str,
    strategy: str,
    num_labels: int,
    measured: dict[str, float],
    seconds: float,
    now: datetime,
) -> None:
    rounds = session.scalars(
        select(LabelRound).where(LabelRound.queue_id == queue_id).order_by(LabelRound.round.desc())
    ).all()
    if rounds and rounds[0].num_labels == num_labels:
        # A generation that was asked for only because the last one ran out: the same model, the same point.
        return
    session.add(
        LabelRound(
            queue_id=queue_id,
            arm=strategy,
            round=len(rounds) + 1,
            num_labels=num_labels,
            num_examples=int(measured["n"]),
            accuracy=measured["accuracy"],
            accuracy_low=measured["low"],
            accuracy_high=measured["high"],
            macro_f1=measured["macro_f1"],
            seconds=seconds,
            created_at=now,
        )
    )


PIPELINES.register("query")(Pipeline(stages=(Stage(name="choose", plan=single, work=_choose),)))
