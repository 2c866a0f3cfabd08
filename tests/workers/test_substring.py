"""Repeated passages through the engine: units of any size, cut texts, what is told about them."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sqlalchemy import select

from catalog.database import Catalog
from catalog.errors import ConfigError
from catalog.store import Store, StoredFile
from catalog.tables.curation import Verdict
from catalog.tables.datasets import Version
from catalog.tables.engine import Run, Unit
from curation.dedup.exact import exact_hash, find_exact_duplicates
from curation.dedup.substring import SubstringConfig, find_repeated_spans
from curation.encoders import ENCODERS
from curation.recipe import Recipe
from tests.workers.building import drain
from tests.workers.corpus import KOREAN, WORDS
from tests.workers.test_dedup import ingest
from tests.workers.test_determinism import make_catalog
from workers import curated, manifests
from workers.pipelines.clean import submit_clean
from workers.pipelines.deduplicate import submit_dedup

SIZE = 12


def prose(rng: random.Random, number: int) -> str:
    words = rng.choice((WORDS, KOREAN))
    # A number a word: words alone are too few for texts to differ.
    return " ".join(f"{rng.choice(words)}{rng.randrange(10_000)}" for _ in range(number)) + ". "


def bodies(number: int, seed: int) -> list[str]:
    """Texts of their own with up to three of eight passages that others have too; some twice."""
    rng = random.Random(seed)
    passages = [prose(rng, rng.randint(SIZE, 30)) for _ in range(8)]
    made = []
    for _ in range(number):
        parts = [prose(rng, rng.randint(3, 30)) for _ in range(rng.randint(1, 3))]
        parts += rng.sample(passages, rng.randint(0, 3))
        rng.shuffle(parts)
        made.append("".join(parts).strip())
    return [*made, *(text.upper() for text in made[:5])]


def look(catalog: Catalog, dataset: str, action: str = "report", **scope: Any) -> Run:
    recipe = Recipe(name="passages", substring=SubstringConfig(min_tokens=SIZE, action=action))
    run_id, _ = submit_dedup(catalog, dataset=dataset, recipe=recipe, **scope)
    drain(catalog)
    with catalog.read() as session:
        run = session.get_one(Run, run_id)
        assert run.state == "done", run.reason
        return run


def spans_of(catalog: Catalog, run: Run) -> pl.DataFrame:
    store = Store.of(catalog.settings)
    with catalog.read() as session:
        found = [store.read_frame(file) for file in manifests.run_files(session, run.id, "spans")]
    return pl.concat(found).sort("record_id", "start")


def shards_of(catalog: Catalog, dataset: str, kind: str) -> list[dict[str, Any]]:
    with catalog.read() as session:
        version = manifests.require_version(session, manifests.find_dataset(session, dataset), kind)
        shards: list[dict[str, Any]] = manifests.read(Store.of(catalog.settings), version)["shards"]
    return shards


def records_of(catalog: Catalog, dataset: str) -> pl.DataFrame:
    store = Store.of(catalog.settings)
    return pl.concat(
        [store.read_frame(StoredFile.from_json(one["data"])) for one in shards_of(catalog, dataset, "raw")]
    )


def test_units_of_any_size_find_what_one_process_finds_in_memory(tmp_path: Path) -> None:
    texts, found = bodies(80, seed=3), []
    for dedup_rows in (20, 10_000):
        catalog = make_catalog(tmp_path / str(dedup_rows), dedup_rows=dedup_rows)
        ingest(catalog, tmp_path, "tickets", texts)
        run = look(catalog, "tickets")
        found.append(spans_of(catalog, run))
        with catalog.read() as session:
            names = session.scalars(select(Unit.stage_name).where(Unit.run_id == run.id)).all()
        stages = ("sample", "share", "window", "origin", "gather", "fetch", "cut")
        assert (min(names.count(stage) for stage in stages) > 1) == (dedup_rows == 20)
        assert "rewrite" not in names
    records = records_of(catalog, "tickets")
    gone = find_exact_duplicates(
        records["id"], exact_hash(records["text"]), length=records["text"].str.len_chars(), quality=None
    )
    left = records.filter(~pl.col("id").is_in(gone["record_id"].implode()))
    assert left.height == 80
    config = SubstringConfig(min_tokens=SIZE)
    expected = find_repeated_spans(left["id"], left["text"], None, config)
    assert found[0].equals(found[1])
    assert found[0].equals(expected)
    shard = {one: index // 20 for index, one in enumerate(records["id"])}
    apart = [shard[one] != shard[other] for one, other in expected.select("record_id", "keeper_id").rows()]
    assert sum(apart) > 10
    before = expected.shift()
    touching = ((expected["record_id"] == before["record_id"]) & (expected["start"] == before["end"])).sum()
    assert run.result is not None
    assert run.result["passages"] == {
        "min_tokens": SIZE,
        "action": "report",
        "rule": "substring/1",
        "compared": 80,
        "of_characters": int(left["text"].str.len_chars().sum()),
        "passages": expected.height - touching,
        "spans": expected.height,
        "records": expected["record_id"].n_unique(),
        "characters": int((expected["end"] - expected["start"]).sum()),
        "changed": 0,
        "emptied": 0,
    }
