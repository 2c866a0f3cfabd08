"""The index: what came later is matched against what was there, as if everything had been there at once."""

import random
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from catalog.database import Catalog
from catalog.store import Store, StoredFile
from catalog.tables.curation import DuplicatePair
from catalog.tables.datasets import Version
from catalog.tables.engine import Run
from curation.dedup.config import NearConfig
from tests.workers.corpus import sentences
from tests.workers.test_dedup import deduplicate, ingest
from tests.workers.test_determinism import make_catalog
from workers import clusters, manifests
from workers.pipelines.update import kept_rows

NEAR = NearConfig(threshold=0.6, bands=20, rows=3, min_words=5, max_bucket=4)


def templates(count: int, seed: int) -> list[str]:
    """Texts of one form: buckets of them grow hot, and leaders change."""
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        words = [f"word{number}" for number in range(22)]
        for _ in range(rng.randint(0, 5)):
            words[rng.randrange(len(words))] = f"{rng.choice('xyz')}{rng.randrange(4)}"
        text = " ".join(words)
        made.append(text.upper() + " " * rng.randint(0, 2) if rng.random() < 0.2 else text)
    return made


def corpus(seed: int) -> list[str]:
    bodies = [one["body"] for one in sentences(90, seed=seed)] + templates(60, seed)
    random.Random(seed).shuffle(bodies)
    return bodies


def in_force(catalog: Catalog, run: Run) -> dict[str, Any]:
    """All that a deduplication leaves for people to read."""
    store = Store.of(catalog.settings)
    columns = [one.key for one in DuplicatePair.__table__.columns if one.key != "run_id"]
    with catalog.read() as session:
        version = session.scalars(
            select(Version).where(Version.kind == "deduplicated").order_by(Version.number.desc()).limit(1)
        ).one()
        document = manifests.read(store, version)
        kept = set()
        for entry in document["shards"]:
            ids = store.read_frame(StoredFile.from_json(entry["data"]), ["id"])["id"]
            kept |= set(ids.gather(kept_rows(store, document, entry)))
        pairs = session.scalars(select(DuplicatePair).where(clusters.in_force(run)))
        assert len(kept) == version.num_records
        result = run.result or {}
        return {
            "kept": kept,
            "pairs": sorted(tuple(getattr(one, name) for name in columns) for one in pairs),
            "measured": sorted(row for part in clusters.measured_pairs(session, store, run) for row in part.rows()),
            "summary": {key: result[key] for key in ("records", "kept", "exact_duplicates", "near_duplicates")},
            "clusters": (result["clusters"], result["biggest_cluster"]),
            "shown": clusters.biggest_clusters(session, run, 5),
            "what_if": clusters.what_if(session, store, run, [0.7, 0.9]),
        }


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_updates_give_what_one_run_over_everything_gives(tmp_path: Path, seed: int) -> None:
    bodies, rng = corpus(seed), random.Random(seed)
    cuts = sorted(rng.sample(range(80, len(bodies)), 4))
    # The base in many units, of which an update reads the files; the updates fit one.
    catalog = make_catalog(tmp_path / "home", dedup_rows=40)
    for number, (start, end) in enumerate(zip([0, *cuts], [*cuts, len(bodies)], strict=True)):
        ingest(catalog, tmp_path, f"tickets+{number}", bodies[start:end])
        run = deduplicate(catalog, "tickets", NEAR)
        assert bool(run.config.get("chain")) == (number > 0 and end - start <= 40)
        found = in_force(catalog, run)
        again = deduplicate(catalog, "tickets", NEAR, rebuild=True)
        assert "chain" not in again.config
        assert in_force(catalog, again) == found
        # The next one builds on the update, not on the rebuilt one.
        with catalog.write() as session:
            session.get_one(Run, again.id).config = again.config | {"recipe_hash": "another"}
