"""Reading back what was learned about difficulty, by record and by measure."""

import logging
from typing import Any

import polars as pl
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from catalog.errors import ConfigError, DataError, NotFoundError, nearest
from catalog.store import Store, StoredFile
from catalog.tables.datasets import Shard, Version
from catalog.tables.engine import Run, Unit
from workers import manifests
from workers.pretraining import trained_arm

log = logging.getLogger(__name__)

LOSSES = "losses of "
"""What a difficulty is called that goes by the losses of a training's arm, before ``RUN/ARM``."""
MOST_ARMS = 20
"""Losses of so many arms, the newest, are looked through for one record: each is a file that is read."""
COMBINED = "combined"
"""The mean percentile of the recipe's parts, which a curated version always has."""
MIDDLE = 0.5
"""Difficulty of a record that a measure says nothing of: neither easy nor hard."""


def newest_run(session: Session, version_id: str) -> Run | None:
    """The newest finished run over this version, or None."""
    return session.scalars(
        select(Run)
        .where(Run.version_id == version_id, Run.kind == "difficulty", Run.state == "done")
        .order_by(Run.finished_at.desc(), Run.id)
        .limit(1)
    ).one_or_none()


def table(session: Session, store: Store, run: Run) -> pl.DataFrame:
    """All that a run measured, a row a record of the version: values, ``…_rank`` percentiles, ``region``."""
    (file,) = manifests.run_files(session, run.id, "difficulty")
    return store.read_frame(file)


def of_record(session: Session, store: Store, version_id: str, record_id: str) -> dict[str, Any] | None:
    """A record's own row, without what says nothing of it; None where nobody has measured."""
    run = newest_run(session, version_id)
    if run is None:
        return None
    rows = table(session, store, run).filter(pl.col("id") == record_id)
    if rows.is_empty():
        return None
    return {name: value for name, value in rows.drop("id").row(0, named=True).items() if value is not None}


def losses_of_record(session: Session, store: Store, dataset_id: str, record_id: str) -> dict[str, Any] | None:
    """What a record cost the arms of trainings that kept losses (``record_losses``), of the newest ``MOST_ARMS`` arms.

    Of each, only the last loss is kept, so there is none of earlier steps.

    Returns
    -------
    ``arms``, a row for each that drew the record: ``run``, ``arm``, ``steps`` that it was trained for, ``loss`` (nats)
    when it drew the record last, ``percentile`` of that among the ``num_drawn`` records that it drew, 1 being highest,
    and the ``difficulty`` that the record was said to have.
    ``never_drew``, how many of the arms did not: they held it out, or ended before.
    ``not_read``, how many older arms kept losses too.
    None where no training kept any.
    """
    from curation.difficulty import ranked

    kept = (
        select(Shard, Unit)
        .join(Unit, Unit.id == Shard.unit_id)
        .join(Run, Run.id == Shard.run_id)
        .where(Run.dataset_id == dataset_id, Run.kind == "train", Shard.kind == "record_losses")
    )
    total = session.scalar(select(func.count()).select_from(kept.subquery())) or 0
    if not total:
        return None
    newest = kept.order_by(Run.created_at.desc(), Run.id, Unit.position, Shard.position).limit(MOST_ARMS)
    arms = []
    for shard, unit in session.execute(newest):
        drawn = store.read_frame(manifests.stored(shard), ["id", "difficulty", "loss"])
        own = drawn.with_columns(percentile=ranked(drawn["loss"])).filter(pl.col("id") == record_id)
        if not own.is_empty():
            told = {"run": unit.run_id, "arm": unit.payload["arm"], "steps": (unit.result or {}).get("steps")}
            arms.append(told | own.drop("id").row(0, named=True) | {"num_drawn": drawn.height})
    num_read = min(total, MOST_ARMS)
    return {"arms": arms, "never_drew": num_read - len(arms), "not_read": total - num_read}


def source_of(session: Session, store: Store, version: Version, name: str) -> str | None:
    """Where a difficulty of that name lies: the id of the run that measured it; None if the version has it itself.

    Raises
    ------
    ConfigError : losses are asked for of an arm that kept none, or its name is none.
    NotFoundError : nobody has measured it; the message has the nearest that was, and the commands that measure.
    """
    if name.startswith(LOSSES):
        _losses(session, name)
        return trained_arm(session, name.removeprefix(LOSSES), of=f"difficulty={name!r}").run_id
    entry = manifests.read(store, version)["shards"][0]
    parts = store.read_frame(StoredFile.from_json(entry["selection"])).columns[2:]
    own = [part for part in parts if part != "difficulty"]
    if name == COMBINED or name in own:
        return None
    run = newest_run(session, version.id)
    measured = list((run.result or {}).get("measures", [])) if run is not None else []
    if run is not None and name in measured:
        return run.id
    raise NotFoundError(
        f"difficulty {name!r} was not measured of this version; {nearest(name, [COMBINED, *own, *measured])}. Parts of "
        "the cleaning recipe are measured by `winnow clean`, learned ones by `winnow difficulty`; "
        f"{LOSSES}RUN/ARM takes the losses that a training kept"
    )


def _losses(session: Session, name: str) -> StoredFile:
    """What ``losses of RUN/ARM`` names: the last loss of each record that the arm drew."""
    unit = trained_arm(session, name.removeprefix(LOSSES), of=f"difficulty={name!r}")
    files = manifests.unit_files(session, unit.id, "record_losses")
    if not files:
        raise ConfigError(
            f"difficulty={name!r}: arm {unit.payload['arm']!r} kept no losses; train it with record_losses: last"
        )
    return files[0]


def _by_losses(session: Session, store: Store, name: str, ids: pl.DataFrame) -> pl.DataFrame:
    """The percentile of each record's loss among those that there are of the version, null for the others."""
    from curation.difficulty import ranked

    losses = store.read_frame(_losses(session, name), ["id", "loss"])
    found = ids.join(losses, on="id", how="left", maintain_order="left")
    known = found["loss"].is_not_null().sum()
    if not known:
        raise DataError(
            f"difficulty={name!r}: none of {losses.height:,} records with a loss is among the version's "
            f"{ids.height:,}; name a training of the same records"
        )
    log.info("%s: %d of %d records have one, the others count as neither easy nor hard", name, known, ids.height)
    return found.select("id", difficulty=ranked(found["loss"]))


def chosen(session: Session, store: Store, version: Version, name: str, run_id: str | None) -> pl.DataFrame:
    """``id`` and ``difficulty`` in [0, 1] of every record by one measure, ``MIDDLE`` where it has none.

    Parameters
    ----------
    run_id : as of ``source_of``.

    Raises
    ------
    DataError : losses are asked for, and no record of the version has one.
    """
    if name.startswith(LOSSES):
        files = [StoredFile.from_json(entry["selection"]) for entry in manifests.read(store, version)["shards"]]
        frame = _by_losses(session, store, name, pl.concat([store.read_frame(file, ["id"]) for file in files]))
    elif run_id is not None:
        frame = table(session, store, session.get_one(Run, run_id)).select("id", difficulty=f"{name}_rank")
    else:
        column = "difficulty" if name == COMBINED else name
        files = [StoredFile.from_json(entry["selection"]) for entry in manifests.read(store, version)["shards"]]
        frame = pl.concat([store.read_frame(file, ["id", column]).rename({column: "difficulty"}) for file in files])
    return frame.with_columns(pl.col("difficulty").fill_null(MIDDLE))
