"""Labeling queues joined to what fills them: opening one asks for its first generation, answers ask for the next."""

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from catalog.database import Catalog
from catalog.errors import DataError
from catalog.tables.datasets import Dataset
from catalog.tables.engine import Run
from catalog.tables.labeling import LabelQueue, LabelTask
from labeling import queue as queues
from labeling.schema import LabelSchema
from workers import manifests
from workers.pipelines.query import NUM_ENTRIES, submit_query


def open_queue(
    catalog: Catalog,
    *,
    dataset: str,
    name: str,
    schema: LabelSchema,
    strategy: str,
    overlap: int = 1,
    lease_seconds: float | None = None,
    seed: int = 0,
    held_out_share: float = 0.0,
    refresh_every: int = 20,
    num_entries: int = NUM_ENTRIES,
    rehearsal: bool = False,
    requested_by: str | None = None,
) -> tuple[str, str]:
    """Create a queue over the newest curated version, with the encoder it was embedded by.

    Returns
    -------
    the queue's id, and the id of the run that chooses its first tasks.

    Raises
    ------
    NotFoundError : no such dataset or strategy, or nothing cleaned yet. DataError : no record stayed.
    ConflictError : the dataset has a queue of that name.
    """
    with catalog.write() as session:
        now = catalog.now(session)
        found = manifests.find_dataset(session, dataset)
        version = manifests.require_version(session, found, "curated")
        if version.num_records == 0:
            raise DataError(f"no record of {dataset!r} stayed after cleaning; loosen the recipe, then clean again")
        queue = queues.create_queue(
            session,
            now=now,
            name=name,
            dataset_id=found.id,
            version_id=version.id,
            schema=schema,
            strategy=strategy,
            encoder=version.summary["encoder"],
            overlap=overlap,
            lease_seconds=lease_seconds or catalog.settings.label_lease_seconds,
            seed=seed,
            held_out_share=held_out_share,
            refresh_every=refresh_every,
            rehearsal=rehearsal,
        )
        run_id = submit_query(
            session,
            now=now,
            queue_id=queue.id,
            num_labels=0,
            held_out_share=held_out_share,
            num_entries=num_entries,
            requested_by=requested_by,
        )
        return queue.id, run_id


def refresh_if_due(catalog: Catalog, queue_id: str) -> str | None:
    """Ask for a new generation when enough tasks were finished since the last. The queue never waits for it.

    Returns
    -------
    the run's id, or None when none is due.
    """
    with catalog.read() as session:
        # Nearly always nothing is due: then nobody must wait for a writer.
        queue = session.get_one(LabelQueue, queue_id)
        done = select(func.count()).where(LabelTask.queue_id == queue_id, LabelTask.done.is_(True))
        finished = session.scalar(done) or 0
        if finished < queue.refresh_every:
            return None
    try:
        with catalog.write() as session:
            queue = session.get_one(LabelQueue, queue_id)
            due = finished // queue.refresh_every * queue.refresh_every
            if due == 0 or _is_under_way(session, queue_id, due):
                return None
            return submit_query(
                session,
                now=catalog.now(session),
                queue_id=queue_id,
                num_labels=due,
                held_out_share=queue.held_out_share,
            )
    except IntegrityError:
        # Somebody else asked for the same generation in the same moment.
        return None


def _is_under_way(session: Session, queue_id: str, due: int) -> bool:
    newest = session.scalars(
        select(Run.config).where(Run.kind == "query", Run.dataset_id == _dataset_of(session, queue_id))
    )
    return any(config["queue"] == queue_id and config["num_labels"] >= due for config in newest)


def _dataset_of(session: Session, queue_id: str) -> str:
    return session.get_one(LabelQueue, queue_id).dataset_id


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
