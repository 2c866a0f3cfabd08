"""Tasks whose answer is known: who meets them when, and what they say of people."""

from typing import Any

import pytest
from sqlalchemy import select

from catalog.errors import ConfigError, DataError
from catalog.tables.labeling import LabelTask
from labeling import gold, queue


def add(desk: Any, **known: str) -> int:
    items = [
        gold.GoldItem(record_id=name, text=f"글 {name}", value=value, note=f"see {name}")
        for name, value in known.items()
    ]
    return int(desk.call(gold.add_gold, queue_id=desk.queue_id, items=items, by="lead"))


def scores(desk: Any) -> dict[str, tuple[int, int]]:
    with desk.catalog.read() as session:
        found = gold.gold_scores(session, queue_id=desk.queue_id)
    return {one.annotator_id: (one.num_right, one.num_answered) for one in found}


def test_each_annotator_meets_a_known_task_in_every_stretch_and_each_one_once(new_desk: Any) -> None:
    desk = new_desk(gold_every=5)
    desk.publish(*(f"r{number}" for number in range(100)))
    add(desk, g1="긍정", g2="부정", g3="긍정")
    for who in ("ana", "bo"):
        asked = [desk.answer(who) for _ in range(25)]
        met = [at for at, name in enumerate(asked) if name.startswith("g")]
        assert sorted(asked[at] for at in met) == ["g1", "g2", "g3"]
        # The nth is met after 5(n-1) to 5n-1 others: counting those met before, in a stretch of six.
        assert all(6 * number <= at < 6 * (number + 1) for number, at in enumerate(met)), met
    assert scores(desk) == {"ana": (2, 3), "bo": (2, 3)}


def test_known_tasks_are_nobodys_label_and_no_part_of_the_progress(new_desk: Any) -> None:
    desk = new_desk(gold_every=2)
    desk.publish("a", "b")
    add(desk, g="부정")
    assert sorted(desk.answer("ana") for _ in range(3)) == ["a", "b", "g"]
    assert desk.next("ana").reason == "done"
    assert desk.labels() == {"a": ("긍정", 1, 1.0), "b": ("긍정", 1, 1.0), "g": ("부정", 1, 1.0)}
    progress = desk.progress()
    assert (progress.num_tasks, progress.num_done) == (2, 2)
    with desk.catalog.read() as session:
        assert queue.unfinished(session, now=desk.now, queue_id=desk.queue_id) == []
        assert queue.taken_records(session, now=desk.now, queue_id=desk.queue_id) == {"a", "b"}


def test_an_annotator_is_told_how_a_known_task_is_answered_and_may_not_know_it_before(new_desk: Any) -> None:
    desk = new_desk(gold_every=2)
    desk.publish("a", "b", "c", "d")
    add(desk, g="부정")
    told = {}
    for _ in range(3):
        served = desk.next("ana")
        told[served.record_id] = desk.submit(served, "ana", "긍정").judged
        assert "known" not in served.why
    assert told.pop("g") == gold.Judged(is_right=False, expected="부정", note="see g")
    assert set(told.values()) == {None}


def test_tasks_in_hand_count_so_that_fetching_ahead_meets_no_more_of_them(new_desk: Any) -> None:
    desk = new_desk(gold_every=2)
    desk.publish(*(f"r{number}" for number in range(20)))
    add(desk, **{f"g{number}": "긍정" for number in range(9)})
    asked, hand = [], []
    for _ in range(18):
        while len(hand) < 3:
            hand.append(desk.next("ana", *hand))
        served = hand.pop(0)
        desk.submit(served, "ana")
        asked.append(served.record_id)
    assert len(set(asked)) == len(asked)
    assert sum(name.startswith("g") for name in asked) == 6


def test_a_record_that_is_offered_becomes_known(new_desk: Any) -> None:
    desk = new_desk(gold_every=2)
    desk.publish("a", "b")
    assert desk.answer("ana", "부정") == "a"
    add(desk, a="긍정", b="긍정")
    assert scores(desk) == {"ana": (0, 1)}
    assert desk.labels()["a"] == ("긍정", 1, 1.0)
    assert add(desk, a="부정") == 1
    assert scores(desk) == {"ana": (1, 1)}
    with desk.catalog.read() as session:
        tasks = session.execute(select(LabelTask.record_id, LabelTask.gold, LabelTask.done)).all()
    assert {tuple(row) for row in tasks} == {("a", True, False), ("b", True, False)}


def test_bad_known_tasks_are_refused_and_none_is_kept(new_desk: Any) -> None:
    desk = new_desk()
    with pytest.raises(DataError, match="'happy' is no label of this queue"):
        add(desk, a="긍정", b="happy")
    twice = [gold.GoldItem(record_id="a", text="t", value="긍정")] * 2
    with pytest.raises(DataError, match="record 'a' is given twice"):
        desk.call(gold.add_gold, queue_id=desk.queue_id, items=twice)
    assert desk.labels() == {}
    with pytest.raises(ConfigError, match="gold_every=1 must be 0"):
        new_desk(gold_every=1)
