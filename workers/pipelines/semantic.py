"""Semantic duplicates: stages over the vectors of the records that stay, in units of bounded memory.

draw (a group of shards) → fit (all samples) → assign (a group) → cells (a range of cells) → choose (all pairs)

What another stage embedded is read: ``score`` when cleaning, ``embed`` when deduplicating alone. Vectors are put on a
grid of whole numbers first (``curation.dedup.grid``), so what is found depends on them and on no unit's size. A unit
holds the vectors of about ``dedup_rows / VECTOR_ROOM`` records, or one whole cell; only ``choose`` is one unit over
everything, and holds pairs, not vectors: 16 bytes each, at most ``MAX_PAIRS``.

All records compared here passed the rules, or there are none, so of duplicates the longest is kept, then the smallest
id. Whoever left as exact or near duplicate of a record that leaves here stays behind that record.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog.errors import ConfigError
from catalog.store import StoredFile
from catalog.tables.curation import DuplicatePair
from catalog.tables.datasets import Version
from catalog.tables.engine import Run, Unit
from curation.dedup.cells import SAMPLE_PER_CELL, assign_cells, fit_cells, sample_rows
from curation.dedup.grid import has_direction, snap
from curation.dedup.semantic import (
    BACKGROUND_RECORDS,
    METHOD,
    cell_pairs,
    measure_background,
    settle_pairs,
)
from curation.dedup.semantic_step import SemanticStep, background_problem, random_ratio_limit
from curation.dedup.stages import split
from curation.encoders import encoders_of_meaning
from workers.device import best_device
from workers.engine import UnitResult
from workers.execution import UnitContext
from workers.pipelines import Stage, single, substring
from workers.pipelines.dedup import duplicates_of, recipe_of
from workers.pipelines.embeddings import embed, vector_column, vector_rows
from workers.pipelines.outputs import outputs

VECTOR_ROOM = 4
"""A record with its vector takes the room of so many in a unit."""
MAX_PAIRS = 20_000_000
"""Pairs that ``choose`` holds at most."""
FILE_PAIRS = 1_000_000
"""Pairs after which a file is written: what a unit holds of them, beside those of one cell."""
KIND = "semantic"
METHOD_COLUMNS = {"kind": pl.lit(KIND), "rule": pl.lit(METHOD)}
ENTRY_SCHEMA: dict[str, Any] = {
    "id": pl.String,
    "shard": pl.Int64,
    "length": pl.Int64,
    "cell": pl.Int64,
    "vector": pl.List(pl.Int16),
}
MEASURED_SCHEMA = {"record_id": pl.String, "keeper_id": pl.String, "similarity": pl.Float64, "shard": pl.Int64}
LEFT_SCHEMA = {"id": pl.String, "keeper_id": pl.String, "kind": pl.String}
SAMPLE_SCHEMA: dict[str, Any] = {"id": pl.String, "vector": pl.List(pl.Int16)}
PAIRS = DuplicatePair.metadata.tables["duplicate_pairs"]


def wanted(run_config: dict[str, Any]) -> dict[str, Any] | None:
    """The step of a run's recipe, as stored; None where it has none, or is older than the step."""
    found: dict[str, Any] | None = run_config["recipe"].get("semantic")
    return found


def _num_groups(session: Session, run: Run) -> int:
    num_shards = session.get_one(Version, run.version_id).num_shards
    return -(-num_shards // _group_shards(run.config))


def _group_shards(config: dict[str, Any]) -> int:
    return max(1, int(config["layout"]["group_shards"]) // VECTOR_ROOM)


def _plan_groups(session: Session, run: Run) -> list[dict[str, Any]]:
    number = _num_groups(session, run) if wanted(run.config) else 0
    return [{"group": index} for index in range(number)]


def _plan_single(session: Session, run: Run) -> list[dict[str, Any]]:
    return single(session, run) if wanted(run.config) else []


def _plan_cells(session: Session, run: Run) -> list[dict[str, Any]]:
    return [{"part": index} for index in range(_fitted(session, run.id)["parts"])] if wanted(run.config) else []


def plan_embed(session: Session, run: Run) -> list[dict[str, Any]]:
    """One unit a text shard, where vectors are asked for."""
    num_shards = session.get_one(Version, run.version_id).num_shards if wanted(run.config) else 0
    return [{"index": index} for index in range(num_shards)]


def _fitted(session: Session, run_id: str) -> dict[str, Any]:
    query = select(Unit.result).where(Unit.run_id == run_id, Unit.stage_name == "fit")
    found: dict[str, Any] = session.scalars(query).one() or {}
    return found


def _fit_of(unit: UnitContext) -> dict[str, Any]:
    with unit.catalog.read() as session:
        return _fitted(session, unit.claim.run_id)


def _step(unit: UnitContext) -> SemanticStep:
    step = recipe_of(unit).semantic
    assert step is not None
    return step


def _embedded(unit: UnitContext) -> list[StoredFile]:
    """The vectors of every text shard's records that stay so far."""
    return outputs(unit, "embed" if unit.claim.run_kind == "dedup" else "score", "embedding")


def embed_kept(unit: UnitContext) -> UnitResult:
    """Vectors of the records of one shard that are no exact or near duplicates, of their texts as they are now."""
    index = unit.claim.payload["index"]
    frame = unit.store.read_frame(substring.text_shard(unit, index), ["id", "text"])
    left = pl.concat([duplicates_of(unit, index)["id"], substring.emptied_of(unit, index)])
    kept = frame.filter(~pl.col("id").is_in(left.implode()))
    embedded = embed(unit, recipe_of(unit).encoder, kept)
    return UnitResult(
        result={"records": kept.height}, shards=[("embedding", unit.store.write_frame(embedded, "embedding"))]
    )


def _shards_of(unit: UnitContext) -> Iterator[tuple[int, pl.Series, np.ndarray]]:
    """Number, ids and directions of each shard of the unit's group; a shard that nobody stays of is left out."""
    files, step = _embedded(unit), _group_shards(unit.claim.config)
    first = unit.claim.payload["group"] * step
    for index, file in list(enumerate(files))[first : first + step]:
        unit.progress(index - first, step)
        frame = unit.store.read_frame(file)
        if frame.height:
            yield index, frame["id"], snap(vector_rows(frame["vector"]))


def _sample_size(step: SemanticStep, num_records: int) -> int:
    """Records of the sample: enough for the cells and for the background."""
    return max(SAMPLE_PER_CELL * step.cells_for(num_records), BACKGROUND_RECORDS)


def _smallest(sample: pl.DataFrame, size: int, seed: int) -> pl.DataFrame:
    """The rows that are in the sample of everything, if all of it is sampled so."""
    return sample[sample_rows(sample["id"], size, seed)]


def _sample(unit: UnitContext) -> UnitResult:
    """The group's share of a random sample of the records that have a direction."""
    step = _step(unit)
    num_records = sum(file.num_rows for file in _embedded(unit))
    size = _sample_size(step, num_records)
    sample = pl.DataFrame(schema=SAMPLE_SCHEMA)
    for _, ids, grid in _shards_of(unit):
        known = np.flatnonzero(has_direction(grid))
        chosen = known[sample_rows(ids.gather(known), size, step.seed)]
        added = pl.DataFrame({"id": ids.gather(chosen), "vector": vector_column(grid[chosen])}, schema=SAMPLE_SCHEMA)
        sample = _smallest(pl.concat([sample, added]), size, step.seed)
    return UnitResult(
        result={"records": num_records, "sampled": sample.height},
        shards=[("sample", unit.store.write_frame(sample, "sample"))],
    )


def _fit(unit: UnitContext) -> UnitResult:
    """Centroids and background from the sample; here a run ends whose vectors cannot tell the texts apart.

    Raises
    ------
    ConfigError : records are to leave, and random ones are as near as duplicates.
    """
    recipe, step = recipe_of(unit), _step(unit)
    num_records = sum(file.num_rows for file in _embedded(unit))
    size = _sample_size(step, num_records)
    sample = pl.DataFrame(schema=SAMPLE_SCHEMA)
    files = outputs(unit, "draw", "sample")
    for number, file in enumerate(files):
        unit.progress(number, len(files))
        sample = _smallest(pl.concat([sample, unit.store.read_frame(file)]), size, step.seed)
    grid = vector_rows(sample["vector"])
    background = measure_background(sample["id"], grid, step)
    num_sampled = min(sample.height, BACKGROUND_RECORDS)
    problem = background_problem(
        step, background, num_sampled=num_sampled, encoder=recipe.encoder, encoders=encoders_of_meaning()
    )
    if problem and step.action == "remove":
        raise ConfigError(problem)
    centroids = fit_cells(sample["id"], grid, step.cells_for(num_records), step.seed, device=best_device())
    entries_a_unit = max(1, unit.claim.config["layout"]["rows"] // VECTOR_ROOM)
    parts = min(len(centroids), 1 + num_records * step.probes // entries_a_unit)
    fitted = pl.DataFrame({"vector": vector_column(centroids)}, schema={"vector": pl.List(pl.Int16)})
    return UnitResult(
        result={
            "records": num_records,
            "sampled": num_sampled,
            "cells": len(centroids),
            "parts": parts,
            "background": background.to_dicts(),
            "problem": problem,
        },
        shards=[("centroids", unit.store.write_frame(fitted, "centroids"))],
    )


def _assign(unit: UnitContext) -> UnitResult:
    """Every record of a group with its vector, once for each cell in which it is compared, by range of cells."""
    step, fit = _step(unit), _fit_of(unit)
    (file,) = outputs(unit, "fit", "centroids")
    centroids = vector_rows(unit.store.read_frame(file)["vector"])
    measured = outputs(unit, "measure", "measured")
    num_unknown, device = 0, best_device()
    frames = [pl.DataFrame(schema=ENTRY_SCHEMA)]
    for index, ids, grid in _shards_of(unit):
        num_unknown += int((~has_direction(grid)).sum())
        cells = assign_cells(grid, centroids, step.probes, device=device)
        row, probe = np.nonzero(cells >= 0)
        lengths = ids.to_frame("id").join(
            unit.store.read_frame(measured[index], ["id", "num_chars"]), on="id", how="left", maintain_order="left"
        )
        frames.append(
            pl.DataFrame(
                {
                    "id": ids.gather(row),
                    "shard": np.full(len(row), index, dtype=np.int64),
                    "length": lengths["num_chars"].gather(row),
                    "cell": cells[row, probe].astype(np.int64),
                    "vector": vector_column(grid[row]),
                },
                schema=ENTRY_SCHEMA,
            )
        )
    found = pl.concat(frames)
    shards = []
    if fit["parts"]:
        parts = split(found, found["cell"].to_numpy() * fit["parts"] // fit["cells"], fit["parts"])
        shards.append(("entries", unit.store.write_parts(parts, "entries")))
    return UnitResult(result={"entries": found.height, "unknown": num_unknown}, shards=shards)


def _cells(unit: UnitContext) -> UnitResult:
    """Near pairs of the records of one range of cells, each as often as it was found."""
    step, part = _step(unit), unit.claim.payload["part"]
    files = outputs(unit, "assign", "entries")
    found = pl.concat([unit.store.read_part(file, part) for file in files]).sort("cell", "id")
    grid, device = vector_rows(found["vector"]), best_device()
    found = found.drop("vector")
    edges = np.flatnonzero(np.diff(found["cell"].to_numpy(), prepend=-1, append=-1))
    shards: list[tuple[str, StoredFile]] = []
    held: list[pl.DataFrame] = []
    num_pairs, num_compared = 0, 0

    def write() -> None:
        frame = pl.concat([pl.DataFrame(schema=MEASURED_SCHEMA), *held])
        shards.append(("cell_pairs", unit.store.write_frame(frame, "cell_pairs")))
        held.clear()

    for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        unit.progress(start, found.height)
        members = found[start:end]
        pairs = cell_pairs(members["id"], grid[start:end], None, members["length"], step, device=device)
        shard = members.select("shard", record_id="id")
        held.append(pairs.join(shard, on="record_id", how="left", maintain_order="left").select(list(MEASURED_SCHEMA)))
        num_pairs += pairs.height
        num_compared += (end - start) * (end - start - 1) // 2
        _check_pairs(num_pairs, step)
        if sum(one.height for one in held) >= FILE_PAIRS:
            write()
    write()
    unit.progress(found.height, found.height)
    return UnitResult(result={"pairs": num_pairs, "compared": num_compared}, shards=shards)


def _check_pairs(number: int, step: SemanticStep) -> None:
    if number > MAX_PAIRS:
        raise ConfigError(
            f"{number:,} pairs are as near as epsilon={step.epsilons[-1]:g}, the widest that is counted; at most "
            f"{MAX_PAIRS:,} are held at once: leave the wide values out of sweep, or set max_better={step.max_better} "
            "lower"
        )


def _choose(unit: UnitContext) -> UnitResult:
    """Who leaves because of whom, what every epsilon would do, and every measured pair for those who ask later."""
    step, fit = _step(unit), _fit_of(unit)
    files = outputs(unit, "cells", "cell_pairs")
    _check_pairs(sum(file.num_rows for file in files), step)
    names, shard = _involved(unit, files)
    measured = pl.concat(
        [
            pl.DataFrame(schema={"record_id": pl.UInt32, "keeper_id": pl.UInt32, "similarity": pl.Float64}),
            *(_numbered(unit.store.read_frame(file), names) for file in files),
        ]
    )
    unit.progress(0, measured.height)
    # Numbers of sorted names are in the order of the names, by which ties are broken.
    pairs, sweep = settle_pairs(measured, step)
    del measured
    unit.progress(pairs.height // 2, pairs.height)
    stored = [
        (
            "semantic_pairs",
            unit.store.write_frame(
                _named(part, names).rename({"similarity": "cosine"}).with_columns(**METHOD_COLUMNS), "semantic_pairs"
            ),
        )
        for part in pairs.iter_slices(FILE_PAIRS)
    ]
    chosen = pairs.filter("accepted")
    removed = chosen if step.action == "remove" else chosen.clear()
    left = _named(removed, names).select("keeper_id", id="record_id", kind=pl.lit(KIND)).select(list(LEFT_SCHEMA))
    by_shard = split(left, shard[removed["record_id"].to_numpy()], len(_embedded(unit)))
    rows = _named(chosen, names).select(
        "record_id",
        "keeper_id",
        cosine="similarity",
        bands_shared=pl.lit(0, pl.Int64),
        accepted=pl.lit(value=step.action == "remove"),
        **METHOD_COLUMNS,
        run_id=pl.lit(unit.claim.run_id),
    )
    unit.progress(pairs.height, pairs.height)
    ratios = {one["epsilon"]: one["random_ratio"] for one in fit["background"]}
    counted = [
        {
            "epsilon": epsilon,
            "pairs": num_pairs,
            "would_leave": num_leaving,
            "random_ratio": ratios[epsilon],
        }
        for epsilon, num_pairs, num_leaving, _ in sweep.rows()
    ]
    return UnitResult(
        result={"pairs": pairs.height, "chosen": chosen.height, "removed": removed.height, "sweep": counted},
        shards=[*stored, ("semantic", unit.store.write_parts(by_shard, "semantic"))],
        rows=[(PAIRS, rows)],
    )


def _involved(unit: UnitContext, files: list[StoredFile]) -> tuple[pl.Series, np.ndarray]:
    """Names of all records that have a near one, sorted, and the shard of each that may leave (-1 for the others)."""
    records = pl.DataFrame(schema={"id": pl.String, "shard": pl.Int64})
    for file in files:
        frame = unit.store.read_frame(file, ["record_id", "keeper_id", "shard"])
        records = pl.concat(
            [
                records,
                frame.select(id="record_id", shard="shard"),
                frame.select(id="keeper_id", shard=pl.lit(-1, pl.Int64)),
            ]
        )
        records = records.group_by("id").agg(pl.col("shard").max())
        unit.check()
    records = records.sort("id")
    return records["id"], records["shard"].to_numpy()


def _numbered(frame: pl.DataFrame, names: pl.Series) -> pl.DataFrame:
    numbers = {name: names.search_sorted(frame[name]).cast(pl.UInt32) for name in ("record_id", "keeper_id")}
    return pl.DataFrame({**numbers, "similarity": frame["similarity"]})


def _named(pairs: pl.DataFrame, names: pl.Series) -> pl.DataFrame:
    return pairs.with_columns(names.gather(pairs[name]).alias(name) for name in ("record_id", "keeper_id"))


def semantic_duplicates_of(unit: UnitContext, index: int) -> pl.DataFrame:
    """Who left of one text shard as a semantic duplicate: ``id``, ``keeper_id``, ``kind``."""
    if not wanted(unit.claim.config):
        return pl.DataFrame(schema=LEFT_SCHEMA)
    (file,) = outputs(unit, "choose", "semantic")
    return unit.store.read_part(file, index)


def all_duplicates_of(unit: UnitContext, index: int) -> pl.DataFrame:
    """Who left of one text shard as a duplicate of any kind."""
    return pl.concat([duplicates_of(unit, index).select(list(LEFT_SCHEMA)), semantic_duplicates_of(unit, index)])


def semantic_summary(session: Session, run: str, config: dict[str, Any]) -> dict[str, Any] | None:
    """What the step found, for the run's result; None where the recipe has none.

    Returns
    -------
    ``action``, ``epsilon``, ``encoder``, ``records`` (that were compared or could not be), ``unknown`` (those of the
    latter), ``cells``, ``probes``, ``compared`` (pairs, those in several cells counted in each), ``pairs`` (near ones),
    ``would_leave``, ``removed``, ``sweep`` (of dicts: ``epsilon, pairs, would_leave, random_ratio``),
    ``random_ratio_limit``, ``warning``.
    """
    step = wanted(config)
    if step is None:
        return None
    query = select(Unit.stage_name, Unit.result).where(Unit.run_id == run)
    results: dict[str, list[dict[str, Any]]] = {}
    for name, result in session.execute(query.where(Unit.stage_name.in_(("fit", "assign", "cells", "choose")))):
        results.setdefault(name, []).append(result)
    (fit,), (choice,) = results["fit"], results["choose"]
    return {
        "action": step["action"],
        "epsilon": step["epsilon"],
        "encoder": config["recipe"]["encoder"],
        "records": fit["records"],
        "unknown": sum(one["unknown"] for one in results.get("assign", [])),
        "cells": fit["cells"],
        "probes": min(step["probes"], fit["cells"]),
        "compared": sum(one["compared"] for one in results.get("cells", [])),
        "pairs": choice["pairs"],
        "would_leave": choice["chosen"],
        "removed": choice["removed"],
        "sweep": choice["sweep"],
        "random_ratio_limit": random_ratio_limit(fit["sampled"]),
        "warning": fit["problem"],
    }


EMBED = Stage(name="embed", plan=plan_embed, work=embed_kept, needs="embed")
"""For a job kind that embeds nothing by itself."""

STAGES = (
    Stage(name="draw", plan=_plan_groups, work=_sample),
    Stage(name="fit", plan=_plan_single, work=_fit),
    Stage(name="assign", plan=_plan_groups, work=_assign),
    Stage(name="cells", plan=_plan_cells, work=_cells),
    Stage(name="choose", plan=_plan_single, work=_choose),
)
