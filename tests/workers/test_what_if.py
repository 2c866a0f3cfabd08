"""What-if answers as a new run does, and its version is that of a new run, without reading the texts again."""

from typing import Any

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
from curation.recipe import Recipe, load_recipe
from curation.whatif import changed_recipe
from tests.workers.building import drain
from tests.workers.corpus import sentences
from tests.workers.test_determinism import ask_clean, ask_ingest, make_catalog
from tests.workers.test_pipelines import write_rows
from workers import curated, manifests
from workers.pipelines.clean import submit_clean
from workers.pipelines.what_if import submit_what_if
from workers.whatif import what_if

SETTINGS = [
    ["word_count.minimum=16", "languages=ko", "min_language_confidence=0.5"],
    ["rules.char_count.maximum=120", "near.threshold=0.8"],
    ["near=off", "word_count.minimum=off"],
]


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """A home with one cleaned dataset of two files, a near-duplicate of whose every second record has other values."""
    folder = tmp_path_factory.mktemp("what-if")
    catalog = make_catalog(folder / "home")
    rows = sentences(120, seed=5)
    longer = [row | {"body": row["body"] + "   thanks a lot   "} for row in rows[::4]]
    copies = [row | {"body": f"  {row['body']}\n"} for row in rows[1::4]]
    ask_ingest(catalog, [write_rows(folder / f"{n}.jsonl", part) for n, part in enumerate((rows, longer, copies))])
    drain(catalog)
    ask_clean(catalog, folder)
    drain(catalog)
    return catalog


def runs_of(catalog: Catalog, kind: str) -> list[Run]:
    with catalog.read() as session:
        return list(session.scalars(select(Run).where(Run.kind == kind).order_by(Run.created_at)))


def decided(catalog: Catalog, run_id: str) -> dict[str, Any]:
    """Verdicts with all values and scores, duplicate pairs, records in order with difficulty, and vectors."""
    store = Store.of(catalog.settings)
    with catalog.read() as session:
        verdicts = session.scalars(select(Verdict).where(Verdict.run_id == run_id).order_by(Verdict.record_id))
        pairs = session.scalars(
            select(DuplicatePair)
            .where(DuplicatePair.run_id == run_id)
            .order_by(DuplicatePair.record_id, DuplicatePair.keeper_id)
        )
        version = session.scalars(select(Version).where(Version.run_id == run_id)).one()
        # A run with a lower threshold has measured less similar pairs too.
        threshold = (session.get_one(Run, run_id).config["recipe"]["near"] or {"threshold": 1})["threshold"]
        measured = pl.concat([store.read_frame(file) for file in manifests.run_files(session, run_id, "pairs")])
        return {
            "verdicts": [
                (one.record_id, one.kept, one.reason, one.failed, one.measured, one.scores) for one in verdicts
            ],
            "pairs": [(one.record_id, one.keeper_id, one.kind, one.jaccard, one.rule) for one in pairs],
            "measured": sorted(measured.filter(pl.col("jaccard") >= threshold).rows(), key=str),
            "records": curated.read_records(store, version).rows(),
            "languages": curated.languages_of(session, store, version).rows(),
            "vectors": curated.read_embeddings(store, version),
            "manifest": version.manifest_sha256,
        }


def base(catalog: Catalog) -> tuple[Run, Recipe]:
    run = runs_of(catalog, "clean")[0]
    return run, load_recipe(str(catalog.settings.home.parent / "recipe.yaml"))


def ask(catalog: Catalog, run: Run, settings: list[str]) -> dict[str, Any]:
    with catalog.read() as session:
        return what_if(session, Store.of(catalog.settings), session.get_one(Run, run.id), settings)


@pytest.mark.no_cover
@pytest.mark.parametrize("settings", SETTINGS, ids=" ".join)
def test_answer_and_version_are_those_of_a_new_run(cleaned: Catalog, settings: list[str]) -> None:
    run, recipe = base(cleaned)
    answer = ask(cleaned, run, settings)
    anew, _ = submit_clean(cleaned, dataset="tickets", recipe=changed_recipe(recipe, settings))
    drain(cleaned)
    made, state = submit_what_if(cleaned, run=run.id[:8], settings=settings)
    assert state == "new"
    drain(cleaned)
    expected, found = decided(cleaned, anew), decided(cleaned, made)
    vectors = expected.pop("vectors"), found.pop("vectors")
    assert found["verdicts"] == expected["verdicts"]
    # The version that is made of it has the very bytes of a new run's, its selections and vectors with it.
    assert found == expected
    assert np.array_equal(*vectors)
    before = {row[0]: row[2] for row in decided(cleaned, run.id)["verdicts"]}
    after = {row[0]: row[2] for row in expected["verdicts"]}
    returning = [before[one] for one in before if before[one] and not after[one]]
    leaving = [after[one] for one in before if after[one] and not before[one]]
    assert answer["returning"] == {one: returning.count(one) for one in answer["returning"]}
    assert answer["leaving"] == {one: leaving.count(one) for one in answer["leaving"]}
    assert sum(answer["returning"].values()) == len(returning)
    assert sum(answer["leaving"].values()) == len(leaving) > 0 or settings[0] == "near=off"
    kept = [sum(one is None for one in reasons.values()) for reasons in (before, after)]
    assert [answer["kept_before"], answer["kept_after"]] == kept
    assert sum(one["leaving"] for one in answer["by"]["language"]) == len(leaving)
    assert sum(one["kept_after"] for one in answer["by"]["source"]) == kept[1]
    assert len(answer["by"]["source"]) == 3
    assert answer["doubts"] == []
    assert {(one["change"], one["rule"]) for one in answer["samples"]} == {
        *(("returns", rule) for rule in set(returning)),
        *(("leaves", rule) for rule in set(leaving)),
    }


def test_where_a_keeper_leaves_another_copy_stays(cleaned: Catalog) -> None:
    run, _ = base(cleaned)
    with cleaned.read() as session:
        pairs = session.scalars(
            select(DuplicatePair).where(DuplicatePair.run_id == run.id, DuplicatePair.kind == "exact")
        ).all()
        verdicts = session.scalars(select(Verdict).where(Verdict.run_id == run.id))
        lengths = {one.record_id: one.measured["char_count"] for one in verdicts}
    one = next(pair for pair in pairs if lengths[pair.keeper_id] > lengths[pair.record_id])
    answer = ask(cleaned, run, [f"char_count.maximum={lengths[one.record_id]}"])
    assert answer["leaving"]["char_count"] > 0
    assert answer["returning"]["exact_duplicate"] > 0


def test_only_records_that_newly_stay_are_encoded(cleaned: Catalog) -> None:
    run, _ = base(cleaned)
    answer = ask(cleaned, run, ["word_count.minimum=off", "char_count.minimum=off"])
    made, _ = submit_what_if(cleaned, run=run.id, settings=["word_count.minimum=off", "char_count.minimum=off"])
    drain(cleaned)
    with cleaned.read() as session:
        units = session.scalars(select(Unit.result).where(Unit.run_id == made, Unit.stage_name == "score")).all()
        stages = set(session.scalars(select(Unit.stage_name).where(Unit.run_id == made)))
    assert sum(one["encoded"] for one in units) == sum(answer["returning"].values()) > 0  # type: ignore[index]
    assert stages == {"settle", "score", "rank", "judge", "publish"}
    # What-if can be asked of what a what-if made, and leads back to the same.
    again = [f"{rule}.minimum={least}" for rule, least in (("word_count", 3), ("char_count", 10))]
    with cleaned.read() as session:
        back = what_if(session, Store.of(cleaned.settings), session.get_one(Run, made), again)
    assert (back["kept_before"], back["kept_after"]) == (answer["kept_after"], answer["kept_before"])
    assert back["leaving"] == answer["returning"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["word_count.minimun=3"], "did you mean 'word_count.minimum'"),
        (["url_ratio.maximum=3"], "only what was measured can be set anew"),
        (["word_count.minimum"], "must be KEY=VALUE, e.g. char_count.minimum=30"),
        (["word_count.minimum=many"], "must be a number, or off"),
        (["word_count.minimum=3"], "changes nothing"),
        (["word_count.minimum=3", "rules.word_count.minimum=4"], "is set twice"),
        (["near.threshold=1.5"], r"threshold=1.5 must lie in \(0, 1\]"),
    ],
)
def test_settings_that_cannot_be_tried_are_refused(cleaned: Catalog, settings: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ask(cleaned, base(cleaned)[0], settings)


def test_a_lower_threshold_is_answered_with_a_doubt_and_not_published(cleaned: Catalog) -> None:
    run, _ = base(cleaned)
    assert "which had no reason to measure all such pairs" in ask(cleaned, run, ["near.threshold=0.5"])["doubts"][0]
    with pytest.raises(ConfigError, match="clean with a recipe of that threshold instead"):
        submit_what_if(cleaned, run=run.id, settings=["near.threshold=0.5"])
