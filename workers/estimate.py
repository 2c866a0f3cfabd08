"""How long a deduplication would take and how much it would need, told from a sample before it starts."""

import time
from collections.abc import Sequence
from typing import Any

import polars as pl

from catalog.database import Catalog
from catalog.store import Store, StoredFile
from curation.dedup.exact import exact_hash, find_exact_duplicates
from curation.dedup.near import find_near_duplicates
from curation.recipe import Recipe
from workers import manifests
from workers.pipelines.dedup import asked_scope, layout, unit_rows
from workers.pipelines.deduplicate import base_for

SAMPLE_ROWS = 20_000
OVERHEAD = 4.0
"""Reading, writing and checking what stages hand to each other, against the bare computation; measured."""
BASE_BYTES = 420 * 2**20
"""A worker that has loaded everything and does nothing; measured."""
BYTES_A_BAND = 110
"""Of a unit that signs, for each band of each record: entries, their copy in parts, the file's buffer; measured."""
DISK_A_BAND = 30
SHARD_SECONDS = 0.002
"""To read one shard of some thousand short records; measured."""


def estimate(
    catalog: Catalog,
    *,
    dataset: str,
    recipe: Recipe,
    against: Sequence[str] = (),
    per_source: bool = False,
    within: bool = True,
    rebuild: bool = False,
) -> dict[str, Any]:
    """Time, memory and disk of a deduplication that would be asked for so.

    Returns
    -------
    ``records`` to be looked at, ``known`` (more that an index has), ``bytes``, ``units``, ``workers``, ``seconds``,
    ``worker_memory_bytes``, ``disk_bytes``, ``sampled``,
    ``sample_seconds``.

    Raises
    ------
    NotFoundError : no such dataset, or nothing ingested. ConfigError : nothing to compare with, or with itself.
    """
    store = Store.of(catalog.settings)
    settings = catalog.settings
    with catalog.read() as session:
        version = manifests.require_version(session, manifests.find_dataset(session, dataset), "raw")
        scope, others = asked_scope(session, dataset, against=against, per_source=per_source, within=within)
        versions = [version, *others]
        shards = [entry for one in versions for entry in manifests.read(store, one)["shards"]]
        base = None if rebuild else base_for(session, catalog, version, recipe, scope)
        plan = layout(versions, recipe, unit_rows(session, versions, settings.dedup_rows))
    sample = _sample(store, shards)
    # What is compiled or loaded once a process is no part of the rate.
    _deduplicate(sample.head(2), recipe)
    began = time.perf_counter()
    _deduplicate(sample, recipe)
    seconds = time.perf_counter() - began
    known = base.num_records if base is not None else 0
    records = plan["num_records"] - known
    if base is not None:
        # One unit; it reads shards again of which it needs a few records, and of these about as many as are new.
        seconds = 2 * seconds + SHARD_SECONDS * len(shards) * sample.height / records
        plan |= {"num_shards": 0, "groups": 0, "exact_parts": 0, "band_parts": 0}
    mean_bytes = float(sample["text"].str.len_bytes().mean() or 0.0)  # type: ignore[arg-type]
    bands = recipe.near.bands if recipe.near is not None else 0
    a_unit = min(records, plan["rows"])
    return {
        "records": records,
        "known": known,
        "bytes": round(records * mean_bytes),
        "units": plan["num_shards"] + 3 * plan["groups"] + 2 * plan["exact_parts"] + plan["band_parts"] + 2,
        "workers": settings.num_workers,
        "seconds": round(OVERHEAD * seconds * records / max(1, sample.height) / settings.num_workers, 1),
        "worker_memory_bytes": round(BASE_BYTES + a_unit * (bands * BYTES_A_BAND + 4 * mean_bytes) + 9 * records),
        "disk_bytes": round(records * (bands * DISK_A_BAND + 60 + mean_bytes / 2)),
        "sampled": sample.height,
        "sample_seconds": round(seconds, 3),
    }


def _sample(store: Store, shards: list[dict[str, Any]]) -> pl.DataFrame:
    """Some thousand records, from shards all over the version."""
    step = max(1, len(shards) // 4)
    frames = []
    for entry in shards[::step]:
        frame = store.read_frame(StoredFile.from_json(entry["data"]), ["id", "text"])
        frames.append(frame.head(SAMPLE_ROWS // 4))
    return pl.concat(frames).unique("id", maintain_order=True)


def _deduplicate(sample: pl.DataFrame, recipe: Recipe) -> None:
    hashes = exact_hash(sample["text"])
    gone = find_exact_duplicates(sample["id"], hashes, length=sample["text"].str.len_chars())["record_id"]
    left = sample.filter(~pl.col("id").is_in(gone.implode()))
    if recipe.near is not None:
        find_near_duplicates(left["id"], left["text"], None, recipe.near)
