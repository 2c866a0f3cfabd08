"""Deduplication through the engine: scopes, references, clusters, thresholds tried afterwards."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from sqlalchemy import select

from catalog.database import Catalog
from catalog.errors import ConfigError, NotFoundError
from catalog.store import Store, StoredFile
from catalog.tables.curation import DuplicatePair
from catalog.tables.datasets import Version
from catalog.tables.engine import Run
from curation.dedup.config import NearConfig
from curation.dedup.near import find_near_duplicates
from curation.recipe import Recipe
from service.report import render_report
from tests.workers.building import drain
from tests.workers.corpus import sentences
from tests.workers.test_determinism import make_catalog
from tests.workers.test_pipelines import write_rows
from workers import clusters, curated, manifests
from workers.biography import biography
from workers.estimate import estimate
from workers.pipelines.clean import submit_clean
from workers.pipelines.deduplicate import other_datasets, submit_dedup
from workers.pipelines.ingest import submit_ingest

NEAR = NearConfig(threshold=0.7, bands=20, rows=5, min_words=5)


def ingest(catalog: Catalog, folder: Path, name: str, bodies: list[str]) -> None:
    path = write_rows(folder / f"{name}.jsonl", [{"body": body} for body in bodies])
    submit_ingest(catalog, dataset=name.partition("+")[0], paths=[path], text_column="body", label_column=None)
    drain(catalog)


def deduplicate(catalog: Catalog, dataset: str, near: NearConfig | None = NEAR, **scope: Any) -> Run:
    run_id, _ = submit_dedup(catalog, dataset=dataset, recipe=Recipe(name="dedup", near=near), **scope)
    drain(catalog)
    with catalog.read() as session:
        run = session.get_one(Run, run_id)
        assert run.state == "done", run.reason
        return run


def removed(catalog: Catalog, run: Run) -> dict[str, str]:
    """Text of each removed record to the text of its keeper, with the other dataset's name before it."""
    with catalog.read() as session:
        pairs = session.scalars(select(DuplicatePair).where(DuplicatePair.run_id == run.id)).all()
        ids = {one.record_id for one in pairs} | {one.keeper_id for one in pairs}
        texts = clusters.texts_of(session, Store.of(catalog.settings), run, ids)

    def text(record: str) -> str:
        dataset, colon, _ = record.rpartition(":")
        return f"{dataset}{colon}{texts[record]['text']}"

    return {text(one.record_id): text(one.keeper_id) for one in pairs}


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return make_catalog(tmp_path / "home", dedup_rows=30)


TEXT = "the customer asked for a refund of the printer that never arrived at the office"
OTHER = "완전히 다른 이야기를 하는 문장이라서 아무것과도 비슷하지 않습니다 정말로"


def test_units_of_any_size_find_what_one_process_finds_in_memory(tmp_path: Path) -> None:
    bodies = [one["body"] for one in sentences(150, seed=5)]
    found = []
    for dedup_rows in (20, 10_000):
        catalog = make_catalog(tmp_path / str(dedup_rows), dedup_rows=dedup_rows)
        ingest(catalog, tmp_path, "tickets", bodies)
        run = deduplicate(catalog, "tickets")
        with catalog.read() as session:
            measured = pl.concat(clusters.measured_pairs(session, Store.of(catalog.settings), run))
            version = session.scalars(select(Version).where(Version.kind == "raw")).one()
            shards = manifests.read(Store.of(catalog.settings), version)["shards"]
        found.append(measured.sort("record_id", "keeper_id"))
    assert found[0].equals(found[1])
    store = Store.of(catalog.settings)
    records = pl.concat([store.read_frame(StoredFile.from_json(one["data"]), ["id", "text"]) for one in shards])
    exact = found[0].filter(pl.col("bands_shared") == 0)["record_id"]
    left = records.filter(~pl.col("id").is_in(exact.implode()))
    near = find_near_duplicates(left["id"], left["text"], None, NEAR).pairs
    assert found[0].filter(pl.col("bands_shared") > 0).select(near.columns).equals(near)
    assert near["accepted"].sum() > 5
    assert run.result is not None
    assert run.result["kept"] == 150 - run.result["exact_duplicates"] - run.result["near_duplicates"]


def test_deduplicated_version_holds_the_rows_that_stay(catalog: Catalog, tmp_path: Path) -> None:
    ingest(catalog, tmp_path, "tickets", [TEXT, OTHER, TEXT.upper(), TEXT + " today"])
    deduplicate(catalog, "tickets")
    store = Store.of(catalog.settings)
    with catalog.read() as session:
        version = session.scalars(select(Version).where(Version.kind == "deduplicated")).one()
        (entry,) = manifests.read(store, version)["shards"]
    text = store.read_frame(StoredFile.from_json(entry["data"]))["text"]
    rows = store.read_frame(StoredFile.from_json(entry["selection"]))["row"]
    assert text.gather(rows).to_list() == [OTHER, TEXT + " today"]
    assert version.num_records == 2


def test_exact_duplicate_follows_its_keeper_to_a_better_record(catalog: Catalog, tmp_path: Path) -> None:
    ingest(catalog, tmp_path, "tickets", [TEXT, TEXT.upper(), TEXT + " today"])
    assert removed(catalog, deduplicate(catalog, "tickets")) == {TEXT: TEXT + " today", TEXT.upper(): TEXT + " today"}


def test_per_source_compares_the_records_of_one_file_only(catalog: Catalog, tmp_path: Path) -> None:
    ingest(catalog, tmp_path, "tickets", [TEXT, OTHER])
    ingest(catalog, tmp_path, "tickets+2", [TEXT + " today", OTHER, OTHER + " 네"])
    everywhere = removed(catalog, deduplicate(catalog, "tickets"))
    assert set(everywhere) > {TEXT}
    within_files = removed(catalog, deduplicate(catalog, "tickets", per_source=True))
    assert len(within_files) == 1
    assert set(within_files) | set(within_files.values()) == {OTHER, OTHER + " 네"}


def test_leaked_records_leave_and_the_evaluation_set_stays_whole(catalog: Catalog, tmp_path: Path) -> None:
    train = [TEXT + " today and tomorrow", TEXT + " today", OTHER, "한 번도 나온 적이 없는 문장입니다 그렇지요 네"]
    ingest(catalog, tmp_path, "train", train)
    ingest(catalog, tmp_path, "evals", [TEXT, TEXT + " today", OTHER.upper(), OTHER])
    leaked = removed(catalog, deduplicate(catalog, "train", against=["evals"], within=False))
    # By the longest text of the evaluation set that is near; longer training texts never keep their place from it.
    assert leaked == {
        train[0]: f"evals:{TEXT} today",
        train[1]: f"evals:{TEXT} today",
        OTHER: f"evals:{OTHER}",
    }
    assert other_datasets(catalog, "train") == ["evals"]


def test_own_duplicates_leave_only_when_asked_for(catalog: Catalog, tmp_path: Path) -> None:
    ingest(catalog, tmp_path, "train", [TEXT, TEXT.upper(), TEXT + " today", OTHER])
    ingest(catalog, tmp_path, "evals", [OTHER])
    assert set(removed(catalog, deduplicate(catalog, "train", against=["evals"], within=False))) == {OTHER}
    both = removed(catalog, deduplicate(catalog, "train", against=["evals"], within=True))
    assert set(both) == {OTHER, TEXT, TEXT.upper()}


def test_exact_only_measures_nothing(catalog: Catalog, tmp_path: Path) -> None:
    ingest(catalog, tmp_path, "tickets", [TEXT, TEXT.upper(), TEXT + " today"])
    run = deduplicate(catalog, "tickets", None)
    assert len(removed(catalog, run)) == 1
    with catalog.read() as session:
        kinds = pl.concat(clusters.measured_pairs(session, Store.of(catalog.settings), run))["kind"]
    assert kinds.unique().to_list() == ["exact"]


@pytest.mark.no_cover
def test_what_if_gives_what_a_run_with_that_threshold_gives(catalog: Catalog, tmp_path: Path) -> None:
    ingest(catalog, tmp_path, "tickets", [one["body"] for one in sentences(150, seed=6)])
    run = deduplicate(catalog, "tickets")
    tried = [0.7, 0.8, 0.9, 1.0]
    with catalog.read() as session:
        outcomes = clusters.what_if(session, Store.of(catalog.settings), run, tried)
    for outcome in outcomes:
        again = deduplicate(catalog, "tickets", NearConfig(threshold=outcome.threshold, bands=20, rows=5, min_words=5))
        with catalog.read() as session:
            near = pl.concat(clusters.measured_pairs(session, Store.of(catalog.settings), again)).filter(
                pl.col("accepted"), pl.col("bands_shared") > 0
            )
        assert (outcome.removed, outcome.clusters) == (near.height, near["keeper_id"].n_unique())
    assert outcomes[0].removed > outcomes[2].removed


def test_export_names_both_texts_and_their_origin(catalog: Catalog, tmp_path: Path) -> None:
    ingest(catalog, tmp_path, "tickets", [TEXT, OTHER, TEXT + " today"])
    run = deduplicate(catalog, "tickets")
    with catalog.read() as session:
        (frame,) = clusters.cluster_rows(session, Store.of(catalog.settings), run)
        assert clusters.newest_run(session, manifests.find_dataset(session, "tickets")).id == run.id
        assert clusters.biggest_clusters(session, run, 5) == [(frame["cluster"][0], 1)]
    (row,) = frame.to_dicts()
    assert (row["record_text"], row["record_line"], row["keeper_text"], row["keeper_line"]) == (
        TEXT,
        1,
        TEXT + " today",
        3,
    )
    assert row["record_source"].endswith("tickets.jsonl")


def test_estimate_reads_a_sample_and_writes_nothing(catalog: Catalog, tmp_path: Path) -> None:
    ingest(catalog, tmp_path, "tickets", [one["body"] for one in sentences(60, seed=7)])
    found = estimate(catalog, dataset="tickets", recipe=Recipe(name="dedup", near=NEAR))
    assert (found["records"], found["sampled"]) == (60, 60)
    assert found["seconds"] >= 0
    assert found["worker_memory_bytes"] > 400 * 2**20
    with catalog.read() as session:
        assert session.scalars(select(Run).where(Run.kind == "dedup")).all() == []


@pytest.mark.parametrize(
    ("scope", "message"),
    [
        ({"against": ["tickets"]}, "compared with itself"),
        ({"within": False}, "nothing to compare"),
        ({"against": ["evals"], "per_source": True}, "leave out one"),
        ({"against": ["evls"]}, "evals"),
    ],
)
def test_scopes_that_cannot_work_are_refused(
    catalog: Catalog, tmp_path: Path, scope: dict[str, Any], message: str
) -> None:
    ingest(catalog, tmp_path, "tickets", [TEXT])
    ingest(catalog, tmp_path, "evals", [OTHER])
    with pytest.raises((ConfigError, NotFoundError), match=message):
        submit_dedup(catalog, dataset="tickets", recipe=Recipe(name="dedup", near=NEAR), **scope)


def test_nothing_looked_for_yet_is_told_with_the_command(catalog: Catalog, tmp_path: Path) -> None:
    ingest(catalog, tmp_path, "tickets", [TEXT])
    with catalog.read() as session, pytest.raises(NotFoundError, match="winnow dedup tickets"):
        clusters.newest_run(session, manifests.find_dataset(session, "tickets"))


def test_an_earlier_deduplication_asked_for_again_becomes_the_newest_version(database: Catalog, tmp_path: Path) -> None:
    Store.of(database.settings).create()
    bodies = [row["body"] for row in sentences(20, seed=4)]
    ingest(database, tmp_path, "tickets", [*bodies, bodies[0]])
    numbers = []
    for near in (NEAR, None, NEAR, NEAR, None):
        run = deduplicate(database, "tickets", near)
        with database.read() as session:
            dataset = manifests.find_dataset(session, "tickets")
            version = manifests.require_version(session, dataset, "deduplicated")
            assert version.run_id == run.id
            numbers.append(version.number)
    assert numbers == [2, 3, 4, 4, 5]


def test_cleaning_against_an_evaluation_set_keeps_it_out_of_what_is_trained_on(
    catalog: Catalog, tmp_path: Path
) -> None:
    ingest(catalog, tmp_path, "train", [TEXT + " today", OTHER, "한 번도 나온 적이 없는 문장입니다 그렇지요 네"])
    ingest(catalog, tmp_path, "evals", [TEXT, OTHER])
    recipe = Recipe(name="plain", near=NEAR)
    store = Store.of(catalog.settings)
    kept = {}
    for against in ([], ["evals"], []):
        submit_clean(catalog, dataset="train", recipe=recipe, against=against)
        drain(catalog)
        with catalog.read() as session:
            dataset = manifests.find_dataset(session, "train")
            version = manifests.require_version(session, dataset, "curated")
            kept[version.number] = sorted(curated.read_records(store, version)["text"])
            assert version.num_shards == 1
            if against:
                story = biography(session, store, dataset, "train.jsonl:1")
                page = render_report(session, store, dataset)
    everything = sorted([TEXT + " today", OTHER, "한 번도 나온 적이 없는 문장입니다 그렇지요 네"])
    assert kept == {2: everything, 3: ["한 번도 나온 적이 없는 문장입니다 그렇지요 네"], 4: everything}
    assert (story["verdict"], story["reason"]) == ("dropped", "near_duplicate")
    assert story["duplicate_of"]["kept"].startswith("evals:")
    assert "evals:" in page


def test_report_of_a_dataset_that_was_deduplicated_alone(catalog: Catalog, tmp_path: Path) -> None:
    ingest(catalog, tmp_path, "tickets", [TEXT, OTHER, TEXT.upper(), TEXT + " today"])
    run = deduplicate(catalog, "tickets")
    store = Store.of(catalog.settings)
    with catalog.read() as session:
        page = render_report(session, store, manifests.find_dataset(session, "tickets"))
    assert f"deduplication alone (run <code>{run.id[:8]}</code>)" in page
    assert "4 records in, <strong>2 kept</strong>" in page
    assert "2 records left in favour of 1 kept ones" in page
    assert "<mark>" in page or "<del>" in page
    assert "20 bands of 5 rows find" in page
    # What was cleaned since is the version that the report is about, and the newest look for duplicates the clusters'.
    recipe = Recipe(name="plain", near=None, exact=False, encoder="hashing")
    submit_clean(catalog, dataset="tickets", recipe=recipe)
    drain(catalog)
    with catalog.read() as session:
        page = render_report(session, store, manifests.find_dataset(session, "tickets"))
    assert "by recipe <code>plain</code>" in page
    assert f"By run <code>{run.id[:8]}</code> (<code>winnow dedup</code>), 2 records left" in page
