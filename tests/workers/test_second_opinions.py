"""A queue that asks about answered records again: what is chosen, what is served, and what it is worth under noise."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from benchmarks.second_opinions import spend
from catalog.database import Catalog
from catalog.tables.base import new_id
from catalog.tables.engine import Run
from catalog.tables.labeling import LabelEntry, LabelEvent, LabelQueue, LabelTask
from labeling import queue as queues
from labeling import relabels
from labeling.schema import parse_schema
from labeling.strategies.active_lab import DISAGREE, DOUBTED
from tests.workers.building import clean_dataset, drain
from tests.workers.corpus import WORDS
from workers.labeling import open_queue, refill, refresh_if_due

SCHEMA = parse_schema("question: About what?\nlabels: [machines, money]")
TOPICS = {"machines": WORDS[::2], "money": WORDS[1::2]}
NOISE = 0.3


def topical(count: int, seed: int) -> list[dict[str, str]]:
    """Records whose words say what they are about."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        topic = rng.choice(sorted(TOPICS))
        other = next(one for one in TOPICS if one != topic)
        words = rng.choices(TOPICS[topic], k=10) + rng.choices(TOPICS[other], k=4)
        rng.shuffle(words)
        made.append({"body": f"{' '.join(words)} {number}.", "queue": topic})
    return made


@pytest.fixture
def cleaned(sqlite: Catalog, tmp_path: Path) -> Catalog:
    """A cleaned dataset whose ingested labels are the truth."""
    clean_dataset(sqlite, tmp_path, topical(60, seed=5))
    return sqlite


def open_one(catalog: Catalog, strategy: str, **options: Any) -> str:
    given = {"refresh_every": 10, "random_share": 0.0, "num_entries": 20} | options
    queue_id, _, _ = open_queue(catalog, dataset="tickets", name=strategy, schema=SCHEMA, strategy=strategy, **given)
    drain(catalog)
    return queue_id


def truth_of(text: str) -> str:
    counts = Counter(topic for word in text.split() for topic, words in TOPICS.items() if word in words)
    return counts.most_common(1)[0][0]


class Crowd:
    """People who answer in turn, each wrong about three texts in ten."""

    def __init__(self, catalog: Catalog, queue_id: str, people: tuple[str, ...], *, noise: float = NOISE) -> None:
        self.catalog, self.queue_id, self.people, self.noise = catalog, queue_id, people, noise
        self.rng = random.Random(4)
        self.served: list[tuple[str, queues.Served]] = []

    def next(self, who: str) -> queues.Served | queues.NoTask:
        with self.catalog.write() as session:
            now = self.catalog.now(session)
            return queues.next_task(session, now=now, queue_id=self.queue_id, annotator_id=who)

    def answer(self, who: str, served: queues.Served) -> None:
        value = truth_of(served.text)
        if self.rng.random() < self.noise:
            value = next(one for one in TOPICS if one != value)
        with self.catalog.write() as session:
            told = {"lease_id": served.lease_id, "annotator_id": who, "value": value, "key": new_id()}
            queues.submit(session, now=self.catalog.now(session), **told)
        self.served.append((who, served))
        if refresh_if_due(self.catalog, self.queue_id) is not None:
            drain(self.catalog)

    def work(self, most: int = 10_000) -> None:
        """Answer until nobody gets anything, or so often."""
        idle = 0
        while len(self.served) < most and idle < len(self.people):
            who = self.people[(len(self.served) + idle) % len(self.people)]
            served = self.next(who)
            if isinstance(served, queues.Served):
                self.answer(who, served)
                idle = 0
            elif served.reason == "waiting_for_model":
                assert refill(self.catalog, self.queue_id) is None
                drain(self.catalog)
            else:
                idle += 1


def entries(catalog: Catalog, queue_id: str) -> list[Any]:
    with catalog.read() as session:
        generation = session.get_one(LabelQueue, queue_id).generation
        return list(
            session.execute(
                select(LabelEntry.rank, LabelEntry.kind, LabelEntry.why, LabelTask.overlap, LabelTask.id)
                .join(LabelTask, LabelTask.id == LabelEntry.task_id)
                .where(LabelEntry.queue_id == queue_id, LabelEntry.generation == generation)
                .order_by(LabelEntry.rank)
            )
        )


def test_doubted_labels_are_asked_again_of_somebody_else_and_it_comes_to_an_end(cleaned: Catalog) -> None:
    queue_id = open_one(cleaned, "auto")
    people = ("ann", "bo", "cy")
    crowd = Crowd(cleaned, queue_id, people)
    crowd.work(20)
    again = [one for one in entries(cleaned, queue_id) if one.kind == "again"]
    assert 0 < len(again) <= 10
    assert {one.overlap for one in again} <= {2, 3}
    assert {one.why for one in again} <= {DOUBTED, DISAGREE}
    crowd.work()
    # Everybody is through, though hardly a text has all answers that it could have.
    for who in people:
        nothing = crowd.next(who)
        assert isinstance(nothing, queues.NoTask)
        assert nothing.reason == "done"
    asked = Counter(served.record_id for _, served in crowd.served)
    assert len({(who, served.record_id) for who, served in crowd.served}) == len(crowd.served)
    assert {1, 2} <= set(asked.values()) <= {1, 2, 3}
    assert DISAGREE in {served.why for _, served in crowd.served}
    with cleaned.read() as session:
        progress = queues.progress(session, now=cleaned.now(session), queue_id=queue_id)
        kinds = Counter(session.scalars(select(LabelEvent.kind).where(LabelEvent.queue_id == queue_id)))
        results = [one.result for one in session.scalars(select(Run).where(Run.kind == "query"))]
        labels = queues.current_labels(session, queue_id=queue_id)
        total = relabels.num_asked_again(session, queue_id)
    assert progress.num_done == progress.num_tasks == len(asked) > 40
    assert kinds["asked_again"] - kinds["withdrawn"] == total == len(crowd.served) - len(asked)
    assert sum(one["num_again"] for one in results if one) >= kinds["asked_again"]
    assert {one.record_id: one.num_votes for one in labels} == asked


def test_only_second_people_are_asked_for_second_opinions(cleaned: Catalog) -> None:
    queue_id = open_one(cleaned, "active_lab")
    crowd = Crowd(cleaned, queue_id, ("ann",))
    crowd.work(20)
    assert {one.kind for one in entries(cleaned, queue_id)} == {"chosen"}
    crowd.people = ("bo", "ann")
    crowd.work(30)
    again = [one for one in entries(cleaned, queue_id) if one.kind == "again"]
    assert 0 < len(again) <= 10
    assert {one.why for one in again} == {DOUBTED}


@pytest.mark.no_cover
def test_with_noisy_annotators_labels_asked_again_are_right_more_often_than_as_many_new_ones() -> None:
    rng = np.random.default_rng(0)
    truth = np.arange(600) % 3
    points = (2.0 * np.eye(6)[truth] + rng.normal(size=(600, 6))).astype(np.float32)
    classes, arms = ("a", "b", "c"), {}
    for asks in (False, True):
        for seed in (1, 2, 3):
            labels = spend(points, truth, classes, asks_again=asks, seed=seed, num_answers=500)
            right = np.mean([label == classes[truth[row]] for row, label in labels.items()])
            arms.setdefault(asks, []).append((right, len(labels)))
    plain, mended = (np.mean([right for right, _ in arms[asks]]) for asks in (False, True))
    assert {count for _, count in arms[False]} == {500}
    assert all(200 < count < 400 for _, count in arms[True])
    assert plain == pytest.approx(1 - NOISE, abs=0.03)
    assert mended > plain + 0.05
