"""What a queue's answers are worth, read from the database."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from catalog.errors import ConfigError, NotFoundError
from catalog.tables.base import new_id
from labeling import queue
from labeling.quality import QueueQuality, consensus_labels, default_method, heard_answers, queue_quality
from labeling.results import CurrentLabel
from tests.labeling.conftest import Desk

LABELS = ("긍정", "부정", "중립 😐")


def measure(desk: Desk, **options: Any) -> QueueQuality:
    options.setdefault("num_replicates", 50)
    with desk.catalog.read() as session:
        return queue_quality(session, queue_id=desk.queue_id, rng=np.random.default_rng(0), **options)


def consensus(desk: Desk, **options: Any) -> list[CurrentLabel]:
    with desk.catalog.read() as session:
        return consensus_labels(session, queue_id=desk.queue_id, **options)


def say(desk: Desk, who: str, what: Callable[[str], str], *, times: int, seconds: float | None = None) -> None:
    """Answer the next tasks; ``what`` says what to a record."""
    for _ in range(times):
        served = desk.next(who)
        desk.wait(1.0)
        desk.call(
            queue.submit,
            lease_id=served.lease_id,
            annotator_id=who,
            value=what(served.record_id),
            key=new_id(),
            seconds_spent=seconds,
        )


def truth(record: str) -> str:
    return LABELS[int(record) % 3]


def always_positive(_record: str) -> str:
    return LABELS[0]


@pytest.fixture
def answered(new_desk: Callable[..., Desk]) -> Desk:
    """Thirty records: two people who know, and one who always says the same."""
    desk = new_desk(overlap=3)
    desk.publish(*[f"{number:03}" for number in range(30)])
    say(desk, "지민", truth, times=30, seconds=2.0)
    say(desk, "영희", truth, times=30, seconds=8.0)
    say(desk, "철수", always_positive, times=30)
    return desk


def test_quality_of_a_queue(answered: Desk) -> None:
    found = measure(answered)
    assert (found.task, found.num_items, found.num_answers) == ("single_choice", 30, 90)
    assert found.method == "pooled_dawid_skene"
    assert found.mean_confidence is not None
    assert found.mean_confidence > 0.9
    alpha, kappa = found.agreement
    assert (alpha.measure, kappa.measure) == ("krippendorff_alpha_nominal", "fleiss_kappa")
    # Of three pairs an item one agrees, or all three where the third is right by chance: 10 of 30 items.
    assert kappa.value == pytest.approx(((10 + 20 / 3) / 30 - 33 / 81) / (1 - 33 / 81))
    assert alpha.low is not None
    assert alpha.low < alpha.value < alpha.high
    assert [(one.annotator_id, one.other_id, one.observed) for one in found.pairs] == [
        ("영희", "지민", 1.0),
        ("영희", "철수", pytest.approx(1 / 3)),
        ("지민", "철수", pytest.approx(1 / 3)),
    ]
    by_name = {one.annotator_id: one for one in found.annotators}
    good, poor = by_name["지민"], by_name["철수"]
    assert (good.num_answers, good.num_shared, good.num_timed, good.median_seconds) == (30, 30, 30, 2.0)
    assert (good.accuracy, good.agreement_with_others) == (1.0, pytest.approx(2 / 3))
    assert good.low is not None
    assert 0.88 < good.low < 0.89
    assert poor.accuracy == pytest.approx(1 / 3)
    assert poor.quality is not None
    assert good.quality is not None
    assert poor.quality < 0.4 < 0.9 < good.quality
    assert poor.confusion == (("긍정", "긍정", 10), ("부정", "긍정", 10), ("중립 😐", "긍정", 10))
    assert (poor.median_seconds, poor.num_timed) == (None, 0)
    # Ten answers a third: enough to say that nothing changed.
    assert (good.first, good.last, good.drifts) == (1.0, 1.0, False)


def test_consensus_carries_its_confidence(answered: Desk) -> None:
    found = consensus(answered)
    assert [one.record_id for one in found] == [f"{number:03}" for number in range(30)]
    assert [one.value for one in found] == [truth(one.record_id) for one in found]
    assert all(one.num_votes == 3 for one in found)
    # Where the one who always says the same stands alone, that is no reason to doubt; the majority's share was 2/3.
    doubted = [one.agreement for one in found if one.value != "긍정"]
    assert min(doubted) > 0.9
    majority = {one.record_id: one.agreement for one in consensus(answered, method="majority")}
    assert majority["001"] == pytest.approx(2 / 3)


def test_few_answers_are_decided_by_majority(new_desk: Callable[..., Desk]) -> None:
    desk = new_desk(overlap=3)
    desk.publish("1", "2")
    say(desk, "지민", truth, times=2)
    say(desk, "영희", truth, times=2)
    say(desk, "철수", always_positive, times=1)
    assert measure(desk).method == "majority"
    assert {one.record_id: (one.value, one.num_votes, one.agreement) for one in consensus(desk)} == desk.labels()


def test_one_annotator_and_none(new_desk: Callable[..., Desk]) -> None:
    desk = new_desk()
    desk.publish("1", "2", "3")
    empty = measure(desk)
    assert (empty.num_answers, empty.method, empty.annotators) == (0, None, ())
    assert empty.agreement[0].reason == "nothing was answered yet"
    assert consensus(desk) == []
    say(desk, "지민", truth, times=3)
    alone = measure(desk)
    assert [(one.value, one.reason) for one in alone.agreement] == [
        (None, "no item was answered by two annotators")
    ] * 2
    (only,) = alone.annotators
    assert (only.num_answers, only.num_shared, only.accuracy, only.low, only.agreement_with_others) == (
        3,
        0,
        None,
        None,
        None,
    )
    assert [one.value for one in consensus(desk)] == [truth(one) for one in ("1", "2", "3")]


def test_answers_taken_back_do_not_count(new_desk: Callable[..., Desk]) -> None:
    desk = new_desk(overlap=2)
    desk.publish("1")
    say(desk, "지민", truth, times=1)
    say(desk, "영희", always_positive, times=1)
    assert measure(desk).num_answers == 2
    desk.undo("영희")
    assert measure(desk).num_answers == 1
    assert [one.value for one in consensus(desk)] == ["부정"]


def test_late_answers_are_heard_only_where_nobody_else_answered(new_desk: Callable[..., Desk]) -> None:
    desk = new_desk(overlap=1)
    desk.publish("1")
    late = desk.next("지민")
    desk.wait(1000.0)
    say(desk, "영희", always_positive, times=1)
    assert desk.submit(late, "지민", "부정").late
    found = measure(desk)
    assert [one.annotator_id for one in found.annotators] == ["영희"]
    desk.undo("영희")
    assert [one.annotator_id for one in measure(desk).annotators] == ["지민"]


def test_unknown_queues_and_methods_are_refused(answered: Desk) -> None:
    with pytest.raises(NotFoundError, match="did you mean 'majority'"):
        measure(answered, method="majorty")
    with answered.catalog.read() as session, pytest.raises(NotFoundError, match="no label queue"):
        queue_quality(session, queue_id="none", rng=np.random.default_rng(0))


def stored(desk: Desk, task: str, labels: list[str], values: dict[str, list[Any]]) -> None:
    """Answers of another task type as they lie in the database, item after item."""
    from catalog.tables.labeling import Annotation, LabelAssignment, LabelQueue, LabelTask

    with desk.catalog.write() as session:
        found = session.get_one(LabelQueue, desk.queue_id)
        found.schema = {"task": task, "labels": [{"name": one} for one in labels]}
        for who, answers in values.items():
            for number, value in enumerate(answers):
                task_id = f"{desk.queue_id[:30]}-{number:03}"
                if session.get(LabelTask, task_id) is None:
                    text = "글" * 40
                    session.add(
                        LabelTask(id=task_id, queue_id=desk.queue_id, record_id=f"{number:03}", text=text, overlap=9)
                    )
                    session.flush()
                lease = LabelAssignment(
                    queue_id=desk.queue_id,
                    task_id=task_id,
                    annotator_id=who,
                    overlap=9,
                    state="late",
                    generation=1,
                    rank=number,
                    utility=0.0,
                    why="",
                    expires_at=desk.now,
                    event_id=0,
                )
                session.add(lease)
                session.flush()
                session.add(
                    Annotation(
                        queue_id=desk.queue_id,
                        task_id=task_id,
                        annotator_id=who,
                        lease_id=lease.id,
                        value=value,
                        key=new_id(),
                        late=False,
                        created_at=desk.now,
                    )
                )


def test_ratings_are_measured_by_their_order(new_desk: Callable[..., Desk]) -> None:
    desk = new_desk()
    stored(desk, "rating", [], {"a": [1, 2, 3, 10, 2, 9], "b": [1, 2, 4, 10, 2, 8]})
    ordinal, interval, nominal, _ = measure(desk).agreement
    assert [one.measure for one in (ordinal, interval, nominal)] == [
        "krippendorff_alpha_ordinal",
        "krippendorff_alpha_interval",
        "krippendorff_alpha_nominal",
    ]
    assert nominal.value is not None
    assert interval.value is not None
    assert ordinal.value is not None
    assert nominal.value < 0.7 < 0.9 < min(interval.value, ordinal.value)


def test_spans_are_measured_by_f1_and_gamma(new_desk: Callable[..., Desk]) -> None:
    desk = new_desk()
    one, other = {"start": 0, "end": 4, "label": "인물"}, {"start": 10, "end": 14, "label": "장소"}
    near = {"start": 0, "end": 3, "label": "인물"}
    stored(desk, "spans", ["인물", "장소"], {"a": [[one, other], [one], []], "b": [[one, other], [near], []]})
    exact, overlap, gamma = measure(desk).agreement
    assert (exact.measure, exact.value) == ("span_f1_exact", pytest.approx(2 * 2 / 6))
    assert (overlap.measure, overlap.value) == ("span_f1_overlap", 1.0)
    assert gamma.value is not None
    assert 0.9 < gamma.value < 1.0
    assert measure(desk).method is None
    with pytest.raises(ConfigError, match="task 'spans' has no labels to decide between"):
        measure(desk, method="majority")


def test_several_labels_are_measured_each_for_itself(new_desk: Callable[..., Desk]) -> None:
    desk = new_desk()
    stored(desk, "multi_label", ["x", "y"], {"a": [["x"], ["x", "y"], ["y"], []], "b": [["x"], ["x"], ["y"], []]})
    whole, first, second = measure(desk).agreement
    assert [one.measure for one in (whole, first, second)] == [
        "krippendorff_alpha_label_sets",
        "krippendorff_alpha_label: x",
        "krippendorff_alpha_label: y",
    ]
    assert first.value == pytest.approx(1.0)
    assert second.value is not None
    assert second.value < 1.0


def test_written_answers_have_no_measure_and_say_so(new_desk: Callable[..., Desk]) -> None:
    desk = new_desk()
    stored(desk, "free_text", [], {"a": ["좋은 글"], "b": ["나쁜 글"]})
    (none,) = measure(desk).agreement
    assert (none.value, none.reason) == (None, "no measure of agreement fits answers of task 'free_text'")


def test_the_default_wants_enough_answers_of_each(answered: Desk) -> None:
    from labeling.annotations import Annotations
    from labeling.slots import open_queue

    with answered.catalog.read() as session:
        rows = heard_answers(session, open_queue(session, answered.queue_id))
    assert default_method(Annotations.from_frame(rows)) == "pooled_dawid_skene"
    assert default_method(Annotations.from_frame(rows.head(40))) == "majority"
