"""Query: refit the labeling model on the labels so far and publish what to ask next."""

import time
import zlib
from datetime import datetime
from functools import cache
from typing import Any

import numpy as np
import polars as pl
from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog.tables.datasets import Dataset, Version
from catalog.tables.labeling import LabelGeneration, LabelQueue, LabelRound
from labeling import queue as queues
from labeling import relabels
from labeling.candidates import Candidates
from labeling.honesty import worth
from labeling.label_heads import LabelHeads
from labeling.learner import Learner, fit_committee
from labeling.mixing import random_why
from labeling.queue import QueueEntry
from labeling.schema import LabelSchema
from labeling.selection import choose
from labeling.shortlist import by_chance
from labeling.stopping import STOP_SET, compared, model_figures
from labeling.strategies.label_errors import SECOND_OPINION
from labeling.tagger import SpanModel
from labeling.tasks import canonical
from training.split import is_test
from workers import curated, label_events, model_scores, runs, suspects
from workers.engine import UnitResult
from workers.execution import UnitContext
from workers.pairs import served_texts
from workers.pipelines import PIPELINES, Pipeline, Stage, single
from workers.second_opinions import Again, in_order, opinions_of

NUM_ENTRIES = 200
"""New tasks in a generation at least: enough that no annotator waits for the model."""
MEASURED_ROWS = 20_000
"""Of what nobody was asked about, so many are looked at for the model's mean uncertainty."""
SCORED_TEXTS = 10_000
"""Of what nobody was asked about, a span model reads so many texts, drawn by chance; a million tokens take 20 s."""
MORE_LABELS = 1.1
"""How many times as many labels there must be before their worth is estimated anew."""
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
        "random_share": found.random_share,
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
        text_column = session.get_one(Dataset, version.dataset_id).text_column
        schema = LabelSchema.from_json(found.schema)
        answers = {one.record_id: one.value for one in queues.current_labels(session, queue_id=found.id)}
        arrivals = queues.arrivals(session, queue_id=found.id)
        figures_before = _figures(session, found.id)
        now = unit.catalog.now(session)
        asked_again = relabels.requested(session, queue_id=found.id)
        # Those are chosen anew, or finished as they are.
        unfinished = queues.unfinished(session, now=now, queue_id=found.id)
        open_tasks = [one for one in unfinished if one.record_id not in asked_again]
        opinions = opinions_of(session, found, schema, now)
        taken = queues.taken_records(session, now=now, queue_id=found.id)
        seed, strategy, generation = found.seed, found.strategy, found.generation
    records = curated.read_records(unit.store, version)
    records = records.with_columns(served=served_texts(unit.store, version, text_column, schema, records))
    vectors = curated.read_embeddings(unit.store, version)
    with unit.catalog.read() as session:
        scores = model_scores.newest_scores(session, unit.store, found, schema, records)
    unit.progress(0, records.height)
    began = time.perf_counter()
    held_out = is_test(records["id"], config["held_out_share"], seed).to_numpy()
    # A model learns classes; answers of other kinds only say what was asked about already.
    labels = {one: schema.class_of(value) for one, value in answers.items()} if schema.classes else {}
    labelled = records["id"].is_in(list(answers)).to_numpy()
    labelled_ids = records["id"].filter(pl.Series(labelled)).to_list()
    classes = [labels.get(one) for one in labelled_ids]
    learner = _fit(vectors[labelled], classes, schema, seed)
    spans = _fit_spans(
        records["served"].filter(pl.Series(labelled)), [answers[one] for one in labelled_ids], schema, seed
    )
    begun = records["id"].is_in([one.record_id for one in open_tasks] + sorted(taken)).to_numpy()
    # A rehearsal's program can answer only what was ingested with a label.
    askable = records["label"].is_in(list(schema.classes)).fill_null(value=False).to_numpy() | (not found.rehearsal)
    askable &= records["served"].is_not_null().to_numpy()
    suspicion = None if found.rehearsal else _suspicion(unit, records, strategy)
    if suspicion is not None:
        # Whoever is asked for second opinions is asked about nothing else.
        askable &= ~np.isnan(suspicion)
    pool = np.flatnonzero(askable & ~labelled & ~held_out & ~begun)
    if scores is not None and (
        learner is None or scores.known[pool].sum() < min(config["num_entries"], len(pool)) or not len(pool)
    ):
        # A first choice, or what was scored is used up: the queue's own head has looked at everything.
        scores = None
    again = Again.of(
        records["id"],
        askable & ~held_out,
        np.flatnonzero(labelled),
        vectors,
        classes,
        schema.classes,
        opinions,
        seed,
    )
    new, doubts = _entries(
        records,
        vectors,
        pool,
        labelled,
        [answers[one] for one in labelled_ids],
        classes,
        learner,
        spans,
        scores,
        schema,
        strategy,
        config["num_entries"],
        seed + generation,
        suspicion,
        config.get("random_share", 0.0),
        again,
        found.refresh_every,
    )
    num_new = sum(one.kind != relabels.KIND for one in new)
    figures = _measure(records, vectors, pool, labelled, classes, learner, schema, arrivals, figures_before, seed)
    if spans is not None:
        figures = _measure_spans(records, spans, doubts, figures_before)
    if scores is not None:
        figures = figures | {"model": scores.model}
    entries = _with_open_tasks(records, new, queues.carried_over(open_tasks, config["num_entries"]))
    unit.progress(records.height, records.height)
    measured = _evaluate(records, vectors, held_out, learner, schema)
    seconds = time.perf_counter() - began

    def apply(session: Session, now: datetime) -> None:
        generation = queues.publish_generation(
            session,
            now=now,
            queue_id=config["queue"],
            entries=entries,
            num_left=len(pool) - num_new,
            made_by=queues.MadeBy(strategy=strategy, num_labels=len(answers), figures=figures),
        )
        given = [label for label in classes if label is not None]
        model_scores.submit_if_newer(session, now=now, queue_id=config["queue"], labels=given)
        if learner is not None or spans is not None:
            told = {"generation": generation, "num_labels": len(answers)}
            label_events.refreshed(session, now=now, queue_id=config["queue"], **told)
        if measured is not None:
            _record_round(session, config["queue"], strategy, len(answers), measured, seconds, now)

    return UnitResult(
        result={
            "num_labels": len(answers),
            "num_entries": len(entries),
            "num_again": len(new) - num_new,
            "pool": len(pool),
            "measured": measured,
        },
        apply=apply,
    )


def _fit(vectors: np.ndarray[Any, Any], labels: list[str | None], schema: LabelSchema, seed: int) -> Learner | None:
    known = np.array([label is not None for label in labels], dtype=bool)
    given = [label for label in labels if label is not None]
    return Learner.fit(vectors[known], given, schema.classes, seed) if len(set(given)) > 1 else None


def _fit_spans(
    texts: pl.Series, answers: list[list[dict[str, Any]]], schema: LabelSchema, seed: int
) -> SpanModel | None:
    """None while nothing is marked anywhere: a model of that marks nothing, and is sure of it."""
    if schema.task != "spans" or not any(answers):
        return None
    overlapping = bool(getattr(schema.kind, "overlapping", False))
    return SpanModel.fit(texts.to_list(), answers, schema.names, seed, overlapping=overlapping)


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
    values: list[Any],
    given: list[str | None],
    learner: Learner | None,
    spans: SpanModel | None,
    scores: model_scores.Scores | None,
    schema: LabelSchema,
    strategy: str,
    num_entries: int,
    seed: int,
    suspicion: np.ndarray[Any, Any] | None,
    random_share: float,
    again: Again,
    most_again: int,
) -> tuple[list[QueueEntry], np.ndarray[Any, Any] | None]:
    """The tasks to ask, best first, and how sure a span model is of what it has read, in nats a token."""
    # Answered records are candidates only where one of them is to be asked about.
    if not len(pool) and not len(again.rows):
        return [], None
    codes = [schema.classes.index(one) for one in given if one is not None]
    looked, known_rows = pool, np.flatnonzero(labelled)
    members = cache(
        lambda: fit_committee(vectors[labelled], [schema.classes[one] for one in codes], schema.classes, seed)
    )
    doubts = None
    if spans is not None:
        size = min(num_entries, len(pool))
        looked = pool[np.sort(by_chance(len(pool), size, np.random.default_rng([seed, 2]), SCORED_TEXTS))]
        doubts = spans.mean_log_proba(records["served"][looked].to_list())
    elif scores is not None:
        looked = pool[scores.known[pool]]
        has_score = scores.known[known_rows]
        known_rows = known_rows[has_score]
        values = [value for value, one in zip(values, has_score, strict=True) if one]
        codes = [
            schema.classes.index(label)
            for label, one in zip(given, has_score, strict=True)
            if one and label is not None
        ]
    # One copy: a million vectors are 1.5 GB.
    rows = np.concatenate([looked, again.rows])
    asked, known = vectors[rows], vectors[known_rows]
    proba = _proba(scores, learner, looked, asked[: len(looked)])
    if proba is not None and len(again.rows):
        # A model that was fitted on an answer says the same.
        proba = np.concatenate([proba, again.proba])
    label_sets = _label_sets(values, schema)
    heads = None if label_sets is None else LabelHeads.fit(known, label_sets, seed)
    candidates = Candidates(
        embeddings=asked,
        proba=proba,
        labelled_embeddings=known,
        classes=schema.classes or schema.names,
        suspicion=None if suspicion is None else suspicion[rows],
        labelled_codes=np.array(codes, dtype=np.int64) if len(codes) == len(known) else None,
        label_proba=None if heads is None else heads.proba(asked),
        labelled_label_sets=label_sets,
        labelled_proba=_proba(scores, learner, known_rows, known),
        sequence_log_proba=doubts,
        # Fitted only if the strategy asks.
        committee=(lambda some: np.stack([one.proba(asked[some]) for one in members()])) if learner else None,
        answers=again.answers(len(looked)),
    )
    size = min(num_entries, len(pool) + int(again.is_open.sum()))
    chosen = choose(candidates, strategy, size, np.random.default_rng(seed))
    # Another stream of chance than the strategy's: its choice is the same with and without random tasks.
    chance = np.random.default_rng([seed, 1])
    places = np.concatenate([np.searchsorted(pool, looked), len(pool) + np.arange(len(again.rows))])
    order = in_order(places[chosen.indices].tolist(), len(pool), most_again, random_share, chance)
    asked_about = records[np.concatenate([pool, again.rows])[[row for row, _ in order]]]
    looked_at = {place: index for index, place in enumerate(places.tolist())}
    entries = []
    for (row, place), record_id, text in zip(order, asked_about["id"], asked_about["served"], strict=True):
        told = None if proba is None or row >= len(pool) or row not in looked_at else proba[looked_at[row]]
        entries.append(
            QueueEntry(
                record_id=record_id,
                text=text,
                utility=0.0 if place is None else float(chosen.utility[place]),
                why=random_why(strategy) if place is None else chosen.why[place],
                kind="random" if place is None else "chosen" if row < len(pool) else relabels.KIND,
                predicted=None if told is None else (schema.classes[int(told.argmax())], float(told.max())),
            )
        )
    return entries, doubts


def _proba(
    scores: model_scores.Scores | None,
    learner: Learner | None,
    rows: np.ndarray[Any, Any],
    vectors: np.ndarray[Any, Any],
) -> np.ndarray[Any, Any] | None:
    if scores is not None:
        return np.asarray(scores.proba[rows])
    return None if learner is None else learner.proba(vectors)


def _label_sets(values: list[Any], schema: LabelSchema) -> np.ndarray[Any, Any] | None:
    """Which labels each labelled record has, where an answer is any number of them and there is one."""
    if schema.task != "multi_label" or not values:
        return None
    return np.array([[name in value for name in schema.names] for value in values], dtype=bool)


def _figures(session: Session, queue_id: str) -> list[dict[str, Any]]:
    """What the last choices' models were like, oldest first."""
    query = select(LabelGeneration.figures).where(LabelGeneration.queue_id == queue_id)
    return list(reversed(session.scalars(query.order_by(LabelGeneration.generation.desc()).limit(20)).all()))


def _measure(
    records: pl.DataFrame,
    vectors: np.ndarray[Any, Any],
    pool: np.ndarray[Any, Any],
    labelled: np.ndarray[Any, Any],
    classes: list[str | None],
    learner: Learner | None,
    schema: LabelSchema,
    arrivals: dict[str, tuple[datetime, bool]],
    before: list[dict[str, Any]],
    seed: int,
) -> dict[str, Any]:
    """What this choice's model is worth, as far as it can be told."""
    if learner is None:
        return {}
    stop_set = records.with_row_index("row").sort("id").head(STOP_SET)["row"].to_numpy()
    predicted = learner.proba(vectors[stop_set]).argmax(axis=1)
    some = np.random.default_rng(seed).choice(pool, min(len(pool), MEASURED_ROWS), replace=False)
    earlier = next((one["stop_set"] for one in reversed(before) if one.get("stop_set")), None)
    figures = model_figures(learner.proba(vectors[some]), predicted, earlier)
    worths = [one["worth"] for one in before if one.get("worth")]
    known = [(row, label) for row, label in zip(np.flatnonzero(labelled), classes, strict=True) if label is not None]
    ids = records["id"]
    known = sorted((one for one in known if ids[int(one[0])] in arrivals), key=lambda one: arrivals[ids[int(one[0])]])
    if worths and len(known) < worths[-1]["num_labels"] * MORE_LABELS:
        # It costs forty fits, and says the same.
        return figures | {"worth": worths[-1]}
    rows = np.array([row for row, _ in known], dtype=np.int64)
    by_chance = np.array([arrivals[ids[int(row)]][1] for row in rows], dtype=bool)
    found = worth(vectors[rows], [label for _, label in known], by_chance, schema.classes, seed)
    return figures | {"worth": None if found is None else found.to_json()}


def _measure_spans(
    records: pl.DataFrame, spans: SpanModel, doubts: np.ndarray[Any, Any] | None, before: list[dict[str, Any]]
) -> dict[str, Any]:
    """How unsure the model is of what nobody was asked about, and how much it changed since the one before."""
    texts = records.sort("id").head(STOP_SET)["served"].fill_null("").to_list()
    predicted = np.array([zlib.crc32(canonical(one).encode()) for one in spans.predict(texts)], dtype=np.int64)
    earlier = next((one["stop_set"] for one in reversed(before) if one.get("stop_set")), None)
    unsure = 0.0 if doubts is None or not len(doubts) else float(1.0 - np.exp(doubts).mean())
    return compared(unsure, predicted, earlier)


def _with_open_tasks(
    records: pl.DataFrame, new: list[QueueEntry], open_tasks: list[queues.Unfinished]
) -> list[QueueEntry]:
    """Half answered tasks first, so that the overlap is reached; what was only skipped last."""
    wanted = [one.record_id for one in open_tasks]
    rows = records.filter(pl.col("id").is_in(wanted))
    texts = dict(zip(rows["id"].to_list(), rows["served"].to_list(), strict=True))
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
    known = records["label"].is_in(list(schema.classes)).fill_null(value=False).to_numpy() & held_out
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
