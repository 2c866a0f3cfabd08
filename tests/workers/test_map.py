"""A map by the engine: the same whatever the units, outliers with their copies, unreached regions, told everywhere."""

import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from catalog.database import Catalog
from catalog.errors import ConfigError, NotFoundError
from catalog.store import Store
from catalog.tables.engine import Run
from curation.coverage.config import MapConfig
from curation.recipe import Recipe
from service.report import render_report
from tests.cli.corpus import records
from tests.workers.building import drain
from tests.workers.test_determinism import make_catalog
from tests.workers.test_pipelines import write_rows
from workers import manifests, mapping
from workers.biography import biography
from workers.pipelines.clean import submit_clean
from workers.pipelines.ingest import submit_ingest
from workers.pipelines.map import submit_map

ODD = "ΞΩΨ ΘΛΔ ΦΓΠ ΣΥΡ ΚΜΝ"


def bring(catalog: Catalog, dataset: str, rows: list[dict[str, str]]) -> None:
    path = write_rows(catalog.settings.home / f"{dataset}.jsonl", rows)
    submit_ingest(catalog, dataset=dataset, paths=[path], text_column="body", label_column="queue")
    drain(catalog)
    submit_clean(catalog, dataset=dataset, recipe=Recipe(name="small", exact=False))
    drain(catalog)


def mapped(catalog: Catalog, *, against: str | None = None) -> tuple[Run, dict[str, pl.DataFrame]]:
    run_id, _ = submit_map(catalog, dataset="tickets", config=MapConfig(clusters=4), against=against)
    drain(catalog)
    with catalog.read() as session:
        run = session.get_one(Run, run_id)
        assert run.state == "done", run.reason
        store = Store.of(catalog.settings)
        kinds = ("outliers", "unreached", "points", "mapped")
        return run, {kind: mapping.listed(session, store, run, kind) for kind in kinds}


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    """Four topics, of which one has no labels; a text in Greek in 15 copies."""
    made = [one if one["queue"] != "billing" else one | {"queue": ""} for one in records()[:240]]
    return made + [{"body": ODD + "!" * number, "queue": "account"} for number in range(15)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]]) -> Path:
    """``tickets``, and ``training`` with two of its four topics, cleaned."""
    made = tmp_path_factory.mktemp("mapped") / "home"
    catalog = make_catalog(made)
    bring(catalog, "tickets", rows)
    bring(catalog, "training", [one for one in rows[:240] if one["queue"] in ("delivery", "account")])
    catalog.close()
    return made


def test_map_is_one_whatever_the_units_and_told_everywhere(
    tmp_path: Path, home: Path, rows: list[dict[str, str]]
) -> None:
    found: list[Any] = []
    for dedup_rows in (160, 100_000):
        shutil.copytree(home, tmp_path / str(dedup_rows))
        catalog = make_catalog(tmp_path / str(dedup_rows), dedup_rows=dedup_rows)
        run, frames = mapped(catalog)
        found.append((run.result, {kind: frame.sort("id").to_dicts() for kind, frame in frames.items()}))
    assert found[0] == found[1]
    summary = run.result or {}
    assert frames["outliers"]["text"].str.starts_with(ODD).sum() == 15
    assert frames["outliers"].height == summary["outliers"] < 25
    states = {one["state"] for one in summary["topics"]}
    (empty,) = [one for one in summary["topics"] if one["state"] == "empty"]
    assert states == {"empty", "covered"}
    assert {"invoice", "charged", "refund", "결제", "환불", "card"} & set(empty["terms"])
    assert empty["beyond"] > 0.5 * empty["records"]
    billing = frames["unreached"].filter(pl.col("cluster") == empty["cluster"]).height
    assert billing > 0.9 * frames["unreached"].height
    with catalog.read() as session:
        store, dataset = Store.of(catalog.settings), manifests.find_dataset(session, "tickets")
        page = render_report(session, store, dataset)
        story = biography(session, store, dataset, frames["outliers"]["id"][0])
        exported = pl.concat(list(mapping.map_rows(session, store, run)))
    assert "<h2>Topics, outliers and coverage</h2>" in page
    assert all(one["terms"][0] in page for one in summary["topics"])
    assert ODD in page
    assert page.count("<svg") >= 2
    assert story["map"]["outlier"] is True
    assert exported["outlier"].sum() == summary["outliers"]
    assert exported.height == len(rows)
    assert exported["topic"].null_count() == 0


def test_records_of_an_evaluation_set_without_a_near_training_record_are_found(
    tmp_path: Path, home: Path, rows: list[dict[str, str]]
) -> None:
    shutil.copytree(home, tmp_path / "home")
    catalog = make_catalog(tmp_path / "home")
    run, frames = mapped(catalog, against="training")
    summary = run.result or {}
    there = {one["body"] for one in rows[:240] if one["queue"] in ("delivery", "account")}
    reached = frames["mapped"].filter(pl.col("reach") <= summary["reference"]["limit"]).height
    assert reached >= len(there)
    assert summary["reference"]["what"] == "training"
    assert not set(frames["unreached"]["text"]) & there
    assert summary["reference"]["beyond"] > 60
    with pytest.raises(ConfigError, match="measured against itself anyway"):
        mapped(catalog, against="tickets")
    with catalog.read() as session, pytest.raises(NotFoundError, match="run `winnow map training`"):
        mapping.require_map(session, manifests.find_dataset(session, "training"))
