"""Wrong labels from finding to settling, and difficulty that knows of them, through the engine's own units."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from sqlalchemy import select

from catalog.database import Catalog
from catalog.errors import ConfigError, DataError, NotFoundError
from catalog.store import Store
from catalog.tables.base import new_id
from catalog.tables.engine import Run
from catalog.tables.label_errors import LabelError
from labeling import queue as queues
from labeling.schema import parse_schema
from labeling.strategies.label_errors import SECOND_OPINION, WHY
from tests.cli import corpus
from tests.workers.building import clean_dataset, drain
from tests.workers.test_determinism import make_catalog
from training.recipe import TrainRecipe
from workers import curated, learned, manifests, suspects
from workers.biography import biography
from workers.labeling import open_queue
from workers.pipelines.difficulty import submit_difficulty
from workers.pipelines.label_errors import submit_label_errors
from workers.pipelines.train import submit_train

LABELS = sorted(corpus.WORDS)
SCHEMA = parse_schema(corpus.SCHEMA)
RECIPE = corpus.RECIPE + "difficulty: [length, mtld, readability, perplexity]\n"
NUM_WRONG = 20


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Catalog, dict[str, str]]:
    """A cleaned dataset of which the first twenty records are labelled wrong; the right label by text."""
    folder = tmp_path_factory.mktemp("planted")
    rows = corpus.records()[: corpus.NUM_PLAIN - 2]
    truth = {row["body"]: row["queue"] for row in rows[:NUM_WRONG]}
    for row in rows[:NUM_WRONG]:
        row["queue"] = LABELS[(LABELS.index(row["queue"]) + 1) % len(LABELS)]
    catalog = make_catalog(folder / "home")
    clean_dataset(catalog, folder, rows, RECIPE)
    return catalog, truth


def run_of(catalog: Catalog, run_id: str) -> Run:
    drain(catalog)
    with catalog.read() as session:
        run = session.get_one(Run, run_id)
    assert run.state == "done", run.reason
    return run


def listed(catalog: Catalog) -> pl.DataFrame:
    with catalog.read() as session:
        run = suspects.require_run(session, manifests.find_dataset(session, "tickets"))
        return suspects.listed(session, Store.of(catalog.settings), run)


def ask_next(catalog: Catalog, queue_id: str) -> Any:
    with catalog.write() as session:
        return queues.next_task(session, now=catalog.now(session), queue_id=queue_id, annotator_id="ann")


def answer(catalog: Catalog, served: Any, value: str) -> None:
    with catalog.write() as session:
        now = catalog.now(session)
        queues.submit(session, now=now, lease_id=served.lease_id, annotator_id="ann", value=value, key=new_id())


def ask_second_opinions(catalog: Catalog) -> str:
    options: dict[str, Any] = {"name": "second-opinion", "schema": SCHEMA, "strategy": SECOND_OPINION}
    return open_queue(catalog, dataset="tickets", **options)[0]


def test_wrong_labels_are_found_asked_about_and_settled(planted: tuple[Catalog, dict[str, str]]) -> None:
    catalog, truth = planted
    with pytest.raises(ConfigError, match="did you mean 'merged'"):
        submit_label_errors(catalog, dataset="tickets", labels="merge")
    with pytest.raises(DataError, match="winnow label create"):
        submit_label_errors(catalog, dataset="tickets", labels="annotated")
    with pytest.raises(NotFoundError, match="winnow label-errors tickets"):
        ask_second_opinions(catalog)

    run_id, state = submit_label_errors(catalog, dataset="tickets")
    assert state == "new"
    run = run_of(catalog, run_id)
    assert submit_label_errors(catalog, dataset="tickets") == (run_id, "done")
    found = listed(catalog)
    assert run.result is not None
    assert run.result["suspected"] == found.height
    assert found["rank"].to_list() == list(range(1, found.height + 1))
    assert found["quality"].is_sorted()
    first = found.head(NUM_WRONG)
    assert first["text"].is_in(list(truth)).mean() >= 0.9  # type: ignore[operator]
    right = [row["suggested"] == truth[row["text"]] for row in first.to_dicts() if row["text"] in truth]
    assert sum(right) >= 0.9 * len(right)
    assert set(found["outcome"]) == {suspects.OPEN}

    queue_id = ask_second_opinions(catalog)
    drain(catalog)
    served = ask_next(catalog, queue_id)
    worst = found.row(0, named=True)
    assert served.record_id == worst["record_id"]
    assert served.why == WHY
    assert not any(label in served.why for label in LABELS)
    answer(catalog, served, truth[worst["text"]])
    confirmed = ask_next(catalog, queue_id)
    given = found.filter(pl.col("record_id") == confirmed.record_id)["given"][0]
    answer(catalog, confirmed, given)
    outcomes = dict(listed(catalog).select("record_id", "outcome").iter_rows())
    assert outcomes[served.record_id] == suspects.CORRECTED
    assert outcomes[confirmed.record_id] == suspects.RIGHT
    seen, labels = {served.record_id, confirmed.record_id}, dict(found.select("record_id", "given").iter_rows())
    while isinstance(task := ask_next(catalog, queue_id), queues.Served):
        seen.add(task.record_id)
        answer(catalog, task, truth.get(task.text) or labels[task.record_id])
    assert seen == set(found["record_id"])

    with catalog.read() as session:
        dataset = manifests.find_dataset(session, "tickets")
        story = biography(session, Store.of(catalog.settings), dataset, confirmed.record_id)
    assert story["label_error"]["suspected"]
    assert (story["label_error"]["outcome"], story["label_error"]["answer"]) == (suspects.RIGHT, given)

    again, state = submit_label_errors(catalog, dataset="tickets")
    assert (again != run_id, state) == (True, "new")
    run_of(catalog, again)
    with catalog.read() as session:
        left = set(session.scalars(select(LabelError.record_id).where(LabelError.run_id == again)))
    assert not left & seen


def test_difficulty_is_learned_and_suspected_labels_are_not_hard(planted: tuple[Catalog, dict[str, str]]) -> None:
    catalog, truth = planted
    store = Store.of(catalog.settings)
    with pytest.raises(NotFoundError, match="'el2n' was not measured"):
        submit_train(catalog, dataset="tickets", recipe=tiny("el2n"))
    options = {"labels": "given", "num_seeds": 2, "reference": "tickets", "features": "tfidf"}
    run_id, _ = submit_difficulty(catalog, dataset="tickets", **options)  # type: ignore[arg-type]
    run = run_of(catalog, run_id)
    assert run.result is not None
    assert sum(run.result["regions"].values()) == run.result["labelled"] == run.result["records"]
    with catalog.read() as session:
        dataset = manifests.find_dataset(session, "tickets")
        version = manifests.require_version(session, dataset, "curated")
        table = learned.table(session, store, run)
        texts = dict(curated.read_records(store, version).select("id", "text").iter_rows())
        wrong = table.filter(pl.col("id").replace_strict(texts).is_in(list(truth)))
        assert (wrong["region"] == "suspected").mean() > 0.8  # type: ignore[operator]
        doubted = table.filter(pl.col("region") == "suspected")
        assert doubted["el2n_rank"].null_count() == doubted.height
        assert doubted["reference_perplexity_rank"].null_count() == 0
        by_doubt = learned.chosen(session, store, version, "label_doubt", run_id)
        ranks = by_doubt.filter(pl.col("id").is_in(wrong["id"].implode()))["difficulty"]
        assert ranks.quantile(0.2, "lower") > 0.8
        # Nobody answered anything, so nothing is known from answers.
        assert "answer_doubt" not in table.columns
        rest = table.filter(pl.col("region") != "suspected")
        assert (rest["margin"].arg_max(), rest["el2n_rank"].max()) == (rest["margin_rank"].arg_min(), 1.0)
        by_margin = learned.chosen(session, store, version, "margin", run_id)
        assert set(by_margin.filter(pl.col("id").is_in(doubted["id"].implode()))["difficulty"]) == {learned.MIDDLE}
        assert learned.chosen(session, store, version, "perplexity", None)["difficulty"].is_between(0, 1).all()
        story = biography(session, store, dataset, doubted["id"][0])
    assert story["learned"]["region"] == "suspected"
    assert {"mtld", "perplexity", "readability"} <= set(story["scores"])
    trained, _ = submit_train(catalog, dataset="tickets", recipe=tiny("el2n"))
    with catalog.read() as session:
        assert session.get_one(Run, trained).config["difficulty_run"] == run_id
    assert run_of(catalog, trained).result is not None


def tiny(difficulty: str) -> TrainRecipe:
    return TrainRecipe.from_yaml(corpus.TRAIN_RECIPE + f"difficulty: {difficulty}\ncompare: none\n", name="tiny")


def test_an_unlabelled_dataset_is_held_against_a_reference_alone(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path / "home")
    rows = [{"body": row["body"], "queue": None} for row in corpus.records()[:40]]
    clean_dataset(catalog, tmp_path, rows, corpus.RECIPE)
    with catalog.write() as session:
        manifests.find_dataset(session, "tickets").label_column = None
    with pytest.raises(DataError, match="no labels"):
        submit_difficulty(catalog, dataset="tickets")
    run_id, _ = submit_difficulty(catalog, dataset="tickets", reference="tickets")
    assert run_of(catalog, run_id).result == {"records": 40, "measures": ["reference_perplexity"]}
