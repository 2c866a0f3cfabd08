"""Exports give back the columns that came in, with where each record is from, to the tools that are to read them."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import polars as pl
import pyarrow.parquet as pq
import pytest
from sqlalchemy import select

from catalog.database import Catalog
from catalog.errors import ConfigError, NotFoundError
from catalog.store import Store
from catalog.tables.curation import DuplicatePair
from catalog.tables.datasets import Dataset
from curation.recipe import load_recipe
from curation.sources.mapping import Mapping
from tests.workers.building import drain
from tests.workers.corpus import RECIPE, sentences
from tests.workers.test_determinism import make_catalog
from workers.export import Export, find_version, format_of
from workers.pipelines.clean import submit_clean
from workers.pipelines.ingest import submit_ingest

TURNS = [
    {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": one["body"]}], "n": number}
    for number, one in enumerate(sentences(20, seed=2))
]
NESTED = [
    {
        "body": {"content": row["body"], "tags": ["a"] * (number % 3)},
        "meta": {
            "topic": row["queue"],
            "site": "가.kr" if number % 2 else "b.io",
            "score": number if number % 2 else 0.5,
        },
    }
    for number, row in enumerate(sentences(40, seed=8))
]


def write_lines(path: Path, rows: list[dict[str, Any]]) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """``nested``: a folder of two splits with nested columns, cleaned; ``talks``: conversations, not cleaned."""
    folder = tmp_path_factory.mktemp("export")
    catalog = make_catalog(folder / "home")
    write_lines(folder / "data" / "train.jsonl", NESTED[:30])
    write_lines(folder / "data" / "test.jsonl", NESTED[30:])
    mapping = Mapping(text="body.content", label="meta.topic", source="meta.site")
    submit_ingest(catalog, dataset="nested", paths=[str(folder / "data")], mapping=mapping)
    talks = write_lines(folder / "talks.jsonl", TURNS)
    submit_ingest(catalog, dataset="talks", paths=[talks], mapping=Mapping(turns="openai"))
    drain(catalog)
    (folder / "recipe.yaml").write_text(RECIPE)
    submit_clean(catalog, dataset="nested", recipe=load_recipe(str(folder / "recipe.yaml")))
    drain(catalog)
    return catalog


def export(catalog: Catalog, dataset: str, path: Path, *, version: int | None = None, **options: Any) -> int:
    with catalog.read() as session:
        found = session.scalars(select(Dataset).where(Dataset.name == dataset)).one()
        chosen = find_version(session, found, version)
        store = Store.of(catalog.settings)
        asked = Export(session=session, store=store, dataset=found, version=chosen, **options)
        return asked.write(path, format_of(path, None))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_rows_come_back_as_they_came_in(home: Catalog, tmp_path: Path) -> None:
    assert export(home, "nested", tmp_path / "a.jsonl", version=1, provenance=False) == 40
    assert lines(tmp_path / "a.jsonl") == [*NESTED[30:], *NESTED[:30]]
    assert export(home, "talks", tmp_path / "b.jsonl.gz", provenance=False) == 20
    assert [json.loads(line) for line in gzip.decompress((tmp_path / "b.jsonl.gz").read_bytes()).splitlines()] == TURNS


def test_provenance_says_origin_verdict_and_cluster_of_every_record(home: Catalog, tmp_path: Path) -> None:
    export(home, "nested", tmp_path / "kept.jsonl")
    export(home, "nested", tmp_path / "all.jsonl", which="all")
    kept, everything = lines(tmp_path / "kept.jsonl"), lines(tmp_path / "all.jsonl")
    assert len(everything) == 40
    assert [one["winnow_id"] for one in kept] == [one["winnow_id"] for one in everything if one["winnow_kept"]]
    assert export(home, "nested", tmp_path / "dropped.jsonl", which="dropped") == 40 - len(kept) > 0
    with home.read() as session:
        keepers = dict(session.execute(select(DuplicatePair.record_id, DuplicatePair.keeper_id)).all())
    for one in everything:
        split = "test" if one["winnow_file"].endswith("test.jsonl") else "train"
        place = one["winnow_line"] - 1 + (30 if split == "test" else 0)
        assert one["body"] == NESTED[place]["body"]
        assert one["winnow_source"] == NESTED[place]["meta"]["site"]
        assert (one["winnow_split"], one["winnow_version"], one["winnow_recipe"]) == (split, 2, "small")
        assert (one["winnow_reason"] is None) == one["winnow_kept"] == (one["winnow_failed"] == [])
        assert (one["winnow_difficulty"] is not None) == one["winnow_kept"]
        assert (one["winnow_label_origin"], one["winnow_label_given"]) == ("given", one["meta"]["topic"])
        assert one["winnow_cluster"] in (keepers.get(one["winnow_id"]), one["winnow_id"])
        behind = sum(keeper == one["winnow_id"] for keeper in keepers.values())
        assert one["winnow_cluster_size"] == (behind + 1 if behind else None)
    assert {one["winnow_reason"] for one in everything} > {"exact_duplicate", "near_duplicate"}


def test_parquet_and_csv_hold_the_same_in_columns(home: Catalog, tmp_path: Path) -> None:
    export(home, "nested", tmp_path / "a.jsonl", which="all")
    rows = lines(tmp_path / "a.jsonl")
    export(home, "nested", tmp_path / "a.parquet", which="all")
    table = pq.read_table(tmp_path / "a.parquet")
    assert str(table.schema.field("meta").type) == "struct<score: double, site: string, topic: string>"
    assert [one["body"] for one in table.to_pylist()] == [one["body"] for one in rows]
    assert table.column("winnow_failed").to_pylist() == [one["winnow_failed"] for one in rows]
    export(home, "nested", tmp_path / "a.csv", which="all")
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        cells = list(csv.DictReader(file))
    assert [json.loads(one["body"]) for one in cells] == [one["body"] for one in rows]
    assert [one["winnow_id"] for one in cells] == [one["winnow_id"] for one in rows]
    export(home, "talks", tmp_path / "b.parquet", provenance=False)
    assert pl.read_parquet(tmp_path / "b.parquet").to_dicts() == TURNS


def test_the_datasets_library_loads_the_folder_both_ways(
    home: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    export(home, "nested", tmp_path / "nested", version=1, provenance=False)
    export(home, "talks", tmp_path / "talks")
    loaded = datasets.load_dataset(str(tmp_path / "nested"), cache_dir=str(tmp_path / "cache"))
    for found in (datasets.load_from_disk(str(tmp_path / "nested")), loaded):
        assert {name: split.num_rows for name, split in found.items()} == {"train": 30, "test": 10}
        assert found["test"][3] == NESTED[33]
    talks = datasets.load_from_disk(str(tmp_path / "talks"))["train"]
    assert talks[5]["messages"] == TURNS[5]["messages"]
    assert talks[5]["winnow_line"] == 6


def test_an_exported_folder_comes_in_again_with_its_splits(home: Catalog, tmp_path: Path) -> None:
    export(home, "nested", tmp_path / "out", version=1, provenance=False)
    mapping = Mapping(text="body.content", label="meta.topic")
    submit_ingest(home, dataset="again", paths=[str(tmp_path / "out")], mapping=mapping)
    drain(home)
    export(home, "again", tmp_path / "again.jsonl")
    assert [one["winnow_split"] for one in lines(tmp_path / "again.jsonl")] == ["test"] * 10 + ["train"] * 30


def test_what_cannot_be_exported_is_refused(home: Catalog, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no record of it has a verdict"):
        export(home, "talks", tmp_path / "a.jsonl", which="dropped")
    with pytest.raises(NotFoundError, match=r"no version 9; there are 1 \(raw\), 2 \(curated\)"):
        export(home, "nested", tmp_path / "a.jsonl", version=9)
    with pytest.raises(ConfigError, match="the suffix names no format"):
        export(home, "nested", tmp_path / "a.xlsx")
    with pytest.raises(ConfigError, match="did you mean 'dropped'"):
        export(home, "nested", tmp_path / "a.jsonl", which="droped")
