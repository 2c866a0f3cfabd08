"""Deduplicate what came since the last time, against the index that was left then; merge that index; take it back.

An update is one unit: it holds the new records (at most ``dedup_rows``) and the old ones that they touch.
"""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from catalog.database import Catalog
from catalog.errors import ConflictError
from catalog.store import Store, StoredFile
from catalog.tables.curation import DuplicatePair, SupersededPair
from catalog.tables.datasets import Dataset, Version
from catalog.tables.engine import Run
from curation.dedup.index import Links, merged_better, merged_parts, pack, to_merge
from curation.dedup.update import Old, Update, match
from workers import clusters, manifests, runs
from workers import index as states
from workers.engine import UnitResult
from workers.execution import UnitContext
from workers.pipelines import PIPELINES, Pipeline, Stage, single
from workers.pipelines.dedup import ENTRIES_A_RECORD, PAIRS, recipe_of
from workers.pipelines.outputs import entries

SUPERSEDED = SupersededPair.metadata.tables["superseded_pairs"]
ID_BATCH = 5_000
READ_AGAIN = ("id", "text")
THREADS = 2
"""An update is the only unit of its run: it reads so many shards at a time, and computes on so many cores."""
PAIR_SCHEMA = {
    "run_id": pl.String,
    "record_id": pl.String,
    "keeper_id": pl.String,
    "kind": pl.String,
    "jaccard": pl.Float64,
    "bands_shared": pl.Int64,
    "accepted": pl.Boolean,
    "rule": pl.String,
}
CHANGE_SCHEMA = {"shard": pl.String, "row": pl.Int64, "kept": pl.Boolean}


class Shards:
    """Records of text shards by their row in an index."""

    def __init__(self, unit: UnitContext, shards: list[dict[str, Any]]) -> None:
        self.unit, self.shards = unit, shards
        self.bounds = np.cumsum([0, *(one["num_rows"] for one in shards)])

    def place(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Number of the shard, and the row in it, of each row."""
        shard = np.searchsorted(self.bounds, rows, side="right") - 1
        return shard, rows.astype(np.int64) - self.bounds[shard]

    def read(self, rows: np.ndarray, columns: Sequence[str]) -> pl.DataFrame:
        """``row`` and columns of sorted rows, in their order; some of the shards that have them at a time."""
        shard, places = self.place(rows)
        needed = np.unique(shard).tolist()

        def read(number: int) -> pl.DataFrame:
            self.unit.check()
            frame = self.unit.store.read_frame(StoredFile.from_json(self.shards[number]), list(columns))
            found: pl.DataFrame = frame[places[shard == number]]
            return found

        with ThreadPoolExecutor(THREADS) as pool:
            frames = list(pool.map(read, needed))
        schema = dict.fromkeys(columns, pl.String)
        found = pl.concat([pl.DataFrame(schema=schema), *frames])
        return found.select(pl.Series("row", rows, dtype=pl.UInt32), *columns)


def update(unit: UnitContext) -> UnitResult:
    """Match the shards that the base has not, and publish the version that a run over everything would publish."""
    config, store = unit.claim.config, unit.store
    near = recipe_of(unit).near
    assert near is not None
    state = store.read_json(StoredFile.from_json(config["base"]["file"]))
    present = {one["sha256"] for one in state["shards"]}
    shards = entries(unit)
    added = [one for one in shards if one["data"]["sha256"] not in present]
    unit.progress(0, sum(one["data"]["num_rows"] for one in added))
    files = [StoredFile.from_json(one["data"]) for one in added]
    records = pl.concat([store.read_frame(file, list(READ_AGAIN)) for file in files])
    before = Shards(unit, state["shards"])
    old = Old(
        texts=lambda rows: before.read(rows, READ_AGAIN),
        ids=lambda rows: before.read(rows, READ_AGAIN[:1]),
        left=lambda ids: _left(unit, ids).drop("run_id"),
    )
    found = match(records, states.open_index(store, state), old, near, threads=THREADS)
    unit.progress(records.height // 2, records.height)
    superseded = _left(unit, found.changed["id"])
    summary, sizes = _summary(unit, state, found, superseded, records)

    segment, segment_file = states.write_segment(store, found.segment)
    state_file = states.write_state(
        store,
        shards=[*state["shards"], *(one["data"] for one in added)],
        segments=[*state["segments"], segment],
        sizes=sizes,
    )
    gone = found.decided["record_id"].implode()
    selections = {
        entry["data"]["sha256"]: store.write_frame(selected(frame, gone), "selection")
        for entry, frame in zip(added, _cut(records, files), strict=True)
    }
    changes = store.write_frame(_changes(found, superseded, before), "amendment")
    base = _published(unit)
    selections |= {one["data"]["sha256"]: StoredFile.from_json(one["selection"]) for one in base["shards"]}
    deduplicated = [one | {"selection": selections[one["data"]["sha256"]].to_json()} for one in shards]
    manifest = manifests.write(
        store,
        unit.catalog,
        unit.claim.dataset_id,
        "deduplicated",
        deduplicated,
        amendments=[*base.get("amendments", []), changes.to_json()],
    )
    publish = manifests.publisher(
        unit.claim,
        manifest,
        kind="deduplicated",
        parent_id=unit.claim.version_id,
        entries=deduplicated,
        summary=summary,
        num_records=summary["kept"],
    )
    num_rows = [one["num_rows"] for one in [*state["segments"], segment]]

    def apply(session: Session, now: datetime) -> None:
        publish(session, now)
        if to_merge(num_rows):
            _ask_merge(session, now, unit, state_file)

    unit.progress(records.height, records.height)
    return UnitResult(
        result=summary,
        shards=[
            ("pairs", store.write_frame(found.pairs, "pairs")),
            ("void", store.write_frame(found.void, "void")),
            ("index_segment", segment_file),
            (states.STATE, state_file),
            ("amendment", changes),
        ],
        rows=[
            (PAIRS, found.decided.with_columns(run_id=pl.lit(unit.claim.run_id))),
            (SUPERSEDED, superseded.select("run_id", "record_id", by_run_id=pl.lit(unit.claim.run_id))),
        ],
        apply=apply,
    )


def selected(records: pl.DataFrame, gone: pl.Series) -> pl.DataFrame:
    """``id`` and ``row`` of those of one shard's records that stay."""
    rows = records.select("id").with_row_index("row").filter(~pl.col("id").is_in(gone))
    return rows.select("id", pl.col("row").cast(pl.Int64))


def _cut(records: pl.DataFrame, files: list[StoredFile]) -> list[pl.DataFrame]:
    """The records of each file."""
    ends = np.cumsum([0, *(file.num_rows for file in files)]).tolist()
    return [records.slice(start, file.num_rows) for start, file in zip(ends[:-1], files, strict=True)]


def _left(unit: UnitContext, ids: pl.Series) -> pl.DataFrame:
    """The pairs in force by which these records had left, as ``PAIRS``."""
    rows: list[tuple[Any, ...]] = []
    columns = [PAIRS.columns[name] for name in PAIR_SCHEMA]
    with unit.catalog.read() as session:
        holds = clusters.in_force(session.get_one(Run, unit.claim.config["base"]["run"]))
        for start in range(0, len(ids), ID_BATCH):
            some = ids.slice(start, ID_BATCH).to_list()
            query = select(*columns).where(holds, DuplicatePair.accepted, DuplicatePair.record_id.in_(some))
            rows += [tuple(row) for row in session.execute(query)]
    return pl.DataFrame(rows, schema=PAIR_SCHEMA, orient="row")


def _changes(found: Update, superseded: pl.DataFrame, before: Shards) -> pl.DataFrame:
    """Old records that leave now and did not, or stay now and had left; ``CHANGE_SCHEMA``."""
    marked = found.changed.with_columns(
        left=pl.col("id").is_in(superseded["record_id"].implode()),
        leaves=pl.col("id").is_in(found.decided["record_id"].implode()),
    ).filter(pl.col("left") != pl.col("leaves"))
    shard, row = before.place(marked["row"].to_numpy())
    names = [before.shards[number]["sha256"] for number in shard.tolist()]
    return pl.DataFrame({"shard": names, "row": row, "kept": ~marked["leaves"]}, schema=CHANGE_SCHEMA)


def _summary(
    unit: UnitContext, state: dict[str, Any], found: Update, superseded: pl.DataFrame, records: pl.DataFrame
) -> tuple[dict[str, Any], dict[int, int]]:
    """What the run found, as a run over everything would say it and for the new records alone; clusters by size."""
    change = pl.concat([superseded.select("keeper_id", by=-1), found.decided.select("keeper_id", by=1)])
    by_keeper = change.group_by("keeper_id").agg(pl.col("by").sum()).filter(pl.col("by") != 0)
    before = _sizes(unit, by_keeper["keeper_id"])
    sizes = Counter({int(size): number for size, number in state["sizes"].items()})
    for keeper, by in by_keeper.iter_rows():
        sizes[before.get(keeper, 0)] -= 1
        sizes[before.get(keeper, 0) + by] += 1
    sizes = Counter({size: number for size, number in sizes.items() if size and number})
    with unit.catalog.read() as session:
        result = session.get_one(Run, unit.claim.config["base"]["run"]).result or {}
    kinds = {
        f"{kind}_duplicates": result[f"{kind}_duplicates"]
        - (superseded["kind"] == kind).sum()
        + (found.decided["kind"] == kind).sum()
        for kind in ("exact", "near")
    }
    total = result["records"] + records.height
    left = found.decided.filter(pl.col("record_id").is_in(records["id"].implode()))
    summary = {
        "records": total,
        "kept": total - sum(kinds.values()),
        **kinds,
        "clusters": sum(sizes.values()),
        "biggest_cluster": max(sizes, default=0),
        "near": result["near"],
        "added": records.height,
        "added_duplicates": left.height,
        "of_earlier": (~left["keeper_id"].is_in(records["id"].implode())).sum(),
        "earlier_removed": found.decided.height - left.height - superseded.height,
        "read_again": found.num_read,
    }
    return summary, dict(sizes)


def _sizes(unit: UnitContext, keepers: pl.Series) -> dict[str, int]:
    """How many records stood behind each of these keepers."""
    found: dict[str, int] = {}
    with unit.catalog.read() as session:
        holds = clusters.in_force(session.get_one(Run, unit.claim.config["base"]["run"]))
        for start in range(0, len(keepers), ID_BATCH):
            some = keepers.slice(start, ID_BATCH).to_list()
            query = select(DuplicatePair.keeper_id, func.count()).where(holds, DuplicatePair.keeper_id.in_(some))
            found |= {row[0]: row[1] for row in session.execute(query.group_by(DuplicatePair.keeper_id))}
    return found


def _published(unit: UnitContext) -> dict[str, Any]:
    """The manifest of the version that the base published."""
    with unit.catalog.read() as session:
        version = session.scalars(select(Version).where(Version.run_id == unit.claim.config["base"]["run"])).one()
        return manifests.read(unit.store, version)


def kept_rows(store: Store, document: dict[str, Any], entry: dict[str, Any]) -> pl.Series:
    """Rows of one text shard of a deduplicated version that stay, in their order.

    Parameters
    ----------
    document : the version's manifest. entry : one of its shards.
    """
    rows = store.read_frame(StoredFile.from_json(entry["selection"]), ["row"])["row"]
    for file in document.get("amendments", []):
        changes = store.read_frame(StoredFile.from_json(file)).filter(pl.col("shard") == entry["data"]["sha256"])
        gone, back = changes.filter(~pl.col("kept"))["row"], changes.filter("kept")["row"]
        rows = pl.concat([rows.filter(~rows.is_in(gone.implode())), back])
    return rows.unique().sort()


def _ask_merge(session: Session, now: datetime, unit: UnitContext, state: StoredFile) -> None:
    config = {"of": unit.claim.run_id, "state": state.to_json(), "rows": unit.catalog.settings.dedup_rows}
    runs.submit(
        session,
        now=now,
        kind="merge",
        dataset_id=unit.claim.dataset_id,
        version_id=unit.claim.version_id,
        config=config,
        idempotency_key=f"merge {unit.claim.run_id}",
    )


def _merge(unit: UnitContext) -> UnitResult:
    """Write the last segments of an index as one, a part of the hashes at a time."""
    store = unit.store
    state = store.read_json(StoredFile.from_json(unit.claim.config["state"]))
    number = to_merge([one["num_rows"] for one in state["segments"]])
    old, new = state["segments"][:-number], state["segments"][-number:]
    segments = states.open_index(store, state).segments[-number:]
    num_rows = sum(one.num_rows for one in segments)
    num_entries = sum(len(hashes) for one in segments for hashes, _ in one.bands)
    num_parts = 1 + num_entries // (ENTRIES_A_RECORD * unit.claim.config["rows"])
    files: list[StoredFile] = []
    named: dict[str, list[dict[str, Any]]] = {}
    for kind, sources in (("band", [one.bands for one in segments]), ("exact", [one.exact for one in segments])):
        named[kind] = []
        for done, (hashes, rows) in enumerate(merged_parts(sources, num_parts)):
            packed = pack({f"{kind}_hashes": hashes, f"{kind}_rows": rows})
            files.append(store.write_bytes(packed, states.KIND, "arrow"))
            named[kind].append(files[-1].to_json())
            unit.progress(done, num_parts)
    few = states.few_arrays(
        better=merged_better([one.better for one in segments]),
        hot=np.unique(np.concatenate([one.hot for one in segments])),
    )
    few |= states.link_arrays("measured", _merged([part for one in segments for part in one.measured]))
    few |= states.link_arrays("similar", _merged([part for one in segments for part in one.similar]))
    sketches = np.concatenate([part for one in segments for _, part in one.sketches])
    rest = store.write_bytes(pack({"sketches": sketches.ravel(), **few}), states.KIND, "arrow")
    first_row = new[0]["first_row"]
    merged = {
        "first_row": first_row,
        "num_rows": num_rows,
        "bands": named["band"],
        "exact": named["exact"],
        "sketches": [[first_row, rest.to_json()]],
        "measured": [rest.to_json()],
        "similar": [rest.to_json()],
        "few": rest.to_json(),
    }
    file = states.write_state(
        store,
        shards=state["shards"],
        segments=[*old, merged],
        sizes={int(size): number for size, number in state["sizes"].items()},
    )
    return UnitResult(
        result={"merged": number, "segments": len(old) + 1, "rows": num_rows},
        shards=[*(("index_segment", one) for one in [*files, rest]), (states.STATE, file)],
    )


def _merged(links: list[Links]) -> Links:
    return Links.between([(one.roots, one.members) for one in links])


def submit_rollback(catalog: Catalog, *, dataset: str, requested_by: str | None = None) -> tuple[str, str]:
    """Ask for the newest update of a dataset's deduplication to be taken back: what was before is in force again.

    The records stay ingested; the next deduplication matches them again.

    Returns
    -------
    the run's id and ``"new"``, ``"running"``, ``"resumed"`` or ``"done"``.

    Raises
    ------
    NotFoundError : no such dataset, or never deduplicated. ConflictError : the newest deduplication is not an update.
    """
    with catalog.write() as session:
        found = manifests.find_dataset(session, dataset)
        newest = manifests.require_version(session, found, "deduplicated")
        run = states.behind(session, session.get_one(Run, newest.run_id))
        base = run.config.get("base")
        if base is None:
            raise ConflictError(
                f"the newest deduplication of {dataset!r} (run {run.id[:8]}) looked at everything and updated nothing "
                "earlier; there is nothing to take back"
            )
        asked, state = runs.submit(
            session,
            now=catalog.now(session),
            kind="rollback",
            dataset_id=found.id,
            version_id=newest.id,
            config={"of": run.id, "to": base["run"]},
            idempotency_key=f"rollback {run.id}",
            requested_by=requested_by,
        )
        return asked.id, state


def _rollback(unit: UnitContext) -> UnitResult:
    """Publish again what the run before published."""
    with unit.catalog.read() as session:
        version = session.scalars(select(Version).where(Version.run_id == unit.claim.config["to"])).one()
        document = manifests.read(unit.store, version)
        file = StoredFile(name=version.manifest_name, sha256=version.manifest_sha256, size_bytes=0)
        summary, num_records, parent_id = version.summary, version.num_records, version.parent_id
    publish = manifests.publisher(
        unit.claim,
        file,
        kind="deduplicated",
        parent_id=parent_id,
        entries=document["shards"],
        summary=summary,
        num_records=num_records,
    )

    def apply(session: Session, now: datetime) -> None:
        # Locked: an update that is about to be published upon what is taken back must not come between.
        session.execute(select(Dataset.id).where(Dataset.id == unit.claim.dataset_id).with_for_update(key_share=True))
        newest = manifests.latest_version(session, unit.claim.dataset_id, "deduplicated")
        if newest is None or newest.id != unit.claim.version_id:
            raise ConflictError("another deduplication was published meanwhile; look at it, then take that back")
        publish(session, now)

    return UnitResult(result=summary, apply=apply)


PIPELINES.register("merge")(Pipeline(stages=(Stage(name="merge", plan=single, work=_merge),)))
PIPELINES.register("rollback")(Pipeline(stages=(Stage(name="rollback", plan=single, work=_rollback),)))
