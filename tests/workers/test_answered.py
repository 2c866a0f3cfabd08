"""Spans and preferences that people gave in queues, and trainings that learn from them."""

import json
from typing import Any

import polars as pl
import pytest

from catalog.database import Catalog
from catalog.errors import ConfigError, DataError
from catalog.store import Store
from catalog.tables.base import new_id
from catalog.tables.datasets import Version
from catalog.tables.engine import Run
from curation.recipe import load_recipe
from labeling import queue as queues
from labeling.schema import parse_schema
from service.cli.teaching import show_training
from tests.workers.building import drain
from tests.workers.test_determinism import make_catalog
from tests.workers.test_pipelines import write_rows
from tests.workers.test_span_queue import marked
from tests.workers.test_span_queue import rows as texts
from training.recipe import TrainRecipe
from workers import answered, curated, manifests
from workers.labeling import open_queue
from workers.pipelines.clean import submit_clean
from workers.pipelines.ingest import submit_ingest
from workers.pipelines.train import submit_train

BACKBONE = "backbone_options: {dim: 16, num_layers: 1, num_heads: 2, vocab_size: 300, dropout: 0.0}"
TEACH = f"""
test_share: 0.45
max_tokens: 48
compare: none
arms:
  - {{name: taught, objective: OBJECTIVE, steps: 12, batch_size: 16, learning_rate: 0.01, {BACKBONE}}}
"""
SCHEMAS = {"spans": "task: spans\nlabels: [person, city]", "pairwise": "task: pairwise\na: body\nb: other\nties: true"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """A cleaned dataset of sixty texts, each with a longer one beside it, without labels or answers."""
    folder = tmp_path_factory.mktemp("answered")
    catalog = make_catalog(folder / "home")
    rows = [row | {"other": f"{row['body']} and much more of it"} for row in texts()]
    path = write_rows(folder / "rows.jsonl", rows)
    submit_ingest(catalog, dataset="letters", paths=[path], text_column="body", label_column=None)
    drain(catalog)
    (folder / "recipe.yaml").write_text("name: all\nrules:\n  char_count: {minimum: 10}\nencoder: hashing\n")
    submit_clean(catalog, dataset="letters", recipe=load_recipe(str(folder / "recipe.yaml")))
    drain(catalog)
    return catalog


def recipe_of(objective: str, **changes: str) -> TrainRecipe:
    text = TEACH.replace("OBJECTIVE", objective)
    for old, new in changes.items():
        text = text.replace(old, new)
    return TrainRecipe.from_yaml(text, name="taught")


def value_for(task: str, text: str, number: int) -> Any:
    if task == "spans":
        return marked(text)
    return "tie" if number % 7 == 0 else "b"


def collect(catalog: Catalog, task: str) -> list[str]:
    """Answers to every record in a queue of the task, made of a function of the text."""
    queue_id, _, _ = open_queue(
        catalog,
        dataset="letters",
        name=task,
        schema=parse_schema(SCHEMAS[task]),
        strategy="random",
        num_entries=100,
        refresh_every=100,
    )
    drain(catalog)
    found = []
    with catalog.write() as session:
        now = catalog.now(session)
        while isinstance(
            one := queues.next_task(session, now=now, queue_id=queue_id, annotator_id="ann"), queues.Served
        ):
            lease = {"lease_id": one.lease_id, "annotator_id": "ann", "key": new_id()}
            queues.submit(session, now=now, value=value_for(task, one.text, len(found)), **lease)
            found.append(one.record_id)
    return found


@pytest.fixture(scope="module")
def answers(home: Catalog) -> dict[str, list[str]]:
    """Who was answered, by task."""
    for objective, task in (("tagging", "spans"), ("pairwise", "pairwise")):
        with pytest.raises(DataError, match=rf"nobody has answered a queue of task {task} of 'letters' yet.*--schema"):
            submit_train(home, dataset="letters", recipe=recipe_of(objective))
    return {task: collect(home, task) for task in SCHEMAS}


def trained(catalog: Catalog, recipe: TrainRecipe) -> dict[str, Any]:
    run_id, state = submit_train(catalog, dataset="letters", recipe=recipe)
    assert state == "new"
    drain(catalog)
    with catalog.read() as session:
        run = session.get_one(Run, run_id)
        assert run.state == "done", run.reason
        return run.result or {}


def test_marked_parts_of_a_queue_teach_a_tagger(
    home: Catalog, answers: dict[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    result = trained(home, recipe_of("tagging", **{"steps: 12": "steps: 60"}))
    assert result["left_out"] == {"not in the version": 0, "text changed": 0}
    (row,) = result["held_out"]
    spans = row["spans"]
    assert set(spans["by_label"]) == {"person", "city"}
    assert 20 <= row["num_examples"] < len(answers["spans"])
    assert spans["num_spans"] > 20
    assert spans["f1_low"] <= spans["f1"] <= spans["f1_high"] <= 1
    assert spans["token_f1"] > 0.5
    assert spans["reachable_f1"] > 0.9
    show_training(result, run_id="0" * 8, dataset="d", asked=False)
    assert "span F1" in capsys.readouterr().out


def test_preferences_of_a_queue_teach_a_model_of_them(home: Catalog, answers: dict[str, list[str]]) -> None:
    result = trained(home, recipe_of("pairwise"))
    (row,) = result["held_out"]
    pairs = row["pairs"]
    assert pairs["num_pairs"] + pairs["num_ties"] == row["num_examples"] == result["test"]
    assert pairs["num_ties"] > 0
    assert len(answers["pairwise"]) >= 50
    # The better text always ends alike, which a model of a single layer learns at once.
    assert pairs["accuracy"] > 0.9


def test_answers_count_while_the_text_is_the_one_that_was_answered(
    home: Catalog, answers: dict[str, list[str]]
) -> None:
    store = Store.of(home.settings)
    with home.read() as session:
        dataset = manifests.find_dataset(session, "letters")
        version: Version = manifests.require_version(session, dataset, "curated")
        for reads in ("spans", "pairs"):
            given = answered.answers_to_learn(session, dataset, reads)
            assert given.height == len(answers[answered.TASK_OF[reads]])
            records = curated.read_records(store, version)
            changed = given[0, "id"], given[1, "id"]
            records = records.filter(pl.col("id") != changed[0]) if reads == "spans" else records
            records = records.with_columns(
                text=pl.when(pl.col("id") == changed[1]).then(pl.lit("another")).otherwise("text")
            )
            found, left_out = answered.with_answers(store, version, "body", records, given, reads)
            assert left_out == {"not in the version": int(reads == "spans"), "text changed": 1}
            assert changed[1] not in found["id"].to_list()
            assert found["id"].is_sorted()
            if reads == "pairs":
                assert {json.loads(one)["b"][-4:] for one in found["text"]} == {"f it"}


def test_answers_that_teach_nothing_are_refused() -> None:
    frame = pl.DataFrame({"label": ["tie", "tie"], "spans": [[], []]}, schema_overrides={"spans": answered.SPANS})
    with pytest.raises(DataError, match="all 2 answers are 'tie'"):
        answered.classes_of(frame, "pairs")
    with pytest.raises(DataError, match="none of 2 answers marks a part"):
        answered.classes_of(frame, "spans")
    with pytest.raises(DataError, match="no record that stayed has an answer of a queue of task pairwise"):
        answered.classes_of(frame.clear(), "pairs")
    for reads, what in (("pairs", "preference"), ("spans", "marked part")):
        with pytest.raises(
            DataError, match=f"none of 2 held-out records has a {what}; label more, or raise test_share"
        ):
            answered.check_measurable(frame, reads)


@pytest.mark.parametrize("objective", ["tagging", "pairwise"])
def test_settings_without_effect_on_answers_are_refused(objective: str) -> None:
    with pytest.raises(ConfigError, match=r"a source gives classes; leave it out, .*winnow label import"):
        recipe_of(objective, **{"compare: none": "labels: given"})
    with pytest.raises(ConfigError, match=r"compressions=.* has no effect"):
        recipe_of(objective, **{"compare: none": "compressions: [int8]"})
