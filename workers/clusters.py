"""Reading back what a deduplication found: clusters, measured pairs, other thresholds."""

from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl
from sqlalchemy import ColumnElement, and_, exists, func, select
from sqlalchemy.orm import Session

from catalog.errors import NotFoundError
from catalog.store import Store, StoredFile
from catalog.tables.curation import DuplicatePair, SupersededPair
from catalog.tables.datasets import Dataset, Version
from catalog.tables.engine import Run
from curation.dedup.near import PAIR_SCHEMA
from curation.dedup.update import left_alone
from curation.dedup.whatif import Outcome, near_outcome
from workers import manifests, pii
from workers.edits import edited_files
from workers.index import rolled_back

KINDS = ("clean", "what_if", "dedup")
ALL_KINDS = ("exact", "near", "semantic")
EXPORT_ROWS = 100_000
CLUSTER_SCHEMA = {
    "cluster": pl.String,
    "record_id": pl.String,
    "kind": pl.String,
    "accepted": pl.Boolean,
    "jaccard": pl.Float64,
    "cosine": pl.Float64,
    "bands_shared": pl.Int64,
    "rule": pl.String,
    "record_text": pl.String,
    "record_source": pl.String,
    "record_line": pl.Int64,
    "keeper_text": pl.String,
    "keeper_source": pl.String,
    "keeper_line": pl.Int64,
}


def newest_run(session: Session, dataset: Dataset, *, measured: bool = False) -> Run:
    """The newest finished run over a dataset that looked for duplicates; with ``measured``, for near ones.

    Raises
    ------
    NotFoundError : there is none, with the command that makes one.
    """
    query = (
        select(Run)
        .where(Run.dataset_id == dataset.id, Run.kind.in_(KINDS), Run.state == "done")
        .order_by(Run.finished_at.desc(), Run.id)
    )
    back = rolled_back(session, dataset.id)
    for run in session.scalars(query):
        recipe = run.config["recipe"]
        wanted = recipe["near"] or (not measured and (recipe["exact"] or recipe.get("semantic")))
        if run.id not in back and wanted:
            return run
    looked_for = "near duplicates" if measured else "duplicates"
    raise NotFoundError(
        f"nobody has looked for {looked_for} in {dataset.name!r} yet; run `winnow dedup {dataset.name}`"
    )


def chain(run: Run) -> list[str]:
    """Runs whose pairs are in force after a run, by id, the oldest first; mostly it alone."""
    return [*run.config.get("chain", []), run.id]


def in_force(run: Run) -> ColumnElement[bool]:
    """Which rows of ``DuplicatePair`` hold after a run: its own, and of those that it builds on what it left alone."""
    runs = chain(run)
    if len(runs) == 1:
        return DuplicatePair.run_id == run.id
    superseded = exists().where(
        SupersededPair.run_id == DuplicatePair.run_id,
        SupersededPair.record_id == DuplicatePair.record_id,
        SupersededPair.by_run_id.in_(runs),
    )
    return and_(DuplicatePair.run_id.in_(runs), ~superseded)


def measured_pairs(session: Session, store: Store, run: Run) -> Iterator[pl.DataFrame]:
    """Every exact or near pair that was measured, accepted or not, a part at a time."""
    void = pl.DataFrame(schema={"id": pl.String, "pairs": pl.String})
    for one in reversed(chain(run)):
        for file in manifests.run_files(session, one, "pairs"):
            pairs = store.read_frame(file)
            yield left_alone(pairs, void, run.config["recipe"]["near"]["threshold"]) if void.height else pairs
        void = pl.concat([void, *(store.read_frame(file) for file in manifests.run_files(session, one, "void"))])


def biggest_clusters(
    session: Session, run: Run, limit: int, *, kinds: Sequence[str] = ALL_KINDS, accepted: bool = True
) -> list[tuple[str, int]]:
    """Keepers with the most records behind them, and how many.

    Parameters
    ----------
    kinds : of duplicates that count.
    accepted : False: those behind which records were only reported.
    """
    size = func.count().label("size")
    rows = session.execute(
        select(DuplicatePair.keeper_id, size)
        .where(in_force(run), DuplicatePair.accepted.is_(accepted), DuplicatePair.kind.in_(kinds))
        .group_by(DuplicatePair.keeper_id)
        .order_by(size.desc(), DuplicatePair.keeper_id)
        .limit(limit)
    )
    return [(row[0], row[1]) for row in rows]


def kinds_of(session: Session, run: Run, keepers: Sequence[str]) -> dict[str, list[str]]:
    """By which kinds of duplicate the records behind each keeper left, sorted."""
    rows = session.execute(
        select(DuplicatePair.keeper_id, DuplicatePair.kind)
        .where(in_force(run), DuplicatePair.accepted, DuplicatePair.keeper_id.in_(keepers))
        .distinct()
        .order_by(DuplicatePair.keeper_id, DuplicatePair.kind)
    )
    found: dict[str, list[str]] = {keeper: [] for keeper in keepers}
    for keeper, kind in rows:
        found[keeper].append(kind)
    return found


def what_if(session: Session, store: Store, run: Run, thresholds: list[float]) -> list[Outcome]:
    """What other thresholds would have done, from the stored pairs alone."""
    # An exact duplicate that followed its keeper shares no band with the record it stands behind.
    near = [part.filter(pl.col("bands_shared") > 0) for part in measured_pairs(session, store, run)]
    pairs = pl.concat(near) if near else pl.DataFrame(schema=PAIR_SCHEMA)
    return [near_outcome(pairs, threshold) for threshold in thresholds]


def texts_of(session: Session, store: Store, run: Run, ids: set[str]) -> dict[str, dict[str, Any]]:
    """Text as the run judged it, file and line of records, by id; ``DATASET:RECORD`` for one of another dataset.

    Personal data that the run found in its own records is masked: what it found is told, its texts are shown.
    """
    found: dict[str, dict[str, Any]] = {}
    spans = pii.spans_of(session, store, run, ids)
    edited = edited_files(session, run.id)
    place = -1
    for prefix, version in _versions(session, run):
        wanted = [one.removeprefix(prefix) for one in ids if one.startswith(prefix) and (prefix or ":" not in one)]
        for entry in manifests.read(store, version)["shards"]:
            place += 1
            if not wanted:
                continue
            file = edited.get(place, StoredFile.from_json(entry["data"]))
            frame = store.read_frame(file, ["id", "text", "source", "line"])
            for row in frame.filter(pl.col("id").is_in(wanted)).to_dicts():
                own = spans.get(prefix + row["id"], [])
                found[prefix + row["id"]] = row | {"text": pii.hide(row["text"], own)}
    return found


def _versions(session: Session, run: Run) -> list[tuple[str, Version]]:
    """The run's own version under no prefix, the others under theirs."""
    others = run.config.get("scope", {}).get("against", [])
    own = session.get_one(Version, run.version_id)
    return [("", own), *((f"{one['dataset']}:", session.get_one(Version, one["version"])) for one in others)]


def cluster_rows(session: Session, store: Store, run: Run) -> Iterator[pl.DataFrame]:
    """Every removed record with its keeper, both with text, file and line, as ``CLUSTER_SCHEMA``, many at a time.

    With them those that are only reported, by ``accepted``.
    """
    last = ""
    while True:
        pairs = session.scalars(
            select(DuplicatePair)
            .where(in_force(run), DuplicatePair.record_id > last)
            .order_by(DuplicatePair.record_id)
            .limit(EXPORT_ROWS)
        ).all()
        if not pairs:
            return
        last = pairs[-1].record_id
        texts = texts_of(session, store, run, {one.record_id for one in pairs} | {one.keeper_id for one in pairs})
        yield pl.DataFrame(
            [
                {
                    "cluster": one.keeper_id,
                    "record_id": one.record_id,
                    "kind": one.kind,
                    "accepted": one.accepted,
                    "jaccard": one.jaccard,
                    "cosine": one.cosine,
                    "bands_shared": one.bands_shared,
                    "rule": one.rule,
                    **{
                        f"{role}_{name}": texts[record][name]
                        for role, record in (("record", one.record_id), ("keeper", one.keeper_id))
                        for name in ("text", "source", "line")
                    },
                }
                for one in pairs
            ],
            schema=CLUSTER_SCHEMA,
        )
