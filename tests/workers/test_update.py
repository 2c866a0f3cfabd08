"""The index: what came later is matched against what was there, as if everything had been there at once."""

import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from catalog.database import Catalog
from catalog.errors import ConflictError
from catalog.store import Store, StoredFile
from catalog.tables.curation import DuplicatePair
from catalog.tables.datasets import Version
from catalog.tables.engine import Run
from curation.dedup.config import NearConfig
from curation.recipe import Recipe
from service.report import render_report
from tests.workers.building import drain
from tests.workers.corpus import sentences
from tests.workers.test_dedup import deduplicate, ingest
from tests.workers.test_determinism import make_catalog
from workers import clusters, index, manifests
from workers.pipelines.deduplicate import submit_dedup
from workers.pipelines.update import kept_rows, submit_rollback

NEAR = NearConfig(threshold=0.6, bands=20, rows=3, min_words=5, max_bucket=4)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return make_catalog(tmp_path / "home", dedup_rows=30)


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


def test_updates_give_what_one_run_over_everything_gives(tmp_path: Path) -> None:
    bodies = corpus(1)
    # The base in many units, of whose files an update makes one index; the updates fit a unit each.
    catalog = make_catalog(tmp_path / "home", dedup_rows=25)
    cuts = [0, 90, 105, 120, 128, 150]
    for number, (start, end) in enumerate(pairwise(cuts)):
        ingest(catalog, tmp_path, f"tickets+{number}", bodies[start:end])
        run = deduplicate(catalog, "tickets", NEAR)
        assert len(run.config.get("chain", [])) == number
    assert run.result is not None
    assert (run.result["added"], run.result["read_again"] > 0) == (22, True)
    with catalog.read() as session:
        merges = session.scalars(select(Run).where(Run.kind == "merge")).all()
        assert len(merges) >= 2
        assert {one.state for one in merges} == {"done"}
        newest = index.state_of(session, run.id)
    assert newest is not None
    assert len(Store.of(catalog.settings).read_json(newest)["segments"]) < len(cuts) - 1
    found = in_force(catalog, run)
    whole = deduplicate(catalog, "tickets", NEAR, rebuild=True)
    assert "chain" not in whole.config
    assert in_force(catalog, whole) == found
    assert len(found["pairs"]) > 30


def test_what_is_taken_back_is_as_before_and_can_be_matched_again(catalog: Catalog, tmp_path: Path) -> None:
    bodies = corpus(2)
    ingest(catalog, tmp_path, "tickets", bodies[:100])
    before = in_force(catalog, deduplicate(catalog, "tickets", NEAR))
    with pytest.raises(ConflictError, match="looked at everything"):
        submit_rollback(catalog, dataset="tickets")
    ingest(catalog, tmp_path, "tickets+more", bodies[100:120])
    update = deduplicate(catalog, "tickets", NEAR)
    after = in_force(catalog, update)
    assert after["kept"] != before["kept"]

    submit_rollback(catalog, dataset="tickets")
    drain(catalog)
    with catalog.read() as session:
        newest = clusters.newest_run(session, manifests.find_dataset(session, "tickets"))
        page = render_report(session, Store.of(catalog.settings), manifests.find_dataset(session, "tickets"))
    assert f"deduplication alone (run <code>{newest.id[:8]}</code>)" in page
    assert in_force(catalog, newest) == before
    again = deduplicate(catalog, "tickets", NEAR)
    assert again.id != update.id
    assert again.config["chain"] == update.config["chain"]
    assert in_force(catalog, again) == after


def test_what_an_index_cannot_take_is_looked_at_whole(catalog: Catalog, tmp_path: Path) -> None:
    bodies = corpus(3)
    ingest(catalog, tmp_path, "tickets", bodies[:40])
    deduplicate(catalog, "tickets", NEAR)
    # Another threshold has no index yet, and one of its own afterwards.
    other = NearConfig(threshold=0.8, bands=20, rows=3, min_words=5)
    assert "chain" not in deduplicate(catalog, "tickets", other).config
    # More came than fits a unit (30 records).
    ingest(catalog, tmp_path, "tickets+many", bodies[40:80])
    assert "chain" not in deduplicate(catalog, "tickets", other).config
    ingest(catalog, tmp_path, "tickets+few", bodies[80:90])
    assert "chain" in deduplicate(catalog, "tickets", other).config
    assert "chain" not in deduplicate(catalog, "tickets", other, per_source=True).config


def test_a_damaged_index_is_found_out(catalog: Catalog, tmp_path: Path) -> None:
    bodies = corpus(4)
    ingest(catalog, tmp_path, "tickets", bodies[:100])
    run = deduplicate(catalog, "tickets", NEAR)
    with catalog.read() as session:
        (file,) = manifests.run_files(session, run.id, "index_measured")
        few = manifests.run_files(session, run.id, "index_segment")[0]
    assert file.size_bytes > 0
    path = tmp_path / "home" / "store" / few.name
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    ingest(catalog, tmp_path, "tickets+more", bodies[100:110])
    run_id, _ = submit_dedup(catalog, dataset="tickets", recipe=Recipe(name="dedup", near=NEAR))
    drain(catalog)
    with catalog.read() as session:
        failed = session.get_one(Run, run_id)
        assert failed.state == "failed"
        assert "is damaged" in (failed.reason or "")
    whole = deduplicate(catalog, "tickets", NEAR, rebuild=True)
    assert whole.result is not None
    assert whole.result["records"] == 110
