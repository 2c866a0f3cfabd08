"""Span queues over a cleaned dataset: a model of spans is fitted on the answers and says what is asked next."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from catalog.database import Catalog
from catalog.tables.base import new_id
from catalog.tables.labeling import LabelEntry, LabelGeneration, LabelTask
from labeling import queue as queues
from labeling.fitness import fitting
from labeling.schema import parse_schema
from labeling.stopping import advice
from labeling.tagger import SpanModel
from tests.workers.building import clean_dataset, drain
from workers.labeling import open_queue, refresh_if_due

PEOPLE = ("Ann Lee", "김민수", "Olga Novak", "이영희", "Tom Baker", "박지훈", "Mia Wong", "田中")
CITIES = ("Seoul", "부산", "Oslo", "Lima", "東京", "Quito")
FRAMES = (
    "{person} wrote from {city} that the parcel is lost",
    "please send the invoice of {person} to {city} by {number} June",
    "{person}는 {city}에서 환불을 기다린다 {number}",
    "the server in {city} was restarted {number} times since Monday",
    "nothing happened on day {number} but rain and more rain",
)
SCHEMA = "task: spans\nlabels: [person, city]"


def rows() -> list[dict[str, Any]]:
    chance = random.Random(3)
    return [
        {"body": FRAMES[number % 5].format(person=chance.choice(PEOPLE), city=chance.choice(CITIES), number=number)}
        for number in range(60)
    ]


def marked(text: str) -> list[dict[str, Any]]:
    """The people and cities in a text."""
    found = [
        {"start": text.index(name), "end": text.index(name) + len(name), "label": label}
        for label, names in (("person", PEOPLE), ("city", CITIES))
        for name in names
        if name in text
    ]
    return sorted(found, key=lambda one: one["start"])


@pytest.fixture
def cleaned(sqlite: Catalog, tmp_path: Path) -> Catalog:
    """A cleaned dataset of sixty texts."""
    clean_dataset(sqlite, tmp_path, rows())
    return sqlite


def ask(catalog: Catalog, name: str, *, schema: str = SCHEMA, **options: Any) -> str:
    given = {"strategy": "mnlp", "refresh_every": 8, "num_entries": 10, "random_share": 0.0} | options
    queue_id, _, _ = open_queue(catalog, dataset="tickets", name=name, schema=parse_schema(schema), **given)
    drain(catalog)
    return queue_id


def answer(catalog: Catalog, queue_id: str, count: int, *, blind: bool = False) -> list[queues.Served]:
    served = []
    for _ in range(count):
        with catalog.write() as session:
            now = catalog.now(session)
            one = queues.next_task(session, now=now, queue_id=queue_id, annotator_id="ann")
            assert isinstance(one, queues.Served)
            value = [] if blind else marked(one.text)
            lease = {"lease_id": one.lease_id, "annotator_id": "ann", "key": new_id()}
            queues.submit(session, now=now, value=value, **lease)
        served.append(one)
    return served


def published(catalog: Catalog, queue_id: str, generation: int) -> list[tuple[str, LabelEntry]]:
    with catalog.read() as session:
        found = session.execute(
            select(LabelTask.text, LabelEntry)
            .join(LabelEntry, LabelEntry.task_id == LabelTask.id)
            .where(LabelEntry.queue_id == queue_id, LabelEntry.generation == generation)
            .order_by(LabelEntry.rank)
        )
        return [(text, entry) for text, entry in found]


def refreshed(catalog: Catalog, queue_id: str) -> dict[str, Any]:
    """Let the job refit; the figures that its choice left."""
    assert refresh_if_due(catalog, queue_id) is not None
    drain(catalog)
    with catalog.read() as session:
        newest = select(LabelGeneration.figures).where(LabelGeneration.queue_id == queue_id)
        return dict(session.scalars(newest.order_by(LabelGeneration.generation.desc()).limit(1)).one())


def test_mnlp_queue_starts_without_a_model_and_then_asks_what_its_model_is_least_sure_of(cleaned: Catalog) -> None:
    assert "mnlp" in fitting(parse_schema(SCHEMA))
    queue_id = ask(cleaned, "names")
    served = answer(cleaned, queue_id, 8)
    assert {one.why.split(":")[0] for one in served} == {"no model yet for mnlp"}
    figures = refreshed(cleaned, queue_id)
    entries = published(cleaned, queue_id, 2)
    # The eight that are answered, seen by a model that was fitted beside the queue.
    by_id = sorted((one.record_id, one.text) for one in served)
    texts = [text for _, text in by_id]
    model = SpanModel.fit(texts, [marked(text) for text in texts], ("person", "city"), 0)
    sure = model.mean_log_proba([text for text, _ in entries])
    assert [entry.utility for _, entry in entries] == pytest.approx((-sure).tolist())
    assert (np.diff(sure) >= 0).all()
    assert len(set(sure.tolist())) > 3
    assert all(entry.why.startswith("unsure of its spans: 0.") for _, entry in entries)
    # A generation of a small dataset is all that is left.
    assert figures["uncertainty"] == pytest.approx(float(1 - np.exp(sure).mean()))
    assert figures["kappa"] is None
    assert len(figures["stop_set"]) == 8 + len(entries)
    answer(cleaned, queue_id, 8)
    again = refreshed(cleaned, queue_id)
    assert 0.0 <= again["changed"] <= 1.0
    told = {one.name: one.figure for one in advice([figures, again], num_answers=16, budget=None)}
    assert told["uncertainty"] == again["uncertainty"]


def test_auto_spreads_over_what_the_span_model_is_unsure_of_and_chance_draws_from_all(cleaned: Catalog) -> None:
    queue_id = ask(cleaned, "auto", strategy="auto", random_share=0.2)
    answer(cleaned, queue_id, 8)
    refreshed(cleaned, queue_id)
    entries = published(cleaned, queue_id, 2)
    chosen = [entry.why for _, entry in entries if entry.kind == "chosen"]
    assert all(why.startswith("unsure of its spans: 0.") and why.endswith(" like it") for why in chosen)
    drawn = [entry.why for _, entry in entries if entry.kind == "random"]
    assert drawn == ["random check"] * round(0.2 * len(entries))
    assert len({entry.task_id for _, entry in entries}) == len(entries)


def test_queue_in_which_nothing_is_marked_yet_goes_on_without_a_model(cleaned: Catalog) -> None:
    queue_id = ask(cleaned, "blind")
    answer(cleaned, queue_id, 8, blind=True)
    assert refreshed(cleaned, queue_id) == {}
    assert published(cleaned, queue_id, 2)[0][1].why.startswith("no model yet for mnlp: ")


def test_overlapping_schema_learns_a_label_at_a_time(cleaned: Catalog) -> None:
    queue_id = ask(cleaned, "overlapping", schema=f"{SCHEMA}\noverlapping: true")
    served = answer(cleaned, queue_id, 8)
    refreshed(cleaned, queue_id)
    texts = [text for _, text in sorted((one.record_id, one.text) for one in served)]
    model = SpanModel.fit(texts, [marked(text) for text in texts], ("person", "city"), 0, overlapping=True)
    assert len(model.groups) == 2
    entries = published(cleaned, queue_id, 2)
    sure = model.mean_log_proba([text for text, _ in entries])
    assert [entry.utility for _, entry in entries] == pytest.approx((-sure).tolist())
