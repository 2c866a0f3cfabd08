"""Repeated passages through the engine: units of any size, cut texts, what is told about them."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sqlalchemy import func, select

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
from service.report import render_report
from tests.workers.building import drain
from tests.workers.corpus import KOREAN, WORDS
from tests.workers.test_dedup import NEAR, ingest
from tests.workers.test_determinism import make_catalog
from workers import curated, manifests, passages
from workers.biography import biography
from workers.pipelines.clean import submit_clean
from workers.pipelines.deduplicate import submit_dedup

SIZE = 12


def prose(rng: random.Random, number: int) -> str:
    words = rng.choice((WORDS, KOREAN))
    # A number a word: words alone are too few for texts to differ.
    text = " ".join(f"{rng.choice(words)}{rng.randrange(10_000)}" for _ in range(number))
    # A small letter would make no new sentence.
    return f"{text[0].upper()}{text[1:]}. "


def bodies(number: int, seed: int) -> list[str]:
    """Texts of their own with up to three of eight passages that others have too; some twice."""
    rng = random.Random(seed)
    shared = [prose(rng, rng.randint(SIZE, 30)) for _ in range(8)]
    made = []
    for _ in range(number):
        parts = [prose(rng, rng.randint(3, 30)) for _ in range(rng.randint(1, 3))]
        parts += rng.sample(shared, rng.randint(0, 3))
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


RNG = random.Random(11)
PASSAGE = prose(RNG, 25).strip()
SECOND = prose(RNG, 15).strip()
THIRD, OWN, OTHER = (prose(RNG, number).strip(" .") for number in (23, 40, 40))
FIRST_PART, LAST_PART = prose(RNG, 4).strip(), prose(RNG, 3).strip()
KEEPER = f"{prose(RNG, 20)}{PASSAGE} {prose(RNG, 20)}".strip()
CUT = f"{FIRST_PART} {LAST_PART}"
"""What is left of a record with the passage between two sentences of its own."""
COPY = f"{FIRST_PART} {PASSAGE} {LAST_PART}"


def plain(number: int, seed: int) -> list[str]:
    """Texts that share nothing, the same whichever test runs first."""
    rng = random.Random(seed)
    return [prose(rng, rng.randint(4, 12)).strip() for _ in range(number)]


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return make_catalog(tmp_path / "home", dedup_rows=20)


def clean(catalog: Catalog, dataset: str, action: str) -> Run:
    config = SubstringConfig(min_tokens=SIZE, action=action)
    run_id, _ = submit_clean(catalog, dataset=dataset, recipe=Recipe(name="passages", substring=config))
    drain(catalog)
    with catalog.read() as session:
        run = session.get_one(Run, run_id)
        assert run.state == "done", run.reason
        return run


def test_cut_texts_are_published_scored_and_embedded_and_nothing_else_changes(catalog: Catalog, tmp_path: Path) -> None:
    # Of three shards, one holds a record that is cut, one a record of which nothing is left.
    ingest(catalog, tmp_path, "tickets", [KEEPER, *plain(19, 1), PASSAGE.upper(), *plain(19, 2), COPY, *plain(4, 3)])
    store, raw = Store.of(catalog.settings), shards_of(catalog, "tickets", "raw")
    run = clean(catalog, "tickets", "remove")
    published = shards_of(catalog, "tickets", "curated")
    assert [one["data"] == before["data"] for one, before in zip(published, raw, strict=True)] == [True, True, False]
    before, after = (store.read_frame(StoredFile.from_json(shards[2]["data"])) for shards in (raw, published))
    assert after.drop("text").equals(before.drop("text"))
    changed = before["text"] != after["text"]
    assert (before["text"].filter(changed).to_list(), after["text"].filter(changed).to_list()) == ([COPY], [CUT])
    with catalog.read() as session:
        version = session.scalars(select(Version).where(Version.kind == "curated")).one()
        records, vectors = curated.read_records(store, version), curated.read_embeddings(store, version)
        emptied = session.scalars(select(Verdict).where(Verdict.reason.is_not(None))).all()
        (copy,) = before["id"].filter(changed).to_list()
        scores = session.get_one(Verdict, (run.id, copy)).scores
    assert (records.height, CUT in records["text"], KEEPER in records["text"]) == (44, True, True)
    assert [(one.kept, one.reason, one.failed) for one in emptied] == [
        (False, "repeated_passage", ["repeated_passage"])
    ]
    row = records["id"].to_list().index(copy)
    assert np.array_equal(vectors[row], ENCODERS["hashing"].member([CUT], tmp_path)[0])
    assert scores["length"] == len(CUT.split())
    assert run.result is not None
    assert (run.result["dropped"], run.result["passages"]["changed"]) == ({"repeated_passage": 1}, 1)


def test_report_alone_leaves_every_text_and_is_told_in_explain_export_and_report(
    catalog: Catalog, tmp_path: Path
) -> None:
    ingest(catalog, tmp_path, "tickets", [KEEPER, *plain(21, 4), COPY, PASSAGE, f"{SECOND} {PASSAGE}"])
    store = Store.of(catalog.settings)
    run = clean(catalog, "tickets", "report")
    assert [one["data"] for one in shards_of(catalog, "tickets", "curated")] == [
        one["data"] for one in shards_of(catalog, "tickets", "raw")
    ]
    with catalog.read() as session:
        dataset = manifests.find_dataset(session, "tickets")
        told = {line: biography(session, store, dataset, f"tickets.jsonl:{line}")["passages"] for line in (1, 2, 23)}
        (rows,) = passages.span_rows(session, store, passages.require_run(session, dataset))
        (most,) = passages.most_repeated(session, store, run, 5)
        page = render_report(session, store, dataset)
        assert session.scalar(select(func.count()).where(Verdict.kept)) == 25
    (repeated,) = told[23]["repeats"]
    assert (repeated["text"].strip(), told[23]["repeated_by"], told[23]["action"]) == (PASSAGE, [], "report")
    assert repeated["text"] == COPY[repeated["start"] : repeated["end"]]
    assert KEEPER[repeated["keeper_start"] : repeated["keeper_end"]] == PASSAGE.removesuffix(".")
    assert [one["record_id"] == repeated["record_id"] for one in told[1]["repeated_by"]].count(True) == 1
    assert (len(told[1]["repeats"]), len(told[1]["repeated_by"])) == (0, 3)
    assert (told[2]["repeats"], told[2]["repeated_by"]) == ([], [])
    assert rows["passage"].str.strip_chars().to_list() == [PASSAGE] * 3
    assert sorted(rows.select("record_line", "keeper_line").rows()) == [(23, 1), (24, 1), (25, 1)]
    assert (most["records"], most["text"], most["line"]) == (3, PASSAGE.removesuffix("."), 1)
    assert "Repeated passages" in page
    assert f"<bdi>{PASSAGE[:300].removesuffix('.')}" in page


def test_records_that_came_later_are_compared_with_those_of_before(catalog: Catalog, tmp_path: Path) -> None:
    recipe = Recipe(name="both", near=NEAR, substring=SubstringConfig(min_tokens=SIZE))
    for name, texts in (("tickets", [KEEPER, *plain(3, 7)]), ("tickets+later", [COPY])):
        ingest(catalog, tmp_path, name, texts)
        run_id, _ = submit_dedup(catalog, dataset="tickets", recipe=recipe)
        drain(catalog)
    with catalog.read() as session:
        run = session.get_one(Run, run_id)
    assert spans_of(catalog, run).height == 1


def test_extents_that_overlap_by_half_are_one_passage_and_slivers_are_none(catalog: Catalog, tmp_path: Path) -> None:
    words, third = PASSAGE.split(), THIRD.split()
    most, fewer, later = " ".join(words[:16]), " ".join(words[:18]), " ".join(words[13:])
    copies = zip([most, most, fewer, later, most], plain(5, 5), strict=True)
    # The last record begins as one keeper does and goes on as another: four tokens are left to the first.
    keepers = [f"{' '.join(third[:12])} {OWN}", f"{OTHER} {' '.join(third[4:])}", THIRD]
    ingest(catalog, tmp_path, "tickets", [KEEPER, *(f"{one} {other}" for one, other in copies), *keepers])
    run = look(catalog, "tickets")
    with catalog.read() as session:
        found = passages.most_repeated(session, Store.of(catalog.settings), run, 5)
    assert sorted(spans_of(catalog, run)["num_tokens"]) == [4, 12, 16, 16, 16, 18, 19]
    assert [(one["records"], one["text"]) for one in found] == [
        (4, most),
        (1, " ".join(third[4:])),
        (1, later.removesuffix(".")),
    ]


@pytest.mark.parametrize("within", [True, False])
def test_passages_of_another_dataset_leave_and_it_stays_whole(catalog: Catalog, tmp_path: Path, within: bool) -> None:
    ingest(catalog, tmp_path, "evals", [PASSAGE, f"{PASSAGE} {OWN}"])
    ingest(
        catalog, tmp_path, "train", [KEEPER, SECOND, *plain(3, 6), f"{SECOND} {FIRST_PART}", f"{SECOND} {LAST_PART}"]
    )
    spans = spans_of(catalog, look(catalog, "train", "remove", against=["evals"], within=within))
    texts = dict(records_of(catalog, "train").select("id", "text").iter_rows())
    found = {
        (texts[one["record_id"]][one["start"] : one["end"]].strip(" ."), one["keeper_id"].startswith("evals:"))
        for one in spans.to_dicts()
    }
    assert found == {(PASSAGE.strip("."), True)} | ({(SECOND.strip("."), False)} if within else set())
    store = Store.of(catalog.settings)
    (shard,) = shards_of(catalog, "train", "deduplicated")
    kept = store.read_frame(StoredFile.from_json(shard["selection"]))["row"]
    left = store.read_frame(StoredFile.from_json(shard["data"]))["text"].gather(kept).to_list()
    assert [PASSAGE in text for text in left] == [False] * len(left)
    assert (len(left), sum(SECOND in text for text in left)) == ((6, 1) if within else (7, 3))
    with pytest.raises(ConfigError, match="leave out per_source"):
        look(catalog, "train", per_source=True)
