"""Repeated passages: stages whose units hold a bounded number of records, run over the records that stay.

number (all) → sample (a group of shards) → share (a part of the hash space) → window (a group) → origin (a part) →
gather (a group) → fetch (a group) → cut (some records) → rewrite (a group, where the recipe removes)

``curation.dedup.substring`` has the reason why parts give what the whole would give. The stages stand behind those of
``dedup`` in the clean and dedup pipelines; groups are the same. Records of datasets that the run's own is compared with
come first in keeper order: what they have, own records repeat, and theirs is never cut.

What a unit holds: the texts of one shard, in ``fetch`` and ``cut`` those of about ``dedup_rows`` records; beside them
the anchors and windows of a group, 16 bytes each and at most one a token; or a part of all anchors or windows, of which
there are as many as it takes (but equal windows are never parted). Of everything, the one unit that numbers holds
length and id of each record that stays; ``share``, ``origin`` and ``gather`` four bytes a record: whose group it is.
"""

from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any

import numpy as np
import polars as pl
from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog.errors import ConfigError
from catalog.store import StoredFile
from catalog.tables.engine import Run, Unit
from curation.dedup.keeper import keeper_order
from curation.dedup.stages import hash_part, split
from curation.dedup.substring import (
    BATCH_BYTES,
    CANDIDATE_SCHEMA,
    METHOD,
    ROW_SPAN_SCHEMA,
    SPAN_SCHEMA,
    WINDOW_SCHEMA,
    SubstringConfig,
    first_occurrences,
    parts_by_record,
    sample_windows,
    shared_anchors,
    spans_of_part,
    windows_at,
)
from curation.verdicts import rule_verdicts
from workers.engine import UnitResult
from workers.execution import UnitContext
from workers.pipelines import Stage
from workers.pipelines.dedup import all_shards, duplicates_of, recipe_of
from workers.pipelines.outputs import outputs

REPEATED = "repeated_passage"
"""Why a record leaves of which nothing is left."""
WINDOWS_A_RECORD = 8
"""A window is so much smaller than a record that this many take a record's room."""
MAX_RECORDS = 2**32
NUMBER_SCHEMA = {"shard": pl.UInt32, "place": pl.UInt32, "number": pl.UInt32}
ANCHOR_SCHEMA = {name: WINDOW_SCHEMA[name] for name in ("row", "position")}
WANTED_SCHEMA = {"number": pl.UInt32, "slice": pl.UInt32}
FETCHED_SCHEMA = {"number": pl.UInt32, "id": pl.String, "text": pl.String}
_SPREAD = np.uint64(0x9E3779B97F4A7C15)


def _config(unit: UnitContext) -> SubstringConfig:
    config = recipe_of(unit).substring
    assert config is not None
    return config


def _wants(run: Run) -> bool:
    # Runs of before there was the key may still be going on.
    return run.config["recipe"].get("substring") is not None


def _results(session: Session, run_id: str, stage: str) -> list[dict[str, Any]]:
    """Results of a stage's units, in their order."""
    units = select(Unit.result).where(Unit.run_id == run_id, Unit.stage_name == stage).order_by(Unit.position)
    return [result or {} for result in session.scalars(units)]


def _results_of(unit: UnitContext, stage: str) -> list[dict[str, Any]]:
    with unit.catalog.read() as session:
        return _results(session, unit.claim.run_id, stage)


def _num_parts(session: Session, run: Run, stage: str) -> int:
    """Parts of the hash space: as many as their windows need, told from what was counted before."""
    config = SubstringConfig(**run.config["recipe"]["substring"])
    room = WINDOWS_A_RECORD * int(run.config["layout"]["rows"])
    counted = _results(session, run.id, "number" if stage == "share" else "share")
    if stage == "share":
        # Two anchors in as many tokens as a window has places for its anchor; a token has about four characters.
        expected = sum(int(one["characters"]) for one in counted) // (2 * config.anchors_per_window)
    else:
        expected = sum(int(one["anchors"]) for one in counted) * config.anchors_per_window // 2
    return 1 + expected // room


def _parts_of(unit: UnitContext, stage: str) -> int:
    with unit.catalog.read() as session:
        return _num_parts(session, session.get_one(Run, unit.claim.run_id), stage)


def _plan_number(_session: Session, run: Run) -> list[dict[str, Any]]:
    return [{}] if _wants(run) else []


def _plan_groups(_session: Session, run: Run) -> list[dict[str, Any]]:
    return [{"group": index} for index in range(run.config["layout"]["groups"] if _wants(run) else 0)]


def _plan_parts(stage: str) -> Callable[[Session, Run], list[dict[str, Any]]]:
    def plan(session: Session, run: Run) -> list[dict[str, Any]]:
        return [{"part": index} for index in range(_num_parts(session, run, stage) if _wants(run) else 0)]

    return plan


def _slices(session: Session, run_id: str) -> list[int]:
    """How many units will cut the records of each group."""
    return [one["slices"] for one in _results(session, run_id, "gather")]


def _slices_of(unit: UnitContext) -> list[int]:
    with unit.catalog.read() as session:
        return _slices(session, unit.claim.run_id)


def _plan_fetch(session: Session, run: Run) -> list[dict[str, Any]]:
    return _plan_groups(session, run) if sum(_slices(session, run.id)) else []


def _plan_cut(session: Session, run: Run) -> list[dict[str, Any]]:
    of_groups = enumerate(_slices(session, run.id))
    each = [(group, index) for group, number in of_groups for index in range(number)]
    return [{"group": group, "slice": index, "number": number} for number, (group, index) in enumerate(each)]


def _plan_rewrite(session: Session, run: Run) -> list[dict[str, Any]]:
    cuts = _wants(run) and run.config["recipe"]["substring"]["action"] == "remove"
    return _plan_groups(session, run) if cuts and sum(_slices(session, run.id)) else []


def _group_shards(unit: UnitContext, group: int) -> list[tuple[int, dict[str, Any]]]:
    """Number and entry of each shard of a group."""
    step = unit.claim.config["layout"]["group_shards"]
    return list(enumerate(all_shards(unit)))[group * step : (group + 1) * step]


def _read_parts(unit: UnitContext, files: list[StoredFile], part: int, schema: Any) -> pl.DataFrame:
    frames = [pl.DataFrame(schema=schema)]
    for file in files:
        frames.append(unit.store.read_part(file, part))
        unit.check()
    return pl.concat(frames)


def _number(unit: UnitContext) -> UnitResult:
    """Number the records that stay in keeper order: of equal passages the one with the smallest number is kept."""
    shards, recipe = all_shards(unit), recipe_of(unit)
    frames = []
    for index, (shard, file) in enumerate(zip(shards, outputs(unit, "measure", "measured"), strict=True)):
        unit.progress(index, len(shards))
        values = unit.store.read_frame(file)
        frame = values.select(
            "id", length="num_chars", shard=pl.lit(index, pl.UInt32), place=pl.int_range(pl.len(), dtype=pl.UInt32)
        )
        if "of" in shard:
            named = pl.format("{}:{}", pl.lit(shard["of"]), "id")
            frames.append(frame.with_columns(id=named, quality=pl.lit(np.inf)))
        else:
            stays = rule_verdicts(values, recipe)["kept"] & ~values["id"].is_in(
                duplicates_of(unit, index)["id"].implode()
            )
            frames.append(frame.filter(stays).with_columns(quality=pl.lit(1.0)))
    records = pl.concat(frames)
    if records.height > MAX_RECORDS:
        raise ConfigError(
            f"{records.height:,} records are more than the {MAX_RECORDS:,} among which passages are looked for; "
            "leave 'substring' out of the recipe, or divide the dataset"
        )
    order = keeper_order(records["id"], records["length"], records["quality"])["row"].to_numpy()
    numbers = np.empty(records.height, dtype=np.uint32)
    numbers[order] = np.arange(records.height, dtype=np.uint32)
    layout = unit.claim.config["layout"]
    groups = records["shard"].to_numpy() // layout["group_shards"]
    numbered = split(records.select("shard", "place", number=pl.Series(numbers)), groups, layout["groups"])
    by_number = pl.DataFrame({"group": groups[order]}, schema={"group": pl.UInt32})
    own = records.filter(pl.col("quality").is_finite())
    return UnitResult(
        result={
            "records": own.height,
            "others": records.height - own.height,
            "characters": int(records["length"].sum()),
            "own_characters": int(own["length"].sum()),
        },
        shards=[
            ("numbers", unit.store.write_parts(numbered, "numbers")),
            ("groups", unit.store.write_frame(by_number, "groups")),
        ],
    )


def _numbers(unit: UnitContext, group: int) -> pl.DataFrame:
    """``shard``, ``place`` in it and ``number`` of each record of a group that stays."""
    (file,) = outputs(unit, "number", "numbers")
    return unit.store.read_part(file, group)


def _groups(unit: UnitContext) -> np.ndarray:
    """(records,) uint32, the group of each number."""
    (file,) = outputs(unit, "number", "groups")
    return unit.store.read_frame(file)["group"].to_numpy()


def _by_group(unit: UnitContext, frame: pl.DataFrame, of: np.ndarray, kind: str) -> tuple[str, StoredFile]:
    """A file with a part for each group."""
    return kind, unit.store.write_parts(split(frame, of, unit.claim.config["layout"]["groups"]), kind)


def _texts(
    unit: UnitContext, group: int, only: np.ndarray | None = None, columns: tuple[str, ...] = ("text",)
) -> Iterator[tuple[dict[str, Any], pl.DataFrame]]:
    """Shard by shard, ``number`` and columns of a group's records that stay, or of those that are named."""
    numbers = _numbers(unit, group)
    if only is not None:
        numbers = numbers.filter(pl.Series(np.isin(numbers["number"].to_numpy(), only)))
    for index, shard in _group_shards(unit, group):
        own = numbers.filter(pl.col("shard") == index)
        if own.height:
            frame = unit.store.read_frame(StoredFile.from_json(shard["data"]), list(columns))
            yield shard, frame[own["place"]].with_columns(own["number"])
        unit.check()


def _by_hash(unit: UnitContext, frames: list[pl.DataFrame], parts: int, kind: str) -> tuple[str, StoredFile]:
    """A file with a part for each part of the hash space."""
    windows = pl.concat([pl.DataFrame(schema=WINDOW_SCHEMA), *frames])
    # Anchors are the smallest hashes of their neighbourhood: ranges of them would be of very different size.
    spread = windows["hash"].to_numpy() * _SPREAD
    return kind, unit.store.write_parts(split(windows, hash_part(spread, parts), parts), kind)


def _sample(unit: UnitContext) -> UnitResult:
    """The anchors of all windows of a group."""
    config, frames, done = _config(unit), [], 0
    for _, records in _texts(unit, unit.claim.payload["group"]):
        frames.append(sample_windows(records["text"], records["number"].to_numpy(), config))
        done += records.height
        unit.progress(done, done)
    return UnitResult(result={"records": done}, shards=[_by_hash(unit, frames, _parts_of(unit, "share"), "anchors")])


def _share(unit: UnitContext) -> UnitResult:
    """The anchors of a part of the hash space that stand in more than one place, by group."""
    anchors = _read_parts(unit, outputs(unit, "sample", "anchors"), unit.claim.payload["part"], WINDOW_SCHEMA)
    unit.progress(0, anchors.height)
    shared = shared_anchors(anchors)
    unit.progress(anchors.height, anchors.height)
    return UnitResult(
        result={"anchors": shared.height},
        shards=[_by_group(unit, shared, _groups(unit)[shared["row"].to_numpy()], "shared")],
    )


def _window(unit: UnitContext) -> UnitResult:
    """The windows of a group that have a shared anchor."""
    config, group = _config(unit), unit.claim.payload["group"]
    anchors = _read_parts(unit, outputs(unit, "share", "shared"), group, ANCHOR_SCHEMA)
    frames, done = [], 0
    for _, records in _texts(unit, group, anchors["row"].unique().to_numpy()):
        frames.append(windows_at(records["text"], records["number"].to_numpy(), anchors, config))
        done += records.height
        unit.progress(done, done)
    return UnitResult(result={"records": done}, shards=[_by_hash(unit, frames, _parts_of(unit, "origin"), "windows")])


def _origin(unit: UnitContext) -> UnitResult:
    """Each repeated window of a part of the hash space with where it stands first, by group."""
    windows = _read_parts(unit, outputs(unit, "window", "windows"), unit.claim.payload["part"], WINDOW_SCHEMA)
    unit.progress(0, windows.height)
    (numbered,) = _results_of(unit, "number")
    # The numbers of other datasets come first; theirs stays as it is.
    found = first_occurrences(windows, _config(unit)).filter(pl.col("row") >= numbered["others"])
    if not unit.claim.config["scope"]["within"]:
        found = found.filter(pl.col("keeper_row") < numbered["others"])
    unit.progress(windows.height, windows.height)
    return UnitResult(
        result={"windows": found.height},
        shards=[_by_group(unit, found, _groups(unit)[found["row"].to_numpy()], "candidates")],
    )


def _local(candidates: pl.DataFrame) -> tuple[np.ndarray, pl.DataFrame]:
    """The numbers that candidates name, ascending, and the candidates with places in them instead."""
    rows, keepers = candidates["row"].to_numpy(), candidates["keeper_row"].to_numpy()
    involved = np.union1d(rows, keepers)
    places = {"row": np.searchsorted(involved, rows), "keeper_row": np.searchsorted(involved, keepers)}
    columns = [pl.Series(name, values, dtype=pl.UInt32) for name, values in places.items()]
    return involved, candidates.with_columns(columns)


def _gather(unit: UnitContext) -> UnitResult:
    """All candidates of a group's records, sliced so that each slice needs a bounded number of texts, and which."""
    files = outputs(unit, "origin", "candidates")
    candidates = _read_parts(unit, files, unit.claim.payload["group"], CANDIDATE_SCHEMA)
    unit.progress(0, candidates.height)
    involved, local = _local(candidates)
    slices, wanted = [], [pl.DataFrame(schema=WANTED_SCHEMA)]
    ones = np.ones(len(involved), dtype=np.int64)
    for index, part in enumerate(parts_by_record(local, ones, unit.claim.config["layout"]["rows"])):
        rows, keepers = involved[part["row"].to_numpy()], involved[part["keeper_row"].to_numpy()]
        slices.append(part.with_columns(row=pl.Series(rows), keeper_row=pl.Series(keepers)))
        wanted.append(pl.DataFrame({"number": np.union1d(rows, keepers)}).with_columns(slice=pl.lit(index, pl.UInt32)))
        unit.progress(sum(one.height for one in slices), candidates.height)
    needed = pl.concat(wanted)
    return UnitResult(
        result={"slices": len(slices), "windows": candidates.height},
        shards=[
            ("slices", unit.store.write_parts(slices or [candidates], "slices")),
            _by_group(unit, needed, _groups(unit)[needed["number"].to_numpy()], "wanted"),
        ],
    )


def _fetch(unit: UnitContext) -> UnitResult:
    """Bring a group's texts to the slices that need them, those of at most about ``dedup_rows`` records a file."""
    group, counts = unit.claim.payload["group"], _slices_of(unit)
    first = [0, *accumulate(counts)]
    wanted = pl.concat(
        [
            unit.store.read_part(file, group).with_columns(slice=pl.col("slice") + first[index])
            for index, file in enumerate(outputs(unit, "gather", "wanted"))
        ]
    ).cast(pl.Schema(WANTED_SCHEMA))
    files: list[tuple[str, StoredFile]] = []
    waiting: list[pl.DataFrame] = []
    done = 0

    def write() -> None:
        frame = pl.concat(waiting)
        parts = split(frame.select(list(FETCHED_SCHEMA)), frame["slice"].to_numpy().astype(np.int64), first[-1])
        files.append(("fetched", unit.store.write_parts(parts, "fetched")))
        waiting.clear()

    for shard, records in _texts(unit, group, wanted["number"].unique().to_numpy(), ("id", "text")):
        if "of" in shard:
            records = records.with_columns(id=pl.format("{}:{}", pl.lit(shard["of"]), "id"))
        waiting.append(records.join(wanted, on="number"))
        done += waiting[-1].height
        unit.progress(done, wanted.height)
        if sum(one.height for one in waiting) >= unit.claim.config["layout"]["rows"]:
            write()
    if waiting:
        write()
    return UnitResult(result={"records": done}, shards=files)


def _cut(unit: UnitContext) -> UnitResult:
    """Compare the windows of a slice token by token, and put down what repeats, where, and what it repeats."""
    config, payload = _config(unit), unit.claim.payload
    file = outputs(unit, "gather", "slices")[payload["group"]]
    involved, local = _local(unit.store.read_part(file, payload["slice"]))
    texts = _read_parts(unit, outputs(unit, "fetch", "fetched"), payload["number"], FETCHED_SCHEMA).sort("number")
    assert np.array_equal(texts["number"].to_numpy(), involved)
    sizes, done = texts["text"].str.len_bytes().to_numpy(), 0
    frames = [pl.DataFrame(schema=ROW_SPAN_SCHEMA)]
    for part in parts_by_record(local, sizes, BATCH_BYTES):
        unit.progress(done, local.height)
        frames.append(spans_of_part(texts["text"], part, config))
        done += part.height
    found = pl.concat(frames)
    ids = texts["id"]
    named = found.with_columns(record_id=ids.gather(found["row"]), keeper_id=ids.gather(found["keeper_row"]))
    spans = named.select(list(SPAN_SCHEMA)).sort("record_id", "start")
    goes_on = (pl.col("record_id") == pl.col("record_id").shift()) & (pl.col("start") == pl.col("end").shift())
    unit.progress(done, local.height)
    return UnitResult(
        result={
            "spans": spans.height,
            "passages": spans.height - spans.filter(goes_on).height,
            "records": spans["record_id"].n_unique(),
            "characters": int((spans["end"] - spans["start"]).sum()),
        },
        shards=[("spans", unit.store.write_frame(spans, "spans"))],
    )


def _rewrite(unit: UnitContext) -> UnitResult:
    """The text shards of a group with its spans cut out: only those that change, and who has nothing left."""
    from curation.dedup.cutting import remove_spans  # compiles: numba takes half a second

    group, counts = unit.claim.payload["group"], _slices_of(unit)
    first = sum(counts[:group])
    files = outputs(unit, "cut", "spans")[first : first + counts[group]]
    spans = pl.concat([pl.DataFrame(schema=SPAN_SCHEMA), *(unit.store.read_frame(file) for file in files)])
    texts: dict[str, StoredFile] = {}
    emptied, changed = [], 0
    shards = _group_shards(unit, group)
    for done, (index, shard) in enumerate(shards):
        unit.progress(done, len(shards))
        gone: list[str] = []
        if "of" not in shard and spans.height:
            frame = unit.store.read_frame(StoredFile.from_json(shard["data"]))
            after = remove_spans(frame["id"], frame["text"], spans)
            blank = after.str.strip_chars() == ""
            gone = frame.filter((after != frame["text"]) & blank)["id"].to_list()
            # A record that leaves keeps its text: nobody reads it, and the row stays where it is.
            after = pl.select(pl.when(blank).then(frame["text"]).otherwise(after)).to_series()
            if (differ := int((after != frame["text"]).sum())) > 0:
                texts[str(index)] = unit.store.write_frame(frame.with_columns(text=after), "text")
                changed += differ
        emptied.append(pl.DataFrame({"id": gone}, schema={"id": pl.String}))
    return UnitResult(
        result={
            "texts": {index: file.to_json() for index, file in texts.items()},
            "changed": changed,
            "emptied": sum(one.height for one in emptied),
        },
        shards=[
            ("emptied", unit.store.write_parts(emptied, "emptied")),
            *(("text", file) for file in texts.values()),
        ],
    )


def text_shard(unit: UnitContext, index: int) -> StoredFile:
    """Where the texts of one of the run's shards are now: with what repeats cut out, if that was asked for."""
    step = unit.claim.config["layout"]["group_shards"]
    rewritten = _results_of(unit, "rewrite")
    entry = all_shards(unit)[index]["data"]
    return StoredFile.from_json(rewritten[index // step]["texts"].get(str(index), entry) if rewritten else entry)


def emptied_of(unit: UnitContext, index: int) -> pl.Series:
    """Ids of the records of one of the run's shards of which nothing is left."""
    step = unit.claim.config["layout"]["group_shards"]
    files = outputs(unit, "rewrite", "emptied")
    if not files:
        return pl.Series("id", [], dtype=pl.String)
    return unit.store.read_part(files[index // step], index % step)["id"]


def summary(unit: UnitContext) -> dict[str, Any]:
    """What was found and done, under ``passages``; nothing where the recipe does not ask for it.

    ``records`` have ``passages`` of so many ``characters``, of ``compared`` records with ``of_characters``; spans that
    touch are one passage. ``changed`` records lost some of their text, ``emptied`` ones all of it and left.
    """
    asked = unit.claim.config["recipe"].get("substring")
    if asked is None:
        return {}
    (numbered,) = _results_of(unit, "number")
    found, rewritten = _results_of(unit, "cut"), _results_of(unit, "rewrite")
    return {
        "passages": {
            **asked,
            "rule": METHOD,
            "compared": numbered["records"],
            "of_characters": numbered["own_characters"],
            **{name: sum(one[name] for one in found) for name in ("passages", "spans", "records", "characters")},
            **{name: sum(one[name] for one in rewritten) for name in ("changed", "emptied")},
        }
    }


STAGES = (
    Stage(name="number", plan=_plan_number, work=_number),
    Stage(name="sample", plan=_plan_groups, work=_sample),
    Stage(name="share", plan=_plan_parts("share"), work=_share),
    Stage(name="window", plan=_plan_groups, work=_window),
    Stage(name="origin", plan=_plan_parts("origin"), work=_origin),
    Stage(name="gather", plan=_plan_groups, work=_gather),
    Stage(name="fetch", plan=_plan_fetch, work=_fetch),
    Stage(name="cut", plan=_plan_cut, work=_cut),
    Stage(name="rewrite", plan=_plan_rewrite, work=_rewrite),
)
