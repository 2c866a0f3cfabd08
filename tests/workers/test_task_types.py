"""Queues of every task type over a cleaned dataset: what is served, chosen, learned and refused."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from catalog.database import Catalog
from catalog.errors import ConfigError, DataError
from catalog.tables.base import new_id
from catalog.tables.engine import Run
from catalog.tables.labeling import LabelQueue, LabelRound
from labeling import queue as queues
from labeling.fitness import fitting
from labeling.schema import parse_schema
from labeling.strategies import STRATEGIES
from labeling.tasks.pairwise import split_pair
from service.cli.labels import EXAMPLE_SCHEMA
from tests.workers.building import clean_dataset, drain
from tests.workers.corpus import sentences
from training.recipe import TrainRecipe
from workers.label_schema import replace_schema
from workers.labeling import open_queue, refill
from workers.pipelines.label_errors import submit_label_errors
from workers.pipelines.train import submit_train

SCHEMAS = {
    "multi_label": "task: multi_label\nlabels: [a, b]",
    "spans": "task: spans\nlabels: [a]",
    "pairwise": "task: pairwise\na: body\nb: better.text",
    "rating": "task: rating",
    "free_text": "task: free_text",
}


def rows() -> list[dict[str, Any]]:
    """Sentences with a second text beside them, and no label."""
    distinct = [row for number, row in enumerate(sentences(70, seed=4)) if number % 10 and number % 9 and number % 17]
    found = [{**row, "queue": None, "better": {"text": f"더 {row['body']}"}} for row in distinct[:40]]
    found[0]["better"] = {}
    found[1]["better"] = {"text": [{"role": "user", "content": "말"}, {"role": "assistant", "content": "답"}]}
    return found


@pytest.fixture
def cleaned(database: Catalog, tmp_path: Path) -> Catalog:
    """A cleaned dataset of forty records, all of which stay."""
    clean_dataset(database, tmp_path, rows())
    return database


def value_for(task: str, number: int) -> Any:
    return {
        "multi_label": ["a", "b"][: 1 + number % 2],
        "spans": [{"start": 0, "end": 1, "label": "a"}] if number % 2 else [],
        "pairwise": "ab"[number % 2],
        "rating": 1 + number % 5,
        "free_text": f"답 {number}",
    }[task]


def ask(catalog: Catalog, task: str, **options: Any) -> str:
    given = {"strategy": "kmeans", "refresh_every": 5, "num_entries": 6, "random_share": 0.0} | options
    queue_id, _, _ = open_queue(catalog, dataset="tickets", name=task, schema=parse_schema(SCHEMAS[task]), **given)
    drain(catalog)
    return queue_id


def answer(catalog: Catalog, queue_id: str, task: str, count: int) -> list[Any]:
    served = []
    for number in range(count):
        with catalog.write() as session:
            now = catalog.now(session)
            one = queues.next_task(session, now=now, queue_id=queue_id, annotator_id="ann")
            assert isinstance(one, queues.Served)
            lease = {"lease_id": one.lease_id, "annotator_id": "ann", "key": new_id()}
            queues.submit(session, now=now, value=value_for(task, number), **lease)
        served.append(one)
    return served


def test_queue_of_every_task_is_answered_refilled_and_counted(cleaned: Catalog) -> None:
    counted = {
        "multi_label": {"a": 6, "b": 3},
        "spans": {"(none)": 3, "a": 3},
        "pairwise": {"a": 3, "b": 3},
        "rating": {"1": 2, "2": 1, "3": 1, "4": 1, "5": 1},
        "free_text": {"(text)": 6},
    }
    for task in SCHEMAS:
        queue_id = ask(cleaned, task)
        first = answer(cleaned, queue_id, task, 6)
        assert refill(cleaned, queue_id) is None
        drain(cleaned)
        second = answer(cleaned, queue_id, task, 1)
        assert second[0].record_id not in {one.record_id for one in first}
        with cleaned.read() as session:
            runs = session.scalars(select(Run).where(Run.kind == "query", Run.config["queue"].as_string() == queue_id))
            assert {run.state for run in runs} == {"done"}
            assert len(queues.current_labels(session, queue_id=queue_id)) == 7
            shown = queues.progress(session, now=cleaned.now(session), queue_id=queue_id).labels
        last = queues_counted(task)
        assert {name: shown.get(name, 0) - (name in last) for name in counted[task]} == counted[task]


def queues_counted(task: str) -> tuple[str, ...]:
    """What the seventh answer, equal to the first, counts as."""
    return parse_schema(SCHEMAS[task]).kind.counted(value_for(task, 0))


def test_pairwise_queue_serves_both_columns_of_the_records_that_have_them(cleaned: Catalog) -> None:
    queue_id = ask(cleaned, "pairwise", num_entries=39)
    pairs = [split_pair(one.text) for one in answer(cleaned, queue_id, "pairwise", 39)]
    by_a = {pair["a"]: pair for pair in pairs}
    assert len(by_a) == 39
    bodies = [row["body"] for row in rows()]
    assert bodies[0] not in by_a
    assert by_a[bodies[1]] == {"a": bodies[1], "b": "말\n\n답", "prompt": None}
    assert {by_a[body]["b"] for body in bodies[2:]} == {f"더 {body}" for body in bodies[2:]}
    with cleaned.write() as session:
        again = queues.next_task(session, now=cleaned.now(session), queue_id=queue_id, annotator_id="ann")
    assert again == queues.NoTask(reason="done", retry_after_seconds=None)


def test_columns_that_no_record_has_are_refused_with_those_that_there_are(cleaned: Catalog) -> None:
    queue_id = ask(cleaned, "pairwise", num_entries=1)
    told = "no record has text in both columns 'body' and 'bettr'.* better, better.text, body"
    typo = parse_schema("version: 2\ntask: pairwise\na: body\nb: bettr")
    with pytest.raises(DataError, match=told):
        open_queue(cleaned, dataset="tickets", name="typo", schema=typo, strategy="random")
    with pytest.raises(DataError, match=told):
        replace_schema(cleaned, queue_id=queue_id, schema=typo)
    with cleaned.read() as session:
        assert session.scalars(select(LabelQueue.id)).all() == [queue_id]
        assert session.get_one(LabelQueue, queue_id).schema["version"] == 1


def test_ratings_teach_a_model_as_classes(cleaned: Catalog) -> None:
    queue_id = ask(cleaned, "rating", strategy="margin", refresh_every=5, num_entries=6)
    answer(cleaned, queue_id, "rating", 6)
    assert refill(cleaned, queue_id) is None
    drain(cleaned)
    (served,) = answer(cleaned, queue_id, "rating", 1)
    assert served.why.startswith("margin ")
    with cleaned.read() as session:
        assert session.scalars(select(LabelRound)).all() == []


@pytest.mark.parametrize("strategy", ["cvirs", "lci"])
def test_sets_of_labels_teach_a_head_a_label(cleaned: Catalog, strategy: str) -> None:
    queue_id = ask(cleaned, "multi_label", strategy=strategy)
    first = answer(cleaned, queue_id, "multi_label", 6)
    assert refill(cleaned, queue_id) is None
    drain(cleaned)
    (served,) = answer(cleaned, queue_id, "multi_label", 1)
    # Nothing is known before the first answers: clusters stand in for it.
    assert all("cluster" in one.why for one in first)
    assert "cluster" not in served.why


def test_strategy_that_does_not_hold_is_refused_with_those_that_do(cleaned: Catalog) -> None:
    single = parse_schema(EXAMPLE_SCHEMA.replace("\\n", "\n"))
    assert set(fitting(single)) == set(STRATEGIES) - {"cvirs", "lci", "mnlp"}
    for task, text in SCHEMAS.items():
        holds = fitting(parse_schema(text))
        assert {"random", "kmeans"} <= set(holds)
        assert ("margin" in holds) == (task == "rating")
        assert "label_errors" not in holds
        for strategy in set(STRATEGIES) - set(holds):
            with pytest.raises(ConfigError, match=f"does not hold for {task} answers; choose one of {holds[0]}"):
                ask(cleaned, task, strategy=strategy)
    assert "margin" not in fitting(parse_schema("task: rating\nmax: 100"))
    with cleaned.read() as session:
        assert session.scalars(select(LabelQueue)).all() == []


def test_training_takes_ratings_and_says_why_it_does_not_take_other_answers(cleaned: Catalog) -> None:
    recipe = TrainRecipe.from_yaml("labels: annotated\narms: [{name: small}]\n", name="people")
    queue_id = ask(cleaned, "spans")
    answer(cleaned, queue_id, "spans", 3)
    for submit in (
        lambda: submit_train(cleaned, dataset="tickets", recipe=recipe),
        lambda: submit_label_errors(cleaned, dataset="tickets", labels="annotated", features="embeddings"),
    ):
        with pytest.raises(DataError, match=r"are no classes: 'spans' \(spans\)"):
            submit()
    rated = ask(cleaned, "rating")
    answer(cleaned, rated, "rating", 3)
    _, state = submit_train(cleaned, dataset="tickets", recipe=recipe)
    assert state == "new"
