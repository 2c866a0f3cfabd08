"""What nobody refers to is found and removed; nothing that any command needs ever is."""

import os
import shutil
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from sqlalchemy import select

from catalog import references
from catalog.database import Catalog
from catalog.errors import ConfigError, NotFoundError
from catalog.objects import MARKER
from catalog.store import Store, StoredFile
from catalog.tables import metadata
from catalog.tables.datasets import Version
from catalog.tables.engine import Run, Unit
from catalog.tables.quality import QualityModel
from curation.coverage.config import MapConfig
from curation.recipe import Recipe, load_recipe
from labeling.schema import parse_schema
from service.report import render_report
from tests.cli.command import Winnow
from tests.workers.building import drain
from tests.workers.corpus import sentences
from tests.workers.test_dedup import deduplicate, ingest
from tests.workers.test_determinism import make_catalog
from tests.workers.test_pipelines import SCHEMA, TINY, write_rows
from tests.workers.test_update import NEAR, corpus, in_force
from training.recipe import TrainRecipe
from workers import engine, manifests, process_names
from workers.biography import biography
from workers.garbage import collect
from workers.labeling import open_queue
from workers.pipelines.clean import submit_clean
from workers.pipelines.ingest import submit_ingest
from workers.pipelines.label_errors import submit_label_errors
from workers.pipelines.map import submit_map
from workers.pipelines.train import submit_train
from workers.pipelines.update import submit_rollback
from workers.quality import labelled_texts, train_classifier

RECIPE = """
name: many
rules:
  char_count: {minimum: 10}
  word_count: {minimum: 3, maximum: 1000}
edit: [fix_encoding]
near: {threshold: 0.7, bands: 20, rows: 5}
substring: {min_tokens: 12}
pii: {}
encoder: hashing
quality:
  - {classifier: parcels, minimum: 0.0}
"""
TINIER = TINY.replace("compressions: [int8]", "compressions: []").replace("steps: 6", "steps: 2")
OLD = time.time() - 7 * 86400


def age(catalog: Catalog) -> None:
    """Make every file of the store a week old."""
    for path in (catalog.settings.home / "store").rglob("*"):
        if path.is_file():
            os.utime(path, (OLD, OLD))


def plant(catalog: Catalog) -> set[str]:
    """Files as lost races and killed writers leave them."""
    store = Store.of(catalog.settings)
    made = {
        store.write_frame(pl.DataFrame({"text": ["nobody's"]}), "text").name,
        store.write_json({"shards": []}, "manifests").name,
        store.write_bytes(b"weights", "models", "safetensors").name,
    }
    half = catalog.settings.home / "store" / "text" / "ab" / f".{'ab' * 32}.parquet.{'0' * 32}.tmp"
    half.parent.mkdir(exist_ok=True)
    half.write_bytes(b"PAR1")
    return made | {half.relative_to(catalog.settings.home / "store").as_posix()}


@pytest.fixture(scope="module")
def lived_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    """A home in which everything was done that writes files, with a run that is under way."""
    folder = tmp_path_factory.mktemp("lived-in")
    catalog = make_catalog(folder / "home", dedup_rows=30)
    path = write_rows(folder / "a.jsonl", sentences(150, seed=3))
    submit_ingest(catalog, dataset="messages", paths=[path], text_column="body", label_column="queue")
    drain(catalog)
    good, bad = labelled_texts(catalog, "messages", "software", None)
    train_classifier(catalog, "parcels", good=good, bad=bad, encoder="hashing", origin={})
    (folder / "many.yaml").write_text(RECIPE)
    submit_clean(catalog, dataset="messages", recipe=load_recipe(str(folder / "many.yaml")))
    drain(catalog)
    submit_map(catalog, dataset="messages", config=MapConfig(clusters=3), against=None)
    open_queue(catalog, dataset="messages", name="q", schema=parse_schema(SCHEMA), strategy="random", num_entries=10)
    submit_label_errors(catalog, dataset="messages")
    submit_train(catalog, dataset="messages", recipe=TrainRecipe.from_yaml(TINIER, name="tiny"))
    drain(catalog)
    bodies = corpus(1)
    for number, (start, end) in enumerate(((0, 90), (90, 105), (105, 120))):
        ingest(catalog, folder, f"tickets+{number}", bodies[start:end])
        deduplicate(catalog, "tickets", NEAR)
    submit_rollback(catalog, dataset="tickets")
    drain(catalog)
    with catalog.read() as session:
        assert {one.state for one in session.scalars(select(Run))} == {"done"}, [
            (one.kind, one.reason) for one in session.scalars(select(Run)) if one.state != "done"
        ]
    yield catalog
    catalog.close()


def copy_of(catalog: Catalog, folder: Path) -> Catalog:
    """The same home elsewhere, so that a test may spoil it."""
    with catalog.read() as session:
        session.connection().exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copytree(catalog.settings.home, folder / "home")
    return Catalog(catalog.settings.model_copy(update={"home": folder / "home"}))


def names(catalog: Catalog) -> set[str]:
    return {one.name for one in Store.of(catalog.settings).files()}


def test_orphans_go_and_every_file_that_anything_needs_stays(lived_in: Catalog, tmp_path: Path) -> None:
    catalog = copy_of(lived_in, tmp_path)
    before = names(catalog)
    kinds = {one.split("/")[0] for one in before}
    assert kinds >= {"text", "manifests", "index", "models", "labels", "quality", "embedding", "pii_spans"}, kinds
    planted = plant(catalog)
    age(catalog)
    found = collect(catalog)
    assert {one.name for one in found.orphans} == planted
    assert (found.removed, found.num_young, found.strangers) == (0, 0, [])
    assert names(catalog) == before | planted
    assert collect(catalog, delete=True).removed == len(planted)
    assert names(catalog) == before
    use_everything(catalog, tmp_path)


def use_everything(catalog: Catalog, folder: Path) -> None:
    """Read back and build on all that was there."""
    store = Store.of(catalog.settings)
    with catalog.read() as session:
        tickets, messages = (manifests.find_dataset(session, name) for name in ("tickets", "messages"))
        for dataset in (tickets, messages):
            assert len(render_report(session, store, dataset)) > 1000
        ids = [
            one
            for entry in manifests.read(store, manifests.require_version(session, messages, "raw"))["shards"]
            for one in store.read_frame(StoredFile.from_json(entry["data"]), ["id"])["id"]
        ]
        assert biography(session, store, messages, ids[0])["rules"]
    ingest(catalog, folder, "tickets+9", corpus(1)[120:130])
    update = deduplicate(catalog, "tickets", NEAR)
    assert update.config["chain"], "it built on the index that was there"
    found = in_force(catalog, update)
    assert in_force(catalog, deduplicate(catalog, "tickets", NEAR, rebuild=True)) == found
    submit_clean(catalog, dataset="messages", recipe=Recipe(name="other", exact=False))
    drain(catalog)
    with catalog.read() as session:
        assert {one.state for one in session.scalars(select(Run))} == {"done"}


def test_what_a_running_unit_has_written_stays_however_long_it_takes(lived_in: Catalog, tmp_path: Path) -> None:
    catalog = copy_of(lived_in, tmp_path)
    path = write_rows(tmp_path / "b.jsonl", sentences(50, seed=9))
    submit_ingest(catalog, dataset="more", paths=[path], text_column="body", label_column=None)
    with catalog.read() as session:
        unit_id = session.scalars(select(Unit.id).where(Unit.state == "ready")).one()
    mine = engine.take(catalog, unit_id, process_names.this_process())
    assert mine is not None
    written = Store.of(catalog.settings).write_frame(pl.DataFrame({"text": ["by the unit"]}), "text")
    age(catalog)
    # Claimed before it wrote: eight days ago, and written seven days ago.
    with catalog.write() as session:
        session.get_one(Unit, unit_id).started_at = catalog.now(session) - timedelta(days=8)
    found = collect(catalog, delete=True)
    assert (found.orphans, found.num_young) == ([], 1)
    assert written.name in names(catalog)
    with catalog.write() as session:
        session.get_one(Unit, unit_id).state = "ready"
    assert [one.name for one in collect(catalog, delete=True).orphans] == [written.name]


def test_young_files_and_strangers_stay(lived_in: Catalog, tmp_path: Path) -> None:
    catalog = copy_of(lived_in, tmp_path)
    planted = plant(catalog)
    stranger = catalog.settings.home / "store" / "README.txt"
    stranger.write_text("mine")
    os.utime(stranger, (OLD, OLD))
    found = collect(catalog, delete=True)
    assert (found.orphans, found.num_young, found.strangers) == ([], len(planted), ["README.txt"])
    found = collect(catalog, grace=timedelta(hours=1), delete=True)
    assert found.orphans == []
    with pytest.raises(ConfigError, match=r"a grace of 0\.5 h must be at least 1 h"):
        collect(catalog, grace=timedelta(minutes=30))
    # What was killed while it removed a file that somebody needs is put back.
    needed = next(one for one in sorted(names(catalog)) if one.startswith("text/") and one.endswith(".parquet"))
    path = catalog.settings.home / "store" / needed
    path.rename(path.with_name(path.name + ".removing"))
    collect(catalog, delete=True)
    assert path.exists()


def test_nothing_is_removed_while_a_manifest_cannot_be_read(lived_in: Catalog, tmp_path: Path) -> None:
    catalog = copy_of(lived_in, tmp_path)
    planted = plant(catalog)
    age(catalog)
    with catalog.read() as session:
        name = session.scalars(select(Version.manifest_name)).first()
    assert name is not None
    (catalog.settings.home / "store" / name).unlink()
    with pytest.raises(NotFoundError, match="restore it from a backup"):
        collect(catalog, delete=True)
    assert planted <= names(catalog)


def test_references_are_found_on_each_database(database: Catalog, tmp_path: Path) -> None:
    store = Store.of(database.settings)
    store.create()
    path = write_rows(tmp_path / "a.jsonl", sentences(40, seed=3))
    submit_ingest(database, dataset="tickets", paths=[path], text_column="body", label_column="queue")
    drain(database)
    submit_clean(database, dataset="tickets", recipe=Recipe(name="small", exact=False))
    drain(database)
    planted = plant(database)
    age(database)
    assert {one.name for one in collect(database).orphans} == planted
    with database.read() as session:
        found = references.find_references(session, store)
    assert names(database) - {MARKER} - planted == {one for one in names(database) if one in found}
    assert found.names <= names(database)


def test_what_a_named_file_names_in_turn_is_referred_to(database: Catalog) -> None:
    store = Store.of(database.settings)
    store.create()
    segment = store.write_bytes(b"numbers", "index", "arrow")
    state = store.write_json({"segments": [segment.to_json()]}, "index")
    above = store.write_json({"states": [state.name]}, "index")
    loose = store.write_json({"segments": [store.write_bytes(b"others", "index", "arrow").name]}, "index")
    with database.write() as session:
        now = database.now(session)
        session.add(
            QualityModel(name="m", version=1, scorer="classifier", file=above.to_json(), summary={}, created_at=now)
        )
    age(database)
    orphans = {one.name for one in collect(database).orphans}
    assert orphans == names(database) - {segment.name, state.name, above.name}
    assert loose.name in orphans
    assert len(orphans) == 2


def test_every_table_is_looked_through_or_known_to_name_no_file() -> None:
    assert set(metadata.tables) >= references.WITHOUT_FILES
    looked_through = set(metadata.tables) - references.WITHOUT_FILES
    assert looked_through >= {"shards", "versions", "units", "runs", "quality_models", "evaluations", "label_queues"}


def test_the_command_lists_and_deletes_only_when_told(tmp_path: Path) -> None:
    winnow = Winnow(tmp_path / "home")
    winnow.ok("init")
    orphan = Store(f"file://{winnow.home}/store").write_bytes(b"x", "models", "bin")
    path = winnow.home / "store" / orphan.name
    os.utime(path, (OLD, OLD))
    told, again, deleted = winnow.each(["gc"], ["gc", "--json"], ["gc", "--delete", "--older-than", "2", "--json"])
    assert (told.code, orphan.name in told.out) == (0, True)
    assert "nothing was deleted; `winnow gc --delete` does it" in told.err
    assert (again.json["removed"], [one["name"] for one in again.json["orphans"]]) == (0, [orphan.name])
    assert deleted.json["removed"] == 1
    assert not path.exists()
