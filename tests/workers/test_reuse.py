"""A cleaning after more data came in does only what is new, with the result of doing all of it."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from sqlalchemy import select

from catalog.database import Catalog
from catalog.settings import Settings
from catalog.store import Store
from catalog.tables import metadata
from catalog.tables.curation import Verdict
from catalog.tables.engine import Run
from curation.recipe import load_recipe
from tests.workers.building import drain
from tests.workers.corpus import RECIPE
from workers import manifests
from workers.pipelines import clean, edit, reuse
from workers.pipelines.clean import submit_clean
from workers.pipelines.ingest import submit_ingest

WORDS = ["printer", "invoice", "password", "주문", "환불", "network", "screen", "회의", "order", "backup"]


def rows(first: int, number: int) -> list[dict[str, str]]:
    return [
        {
            "body": f"{WORDS[n % 10]} {WORDS[n * 7 % 10]} {WORDS[n * 3 % 10]} number {n % 37} is broken again {n % 11}",
            "queue": "x",
        }
        for n in range(first, first + number)
    ]


def make(home: Path) -> Catalog:
    catalog = Catalog(Settings(home=home, shard_rows=20))
    home.mkdir()
    with catalog.write() as session:
        metadata.create_all(session.connection())
    Store.of(catalog.settings).create()
    return catalog


def ingest(catalog: Catalog, path: Path, found: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in found), encoding="utf-8")
    submit_ingest(catalog, dataset="tickets", paths=[str(path)], text_column="body", label_column="queue")
    drain(catalog)


def run_clean(catalog: Catalog, recipe: Path) -> tuple[str, list[tuple[Any, ...]]]:
    """The manifest's hash and every verdict."""
    run_id, _ = submit_clean(catalog, dataset="tickets", recipe=load_recipe(str(recipe)))
    drain(catalog)
    with catalog.read() as session:
        run = session.get_one(Run, run_id)
        assert run.state == "done", run.reason
        version = manifests.require_version(session, manifests.find_dataset(session, "tickets"), "curated")
        verdicts = session.scalars(select(Verdict).where(Verdict.run_id == run_id).order_by(Verdict.record_id))
        return version.manifest_sha256, [
            (one.record_id, one.kept, one.reason, one.measured, one.scores) for one in verdicts
        ]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE + "edit: [fix_encoding]\n")
    return path


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many shards were measured and edited, and how many texts embedded."""
    done = {"measured": 0, "edited": 0, "embedded": 0}
    measure, apply, embed = clean.measure, edit.apply, clean.embed

    def counting_measure(texts: Any, *args: Any, **options: Any) -> Any:
        done["measured"] += 1
        return measure(texts, *args, **options)

    def counting_apply(*args: Any) -> Any:
        done["edited"] += 1
        return apply(*args)

    def counting_embed(unit: Any, encoder: str, frame: pl.DataFrame) -> Any:
        done["embedded"] += frame.height
        return embed(unit, encoder, frame)

    monkeypatch.setattr(clean, "measure", counting_measure)
    monkeypatch.setattr(edit, "apply", counting_apply)
    monkeypatch.setattr(clean, "embed", counting_embed)
    return done


def test_only_new_shards_are_done_and_the_result_is_that_of_doing_all(
    tmp_path: Path, recipe: Path, counted: dict[str, int]
) -> None:
    grown, whole = make(tmp_path / "grown"), make(tmp_path / "whole")
    ingest(grown, tmp_path / "a.jsonl", rows(0, 100))
    run_clean(grown, recipe)
    assert (counted["measured"], counted["edited"]) == (5, 5)
    before = dict(counted)
    ingest(grown, tmp_path / "b.jsonl", rows(90, 40))
    found = run_clean(grown, recipe)
    assert (counted["measured"], counted["edited"]) == (7, 7)
    assert counted["embedded"] - before["embedded"] <= 40

    for name in ("a.jsonl", "b.jsonl"):
        submit_ingest(whole, dataset="tickets", paths=[str(tmp_path / name)], text_column="body", label_column="queue")
        drain(whole)
    assert run_clean(whole, recipe) == found
    assert counted["measured"] == 14
    grown.close()
    whole.close()


def test_another_recipe_takes_nothing_over(tmp_path: Path, recipe: Path, counted: dict[str, int]) -> None:
    catalog = make(tmp_path / "home")
    ingest(catalog, tmp_path / "a.jsonl", rows(0, 40))
    run_clean(catalog, recipe)
    recipe.write_text(recipe.read_text().replace("name: small", "name: other"))
    run_clean(catalog, recipe)
    assert counted["measured"] == 4
    catalog.close()


def test_another_release_takes_nothing_over(
    tmp_path: Path, recipe: Path, counted: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = make(tmp_path / "home")
    ingest(catalog, tmp_path / "a.jsonl", rows(0, 40))
    run_clean(catalog, recipe)
    ingest(catalog, tmp_path / "b.jsonl", rows(100, 20))
    monkeypatch.setattr(reuse, "version_of", lambda _name: "99.0")
    run_clean(catalog, recipe)
    assert counted["measured"] == 2 + 3
    catalog.close()
