"""Finished tasks that are asked about again: one more answer, by somebody who is there, and nobody waits for it."""

from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from catalog.tables.labeling import LabelAssignment, LabelEvent, LabelTask
from labeling import relabels
from labeling.candidates import Answers
from labeling.imports import Imported, import_answers
from labeling.learner import out_of_sample
from labeling.quality import queue_quality
from labeling.queue import MadeBy, QueueEntry, publish_generation
from labeling.replay import state_at
from labeling.second_opinions import doubted
from labeling.slots import task_id_of


def askable(desk: Any) -> set[str]:
    return desk.call(relabels.askable_again, queue_id=desk.queue_id)


def task(desk: Any, record: str) -> LabelTask:
    with desk.catalog.read() as session:
        return session.get_one(LabelTask, task_id_of(desk.queue_id, record))


def kinds(desk: Any, record: str) -> list[tuple[str, int]]:
    with desk.catalog.read() as session:
        rows = session.scalars(
            select(LabelEvent).where(LabelEvent.task_id == task_id_of(desk.queue_id, record)).order_by(LabelEvent.id)
        ).all()
    return [(one.kind, one.detail["overlap"]) for one in rows if "overlap" in one.detail]


def test_finished_task_asked_again_takes_one_more_answer_and_is_finished_by_it(desk: Any) -> None:
    desk.publish("a", "b")
    assert desk.answer("ana", "긍정") == "a"
    assert desk.answer("bo", "긍정") == "b"
    desk.publish("a", "b", again={"a"})
    assert (task(desk, "a").overlap, task(desk, "a").done) == (2, False)
    assert (task(desk, "b").overlap, task(desk, "b").done) == (1, True)
    assert desk.progress().num_done == 1
    served = desk.next("bo")
    assert (served.record_id, served.why) == ("a", "because a")
    with desk.catalog.read() as session:
        assert session.get_one(LabelAssignment, served.lease_id).kind == "again"
    assert not desk.submit(served, "bo", "부정").late
    assert task(desk, "a").done
    assert desk.progress().num_done == 2
    assert desk.labels()["a"] == ("긍정", 2, 0.5)
    desk.publish("a", "b", again={"a"})
    assert desk.answer("cy", "부정") == "a"
    assert desk.labels()["a"] == ("부정", 3, 2 / 3)
    assert kinds(desk, "a") == [("asked_again", 2), ("asked_again", 3)]


def test_nobody_waits_for_another_opinion_that_nobody_gives(desk: Any) -> None:
    desk.publish("a")
    desk.answer("ana")
    desk.publish("a", again={"a"})
    assert desk.next("ana").reason == "done"
    served = desk.next("bo")
    assert desk.next("ana").reason == "done"
    assert desk.next("cy").reason == "all_leased"
    desk.skip(served, "bo")
    assert desk.next("bo").reason == "done"


def test_what_is_not_asked_again_any_more_is_finished_as_it_is(desk: Any) -> None:
    desk.publish("a", "b")
    desk.answer("ana")
    desk.answer("ana")
    desk.publish("a", "b", again={"a", "b"})
    left = desk.next("bo")
    kept = desk.next("cy")
    assert (left.record_id, kept.record_id) == ("a", "b")
    desk.wait(50)
    desk.heartbeat(kept, "cy")
    desk.wait(20)
    desk.publish()
    # Bo's lease ran out; cy is at it.
    assert (task(desk, "a").overlap, task(desk, "a").done) == (1, True)
    assert (task(desk, "b").overlap, task(desk, "b").done) == (2, False)
    assert kinds(desk, "a") == [("asked_again", 2), ("withdrawn", 1)]
    assert desk.submit(left, "bo", "부정").late
    assert not desk.submit(kept, "cy", "부정").late
    assert task(desk, "b").done
    with desk.catalog.read() as session:
        rebuilt = state_at(session, queue_id=desk.queue_id)
    assert rebuilt.overlaps == {task_id_of(desk.queue_id, "a"): 1, task_id_of(desk.queue_id, "b"): 2}


def test_task_whose_first_answer_was_taken_back_waits_for_both(desk: Any) -> None:
    desk.publish("a")
    desk.answer("ana")
    desk.publish("a", again={"a"})
    desk.answer("bo", "부정")
    desk.undo("ana")
    desk.wait(61)
    desk.publish()
    # Bo's answer has the second slot: the task cannot be made smaller, and goes on as one that waits.
    assert (task(desk, "a").overlap, task(desk, "a").done) == (2, False)
    assert desk.next("cy").reason == "waiting_for_model"
    desk.publish("a", again={"a"})
    assert task(desk, "a").overlap == 2
    assert desk.answer("cy", "부정") == "a"
    assert task(desk, "a").done


def test_only_what_somebody_present_could_answer_is_asked_again(desk: Any) -> None:
    desk.publish("a", "b", "c")
    for _ in range(3):
        desk.answer("ana")
    # Whose answer was imported is not here.
    imported = [Imported(record_id="z", annotator_id="외주", value="긍정")]
    desk.call(import_answers, queue_id=desk.queue_id, answers=imported, texts={"z": "글 z"}, source="x.jsonl")
    assert askable(desk) == set()
    desk.publish("a", "b", "c", "d", "e")
    desk.skip(desk.next("bo"), "bo")
    # What bo has skipped and ana answered, nobody present could.
    assert desk.answer("ana") == "d"
    assert askable(desk) == {"a", "b", "c", "z"}
    desk.adjudicate(type("Served", (), {"task_id": task_id_of(desk.queue_id, "a")}), "lead", "중립 😐")
    assert askable(desk) == {"b", "c", "z"}
    desk.publish("a", "b", "c", again={"a", "b", "c"})
    assert [task(desk, one).overlap for one in "abc"] == [1, 2, 2]
    assert desk.answer("bo") == "b"
    # What waits for another opinion may be chosen anew; what bo has answered, nobody present could.
    assert askable(desk) == {"c", "z"}
    desk.next("bo")
    assert askable(desk) == {"z"}
    desk.wait(relabels.ACTIVE_DAYS * 86_400 + 61)
    assert askable(desk) == set()
    # Somebody alone: cy could say something of b, and there would be nobody to say whose opinion is right.
    assert desk.next("cy").record_id == "c"
    assert askable(desk) == set()


def test_five_answers_are_the_most(desk: Any) -> None:
    people = ["ana", "bo", "cy", "di", "ed", "fay"]
    desk.publish("a")
    for number, who in enumerate(people[:5], start=1):
        assert desk.answer(who) == "a"
        desk.publish("a", again={"a"})
        assert task(desk, "a").overlap == min(number + 1, relabels.MOST_ANSWERS)
    assert task(desk, "a").done
    assert desk.next("fay").reason == "done"
    desk.publish("a", "b")
    assert desk.next("fay").record_id == "b"
    assert askable(desk) == set()


def test_whom_only_doubted_labels_compare_is_not_measured_by_them(new_desk: Any) -> None:
    records = [f"r{number:02}" for number in range(25)]
    for overlap, method in ((2, "pooled_dawid_skene"), (1, "majority")):
        desk = new_desk(overlap=overlap)
        for again in ((), records) if overlap == 1 else ((),):
            entries = [
                QueueEntry(record_id=one, text=one, utility=0.0, why="", kind="again" if again else "chosen")
                for one in records
            ]
            made_by = MadeBy(strategy="auto", num_labels=0, figures={})
            desk.call(publish_generation, queue_id=desk.queue_id, entries=entries, made_by=made_by)
            for number in range(25):
                desk.answer("bo" if again else "ana", "긍정" if number % 2 else "부정")
        if overlap == 2:
            for number in range(25):
                desk.answer("bo", "긍정" if number % 2 else "부정")
        with desk.catalog.read() as session:
            found = queue_quality(session, queue_id=desk.queue_id, rng=np.random.default_rng(0), num_replicates=2)
        assert (found.method, found.num_answers) == (method, 50)


def test_finishings_are_counted_through_asking_again(desk: Any) -> None:
    def publish(*again: str) -> None:
        entries = [
            QueueEntry(record_id=one, text=one, utility=0.0, why="", kind="again" if one in again else "chosen")
            for one in (again or "abc")
        ]
        made_by = MadeBy(strategy="auto", num_labels=0, figures={"kappa": 0.5})
        desk.call(publish_generation, queue_id=desk.queue_id, entries=entries, made_by=made_by)

    def counted() -> tuple[int, int]:
        with desk.catalog.read() as session:
            return desk.progress().num_done, relabels.num_asked_again(session, desk.queue_id)

    publish()
    for _ in range(3):
        desk.answer("ana")
    assert counted() == (3, 0)
    publish("a", "b")
    assert counted() == (1, 2)
    desk.answer("bo")
    assert counted() == (2, 2)
    publish("c")
    assert counted() == (2, 2)
    publish()
    assert counted() == (2, 2)
    publish("a")
    assert counted() == (2, 2)


@pytest.mark.parametrize(
    ("proba", "codes", "is_doubted"),
    [
        ([0.6, 0.4], [0], False),
        ([0.4, 0.6], [0], True),
        ([0.9, 0.1], [0, 1], True),
        ([0.0, 1.0], [0, 0], False),
        ([0.6, 0.4], [0, 0, 1], False),
        ([0.4, 0.6], [0, 0, 1], True),
        ([0.0, 1.0], [0, 0, 0, 1], False),
        ([0.5, 0.5], [], False),
    ],
)
def test_label_is_doubted_when_it_leads_by_less_than_one_answer(
    proba: list[float], codes: list[int], is_doubted: bool
) -> None:
    answers = Answers(
        rows=np.ones(len(codes), dtype=np.int64),
        annotators=np.arange(len(codes)),
        codes=np.array(codes, dtype=np.int64),
    )
    assert doubted(np.array([[0.5, 0.5], proba]), answers).tolist() == [False, is_doubted]


def test_out_of_sample_a_wrong_label_is_not_learned_by_heart() -> None:
    rng = np.random.default_rng(3)
    codes = np.arange(60) % 2
    points = (rng.normal(size=(60, 4)) + 4.0 * codes[:, None]).astype(np.float32)
    labels = ["no", "yes"]
    given = [labels[code] for code in codes]
    given[7] = "no"
    proba = out_of_sample(points, given, labels, 0)
    assert proba is not None
    assert np.allclose(proba.sum(axis=1), 1.0)
    assert proba[7, 1] > 0.9
    assert (proba.argmax(axis=1) == codes).all()
    assert out_of_sample(points[:6], ["no"] * 5 + ["yes"], labels, 0) is None
