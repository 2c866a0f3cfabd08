"""Deduplicate: stages whose units hold a bounded number of records, and which only the store and the database join.

sign (a group of shards) → exact (a range of hashes) → bucket (a range of band hashes) → connect (all) →
route (a group) → verify (a part) → settle (a group)

What one stage hands to the next lies in files with a part for each unit of the next. ``curation.dedup.stages`` has the
reason why a part gives what the whole would give. The clean pipeline has these stages in its middle.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import polars as pl
import xxhash
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from catalog.errors import ConfigError
from catalog.store import StoredFile
from catalog.tables.curation import DuplicatePair
from catalog.tables.datasets import Shard, Version
from catalog.tables.engine import Run, Unit
from curation.dedup.config import NearConfig
from curation.dedup.exact import find_exact_duplicates
from curation.dedup.index import Links, exact_prefix, pack, sorted_entries
from curation.dedup.keeper import keeper_order
from curation.dedup.near import find_near_duplicates
from curation.dedup.stages import (
    band_entries,
    bucket_links,
    divide,
    exact_pairs,
    follow,
    hash_part,
    hex_part,
    join,
    near_pairs,
    split,
)
from curation.recipe import Recipe, recipe_from_canonical
from curation.verdicts import rule_verdicts
from workers import manifests
from workers.edits import edited_files
from workers.engine import UnitResult
from workers.execution import UnitContext
from workers.index import link_arrays
from workers.pipelines import Stage
from workers.pipelines.outputs import entries, outputs

ENTRIES_A_RECORD = 8
"""A band entry is so much smaller than a record that this many take a record's room."""
PAIRS = DuplicatePair.metadata.tables["duplicate_pairs"]
KEY_COLUMNS = ["row", "id", "exact_hash", "length", "quality"]
STORED_BYTES = 400
"""Stored bytes of a text that take as much room as a short record: its shingles are as many as its characters."""
REMOVED_SCHEMA = {"row": pl.Int64, "id": pl.String, "keeper_id": pl.String, "kind": pl.String}
FOLLOWER_SCHEMA = {"record_id": pl.String, "keeper_id": pl.String, "row": pl.Int64}


def unit_rows(session: Session, versions: Sequence[Version], dedup_rows: int) -> int:
    """Records that a unit holds at a time: ``dedup_rows`` short ones, fewer the longer the datasets' texts are."""
    datasets = {one.dataset_id for one in versions}
    query = select(func.sum(Shard.size_bytes), func.sum(Shard.num_rows))
    stored, rows = session.execute(query.where(Shard.dataset_id.in_(datasets), Shard.kind == "text")).one()
    return max(1, round(dedup_rows / (1 + (stored or 0) / max(1, rows or 0) / STORED_BYTES)))


def layout(versions: Sequence[Version], recipe: Recipe, dedup_rows: int) -> dict[str, int]:
    """How a run over a version, and others that it is compared with, is cut into units.

    Results do not depend on it, so it is no part of what makes two runs the same.

    Parameters
    ----------
    dedup_rows : records that a unit holds at a time (``unit_rows``).
    """
    bands = recipe.near.bands if recipe.near is not None else 0
    num_records = sum(one.num_records for one in versions)
    num_shards = sum(one.num_shards for one in versions)
    some = min(1, num_records)
    group_shards = max(1, dedup_rows // max(1, num_records // max(1, num_shards)))
    return {
        "num_records": num_records,
        "num_shards": num_shards,
        "rows": dedup_rows,
        "group_shards": group_shards,
        "groups": -(-num_shards // group_shards),
        "exact_parts": some + num_records // (4 * dedup_rows),
        "band_parts": some + num_records * bands // (ENTRIES_A_RECORD * dedup_rows),
    }


def asked_scope(
    session: Session, dataset: str, *, against: Sequence[str], per_source: bool = False, within: bool = True
) -> tuple[dict[str, Any], list[Version]]:
    """What a run compares its records with, as its config keeps it, and the versions of the other datasets.

    Raises
    ------
    NotFoundError : no such dataset, or nothing ingested. ConfigError : nothing to compare with, or with itself.
    """
    if dataset in against:
        raise ConfigError(f"{dataset!r} is compared with itself anyway; name other datasets")
    if not within and not against:
        raise ConfigError("neither within the dataset nor against others: there is nothing to compare with")
    if per_source and against:
        raise ConfigError("per source, nothing is compared with other datasets; leave out one of the two")
    others = {
        name: manifests.require_version(session, manifests.find_dataset(session, name), "raw")
        for name in sorted(set(against))
    }
    named = [{"dataset": name, "version": one.id} for name, one in others.items()]
    return {"against": named, "per_source": per_source, "within": within}, list(others.values())


def plan_measure(_session: Session, run: Run) -> list[dict[str, Any]]:
    """One unit a text shard, by its place in ``all_shards``."""
    return [{"index": index} for index in range(run.config["layout"]["num_shards"])]


def _wants(run: Run, *names: str) -> bool:
    return any(run.config["recipe"][name] for name in names)


def _count(key: str, name: str, *wanted: str) -> Any:
    """A plan of as many units as the layout says, none when the recipe does not ask for it."""

    def plan(_session: Session, run: Run) -> list[dict[str, Any]]:
        number = run.config["layout"][key] if _wants(run, *wanted) else 0
        return [{name: index} for index in range(number)]

    return plan


def _plan_connect(_session: Session, run: Run) -> list[dict[str, Any]]:
    return [{}] if _wants(run, "near") and run.config["layout"]["groups"] else []


def _plan_route(_session: Session, run: Run) -> list[dict[str, Any]]:
    groups = run.config["layout"]["groups"] if _wants(run, "near") else 0
    exact = run.config["layout"]["exact_parts"] if _wants(run, "exact") else 0
    return [*({"group": index} for index in range(groups)), *({"exact": index} for index in range(exact))]


def _plan_verify(session: Session, run: Run) -> list[dict[str, Any]]:
    connected = session.scalars(select(Unit.result).where(Unit.run_id == run.id, Unit.stage_name == "connect")).first()
    return [{"part": index} for index in range(connected["parts"] if connected else 0)]


def recipe_of(unit: UnitContext) -> Recipe:
    """The recipe that the run goes by."""
    return recipe_from_canonical(unit.claim.config["recipe"])


def _layout(unit: UnitContext) -> dict[str, int]:
    found: dict[str, int] = unit.claim.config["layout"]
    return found


def _indexed(unit: UnitContext) -> bool:
    """Whether what is found becomes the first segment of an index."""
    return bool(unit.claim.config.get("indexed"))


def _scope(unit: UnitContext) -> dict[str, Any]:
    found: dict[str, Any] = unit.claim.config["scope"]
    return found


def all_shards(unit: UnitContext) -> list[dict[str, Any]]:
    """``ingested_shards``, each with the texts that the recipe's edits left."""
    shards = ingested_shards(unit)
    with unit.catalog.read() as session:
        edited = edited_files(session, unit.claim.run_id)
    return [one | ({"data": edited[place].to_json()} if place in edited else {}) for place, one in enumerate(shards)]


def ingested_shards(unit: UnitContext) -> list[dict[str, Any]]:
    """The shards of the run's version, then those of the versions it is compared with, marked by their dataset."""
    shards = entries(unit)
    for other in _scope(unit)["against"]:
        with unit.catalog.read() as session:
            version = session.get_one(Version, other["version"])
            shards += [one | {"of": other["dataset"]} for one in manifests.read(unit.store, version)["shards"]]
    return shards


def _bounds(unit: UnitContext) -> list[int]:
    """Number of the first row of each text shard, and of all rows."""
    return [0, *accumulate(one["data"]["num_rows"] for one in all_shards(unit))]


def _group_bounds(unit: UnitContext) -> np.ndarray:
    """(groups + 1,) number of the first row of each group, and of all rows."""
    bounds = _bounds(unit)
    step = _layout(unit)["group_shards"]
    return np.array([*bounds[:-1:step], bounds[-1]])


def group_rows(unit: UnitContext) -> list[int]:
    """Number of rows of each group."""
    return [int(number) for number in np.diff(_group_bounds(unit))]


def _read_group(unit: UnitContext, group: int, *, texts: bool) -> pl.DataFrame:
    """``row, id, exact_hash, length, quality, scope`` and, if asked for, ``text`` of a group's records.

    A record of another dataset has infinite quality, so that it never leaves, and its dataset before its id.
    """
    recipe, step = recipe_of(unit), _layout(unit)["group_shards"]
    shards = all_shards(unit)[group * step : (group + 1) * step]
    measured = outputs(unit, "measure", "measured")[group * step : (group + 1) * step]
    frames = []
    for shard, file in zip(shards, measured, strict=True):
        values = unit.store.read_frame(file)
        frame = values.select("id", "exact_hash", length="num_chars").with_columns(
            quality=rule_verdicts(values, recipe)["kept"].cast(pl.Float64), scope=pl.lit(0, pl.UInt64)
        )
        if _scope(unit)["per_source"]:
            source = xxhash.xxh3_64_intdigest(shard["sha256"].encode())
            frame = frame.with_columns(
                pl.format("{}/{}", "exact_hash", pl.lit(shard["sha256"])), scope=pl.lit(source, pl.UInt64)
            )
        if "of" in shard:
            frame = frame.with_columns(
                pl.format("{}:{}", pl.lit(shard["of"]), "id").alias("id"), quality=pl.lit(np.inf)
            )
        if texts:
            data = unit.store.read_frame(StoredFile.from_json(shard["data"]), ["text"])
            frame = frame.with_columns(data["text"])
        frames.append(frame)
        unit.check()
    first = int(_group_bounds(unit)[group])
    return pl.concat(frames).with_row_index("row", first).with_columns(pl.col("row").cast(pl.Int64))


def _sign(unit: UnitContext) -> UnitResult:
    """Keys for exact duplicates and band entries for near ones, each by range of hash."""
    recipe, plan = recipe_of(unit), _layout(unit)
    records = _read_group(unit, unit.claim.payload["group"], texts=True)
    unit.progress(0, records.height)
    shards = []
    if recipe.exact:
        parts = hex_part(records["exact_hash"], plan["exact_parts"])
        keys = split(records.select(KEY_COLUMNS), parts, plan["exact_parts"])
        shards.append(("keys", unit.store.write_parts(keys, "keys")))
    unit.progress(records.height // 4, records.height)
    if recipe.near is not None:
        # Where equal records do not remove each other, each must find its own near ones.
        found = band_entries(records, recipe.near, exact=recipe.exact and _scope(unit)["within"])
        unit.progress(records.height // 2, records.height)
        by_hash = split(found, hash_part(found["hash"].to_numpy(), plan["band_parts"]), plan["band_parts"])
        shards.append(("bands", unit.store.write_parts(by_hash, "bands")))
        if _indexed(unit):
            sketches = np.zeros((records.height, 2), dtype=np.uint64)
            first_bands = found.gather_every(recipe.near.bands)
            rows = first_bands["row"].to_numpy() - records["row"][0]
            sketches[rows] = first_bands.select("sketch_low", "sketch_high").to_numpy()
            packed = pack({"sketches": sketches.ravel()})
            shards.append(("index_sketches", unit.store.write_bytes(packed, "index", "arrow")))
    unit.progress(records.height, records.height)
    return UnitResult(result={"records": records.height}, shards=shards)


def _read_parts(unit: UnitContext, stage: str, kind: str, part: int) -> pl.DataFrame:
    frames = []
    for file in outputs(unit, stage, kind):
        frames.append(unit.store.read_part(file, part))
        unit.check()
    return pl.concat(frames)


def _exact(unit: UnitContext) -> UnitResult:
    """Records whose normalized text a better record has, among those of one range of hashes."""
    keys = _read_parts(unit, "sign", "keys", unit.claim.payload["exact"])
    unit.progress(0, keys.height)
    pairs = find_exact_duplicates(
        keys["id"],
        keys["exact_hash"],
        length=keys["length"],
        quality=keys["quality"],
        within=_scope(unit)["within"],
    )
    rows = keys.select("id", "row")
    numbered = pairs.join(rows.rename({"id": "record_id"}), on="record_id", maintain_order="left").join(
        rows.rename({"id": "keeper_id", "row": "keeper_row"}), on="keeper_id", maintain_order="left"
    )
    unit.progress(keys.height, keys.height)
    shards = [("exact", unit.store.write_frame(numbered, "exact"))]
    result: dict[str, Any] = {"pairs": pairs.height}
    if _indexed(unit):
        ranked = keys[keeper_order(keys["id"], keys["length"], keys["quality"])["row"]]
        hashes, entered = sorted_entries(exact_prefix(ranked["exact_hash"]), ranked["row"].to_numpy())
        packed = pack({"exact_hashes": hashes, "exact_rows": entered})
        shards.append(("index_exact", unit.store.write_bytes(packed, "index", "arrow")))
        # Two texts with one half of a hash cannot be told apart in it.
        result["ambiguous"] = ranked["exact_hash"].n_unique() - len(np.unique(hashes))
    return UnitResult(result=result, shards=shards)


def _bucket(unit: UnitContext) -> UnitResult:
    """Which rows have a pair worth measuring in one range of band hashes."""
    near = recipe_of(unit).near
    assert near is not None
    gone = np.zeros(_layout(unit)["num_records"], dtype=np.bool_)
    for file in outputs(unit, "exact", "exact"):
        gone[unit.store.read_frame(file, ["row"])["row"].to_numpy()] = True
    found = _read_parts(unit, "sign", "bands", unit.claim.payload["bands"])
    unit.progress(0, found.height)
    found = found.filter(~gone[found["row"].to_numpy()])
    links, hot = bucket_links(found, near)
    unit.progress(found.height, found.height)
    shards = [
        ("links", unit.store.write_frame(links, "links")),
        ("hot", unit.store.write_frame(pl.DataFrame({"hash": hot}, schema={"hash": pl.UInt64}), "hot")),
    ]
    if _indexed(unit):
        hashes, rows = sorted_entries(found["hash"].to_numpy(), found["row"].to_numpy())
        packed = pack({"band_hashes": hashes, "band_rows": rows})
        shards.append(("index_bands", unit.store.write_bytes(packed, "index", "arrow")))
    return UnitResult(result={"links": links.height, "hot": len(hot)}, shards=shards)


def _connect(unit: UnitContext) -> UnitResult:
    """Put connected rows into parts, each of which is then deduplicated by itself."""
    plan = _layout(unit)
    files = outputs(unit, "bucket", "links")

    def links() -> Any:
        for index, file in enumerate(files):
            unit.progress(index, len(files))
            yield unit.store.read_frame(file)

    parents = join(plan["num_records"], links())
    parts, number = divide(parents, plan["rows"])
    bounds = _group_bounds(unit)
    by_group = [pl.DataFrame({"part": parts[start:end]}) for start, end in pairwise(bounds)]
    unit.progress(len(files), len(files))
    shards = [("parts", unit.store.write_parts(by_group, "parts"))]
    linked = int((parts > 0).sum())
    if _indexed(unit):
        rows = np.flatnonzero(parts).astype(np.uint32)
        measured = pack(link_arrays("measured", Links.labelled(rows, parents[rows])))
        shards.append(("index_measured", unit.store.write_bytes(measured, "index", "arrow")))
    return UnitResult(result={"parts": number, "linked": linked}, shards=shards)


def _num_parts(unit: UnitContext) -> int:
    with unit.catalog.read() as session:
        run = session.get_one(Run, unit.claim.run_id)
        return len(_plan_verify(session, run))


def _by_group(unit: UnitContext, removed: pl.DataFrame) -> StoredFile:
    """Removed records in a part for each group."""
    bounds = _group_bounds(unit)
    groups = np.searchsorted(bounds, removed["row"].to_numpy(), side="right") - 1
    return unit.store.write_parts(split(removed.select(list(REMOVED_SCHEMA)), groups, len(bounds) - 1), "removed")


def _route(unit: UnitContext) -> UnitResult:
    """Bring texts, and exact duplicates of linked records, to the parts that decide about them."""
    if "exact" in unit.claim.payload:
        return _route_exact(unit)
    number, group = _num_parts(unit), unit.claim.payload["group"]
    if not number:
        return UnitResult(result={"records": 0})
    (file,) = outputs(unit, "connect", "parts")
    parts = unit.store.read_part(file, group)["part"]
    records = _read_group(unit, group, texts=True).with_columns(parts).filter(pl.col("part") > 0)
    unit.progress(0, records.height)
    columns = records.select("row", "id", "text", "quality", "scope")
    routed = split(columns, records["part"].to_numpy().astype(np.int64) - 1, number)
    stored = unit.store.write_parts(routed, "routed")
    unit.progress(records.height, records.height)
    return UnitResult(result={"records": records.height}, shards=[("routed", stored)])


def _route_exact(unit: UnitContext) -> UnitResult:
    pairs = unit.store.read_frame(outputs(unit, "exact", "exact")[unit.claim.payload["exact"]])
    number = _num_parts(unit)
    part = np.zeros(pairs.height, dtype=np.int64)
    if number:
        (file,) = outputs(unit, "connect", "parts")
        part = unit.store.read_frame(file)["part"].to_numpy()[pairs["keeper_row"].to_numpy()].astype(np.int64)
    settled = pairs.filter(pl.Series(part == 0))
    shards = [
        ("removed", _by_group(unit, settled.select("row", "keeper_id", id="record_id", kind=pl.lit("exact")))),
        ("pairs", unit.store.write_frame(exact_pairs(settled), "pairs")),
    ]
    if number:
        linked = pairs.filter(pl.Series(part > 0)).select(list(FOLLOWER_SCHEMA))
        shards.append(("followers", unit.store.write_parts(split(linked, part[part > 0] - 1, number), "followers")))
    unit.progress(pairs.height, pairs.height)
    return UnitResult(
        result={"records": pairs.height}, shards=shards, rows=[(PAIRS, _rows(unit, exact_pairs(settled)))]
    )


def _rows(unit: UnitContext, pairs: pl.DataFrame) -> pl.DataFrame:
    """Pairs by which a record left, for SQL; all that were measured are in the pairs shards."""
    return pairs.filter("accepted").with_columns(run_id=pl.lit(unit.claim.run_id))


def _verify(unit: UnitContext) -> UnitResult:
    """Measure the candidate pairs of one part, choose keepers, and let exact duplicates follow theirs."""
    recipe, part = recipe_of(unit), unit.claim.payload["part"]
    assert recipe.near is not None
    records = _read_parts(unit, "route", "routed", part)
    unit.progress(0, records.height)
    hot = [unit.store.read_frame(file)["hash"].to_numpy() for file in outputs(unit, "bucket", "hot")]
    known = np.unique(np.concatenate(hot)) if hot else None
    near = find_near_duplicates(
        records["id"],
        records["text"],
        records["quality"],
        recipe.near,
        hot=known,
        scope=records["scope"].to_numpy(),
        within=_scope(unit)["within"],
    ).pairs
    unit.progress(records.height // 2, records.height)
    followers = pl.DataFrame(schema=FOLLOWER_SCHEMA)
    if recipe.exact:
        followers = _read_parts(unit, "route", "followers", part)
    pairs = follow(exact_pairs(followers), near_pairs(near))
    rows = pl.concat([records.select("id", "row"), followers.select("row", id="record_id").select("id", "row")])
    accepted = pairs.filter("accepted").select("keeper_id", "kind", id="record_id")
    removed = accepted.join(rows, on="id", maintain_order="left")
    shards = [("pairs", unit.store.write_frame(pairs, "pairs")), ("removed", _by_group(unit, removed))]
    if _indexed(unit):
        packed = pack(link_arrays("similar", _similar(records, near, recipe.near)))
        shards.append(("index_similar", unit.store.write_bytes(packed, "index", "arrow")))
    unit.progress(records.height, records.height)
    return UnitResult(
        result={"removed": removed.height, "pairs": pairs.height, "records": records.height},
        shards=shards,
        rows=[(PAIRS, _rows(unit, pairs))],
    )


def _similar(records: pl.DataFrame, near: pl.DataFrame, config: NearConfig) -> Links:
    """Rows of one part that are connected by similar pairs."""
    order = records.select("id", "row").sort("id")
    similar = near.filter(pl.col("jaccard") >= config.threshold)
    sides = [order["row"].gather(order["id"].search_sorted(similar[name])) for name in ("keeper_id", "record_id")]
    return Links.between([(sides[0].to_numpy(), sides[1].to_numpy())])


def _settle(unit: UnitContext) -> UnitResult:
    """Who left of one group, in a part for each of its shards."""
    group, step = unit.claim.payload["group"], _layout(unit)["group_shards"]
    files = [*outputs(unit, "route", "removed"), *outputs(unit, "verify", "removed")]
    frames = [unit.store.read_part(file, group) for file in files]
    removed = pl.concat(frames) if frames else pl.DataFrame(schema=REMOVED_SCHEMA)
    removed = removed.sort("row")
    bounds = np.array(_bounds(unit)[group * step : (group + 1) * step + 1])
    shard = np.searchsorted(bounds, removed["row"].to_numpy(), side="right") - 1
    parts = split(removed.drop("row"), shard, len(bounds) - 1)
    unit.progress(removed.height, removed.height)
    return UnitResult(
        result={"removed": removed.height}, shards=[("duplicates", unit.store.write_parts(parts, "duplicates"))]
    )


def duplicates_of(unit: UnitContext, index: int) -> pl.DataFrame:
    """Who left of one text shard as a duplicate: ``id``, ``keeper_id``, ``kind``."""
    step = _layout(unit)["group_shards"]
    files = outputs(unit, "settle", "duplicates")
    if not files:
        return pl.DataFrame(schema=REMOVED_SCHEMA).drop("row")
    return unit.store.read_part(files[index // step], index % step)


STAGES = (
    Stage(name="sign", plan=_count("groups", "group", "exact", "near"), work=_sign),
    Stage(name="exact", plan=_count("exact_parts", "exact", "exact"), work=_exact),
    Stage(name="bucket", plan=_count("band_parts", "bands", "near"), work=_bucket),
    Stage(name="connect", plan=_plan_connect, work=_connect),
    Stage(name="route", plan=_plan_route, work=_route),
    Stage(name="verify", plan=_plan_verify, work=_verify),
    Stage(name="settle", plan=_count("groups", "group", "exact", "near"), work=_settle),
)
