"""Tasks whose answer is known: who meets them when, and what they say of people."""

import random
import threading
from typing import Any

import pytest
from sqlalchemy import select

from catalog.errors import ConfigError, DataError, NotFoundError
from catalog.tables.labeling import Annotation, LabelAssignment, LabelEntry, LabelEvent, LabelGold, LabelTask
from labeling import gold, gold_scores, queue
from labeling.replay import state_at
from labeling.schema import parse_schema
from labeling.slots import task_id_of


def add(desk: Any, **known: str) -> int:
    items = [
        gold.GoldItem(record_id=name, text=f"글 {name}", value=value, note=f"see {name}")
        for name, value in known.items()
    ]
    return int(desk.call(gold.add_gold, queue_id=desk.queue_id, items=items, by="lead"))


def scores(desk: Any) -> dict[str, tuple[int, int]]:
    with desk.catalog.read() as session:
        found = gold_scores.gold_scores(session, queue_id=desk.queue_id)
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
    assert told.pop("g") == gold_scores.Judged(is_right=False, expected="부정", note="see g")
    assert set(told.values()) == {None}


@pytest.mark.parametrize(("strategy", "told"), [("margin", "random check"), ("random", "chosen at random")])
def test_a_known_task_looks_like_one_that_chance_drew(new_desk: Any, strategy: str, told: str) -> None:
    desk = new_desk(gold_every=2, strategy=strategy)
    desk.publish("a", "b")
    add(desk, g="부정")
    first = desk.next("ana")
    why = {one.record_id: one.why for one in (first, desk.next("ana", first))}
    assert why["g"] == told


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


def entries_done(desk: Any, generation: int) -> dict[str, bool]:
    of_generation = select(LabelTask.record_id, LabelEntry.done).join(LabelEntry, LabelEntry.task_id == LabelTask.id)
    with desk.catalog.read() as session:
        return dict(session.execute(of_generation.where(LabelEntry.generation == generation)).all())


def test_a_record_that_became_known_before_its_generation_was_published_is_asked_as_known(new_desk: Any) -> None:
    desk = new_desk(gold_every=2)
    add(desk, a="긍정")
    desk.publish("a", "b")
    assert entries_done(desk, 1) == {"a": True, "b": False}
    desk.call(gold.remove_gold, queue_id=desk.queue_id, record_ids=["a"])
    assert entries_done(desk, 1) == {"a": False, "b": False}


def test_a_record_that_becomes_known_while_a_generation_is_published_is_asked_as_known(new_desk: Any) -> None:
    desk = new_desk(gold_every=2)
    desk.publish("a", "b")
    entries = [queue.QueueEntry(record_id=name, text=f"글 {name}", utility=1.0, why="") for name in ("a", "b")]
    becoming = threading.Thread(target=add, args=(desk,), kwargs={"a": "긍정"})
    with desk.catalog.write() as session:
        queue.publish_generation(session, now=desk.now, queue_id=desk.queue_id, entries=entries)
        becoming.start()
        # Long enough for it to be over if it waited for nobody.
        becoming.join(0.3)
    becoming.join()
    assert entries_done(desk, 2) == {"a": True, "b": False}


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


# ---- known no more ---------------------------------------------------------------------------------------------------


def remove(desk: Any, *records: str) -> gold.Removed:
    done: gold.Removed = desk.call(gold.remove_gold, queue_id=desk.queue_id, record_ids=records, by="lead")
    return done


def check_laws(desk: Any) -> None:
    """What holds of every queue whose schema never changed, whatever was known in between."""
    with desk.catalog.read() as session:
        held = session.scalars(select(LabelAssignment).where(LabelAssignment.queue_id == desk.queue_id)).all()
        current = session.scalars(
            select(Annotation).where(Annotation.queue_id == desk.queue_id, Annotation.retracted.is_(None))
        ).all()
        tasks = {one.id: one for one in session.scalars(select(LabelTask).where(LabelTask.queue_id == desk.queue_id))}
        known = {
            task_id_of(desk.queue_id, one.record_id): one.value
            for one in session.scalars(select(LabelGold).where(LabelGold.queue_id == desk.queue_id))
        }
        overlap = queue.open_queue(session, desk.queue_id).overlap
        rebuilt = state_at(session, queue_id=desk.queue_id)
    for task in tasks.values():
        ours = [one for one in held if one.task_id == task.id]
        accepted = {one.annotator_id for one in ours if one.state == "accepted"}
        late = {one.annotator_id for one in ours if one.state == "late"}
        assert {one.annotator_id for one in current if one.task_id == task.id and not one.late} == accepted
        assert {one.annotator_id for one in current if one.task_id == task.id and one.late} == late
        assert {one.overlap for one in ours} <= {task.overlap}
        if not task.gold:
            live = [one for one in ours if one.state == "leased" and one.expires_at > desk.now]
            assert len(accepted) + len(live) <= overlap == task.overlap
            assert task.done == (len(accepted) == overlap)
    assert {task_id for task_id in known if not tasks[task_id].gold} == set()
    # The events alone tell all of it.
    assert {key: (one.state, one.slot, one.event_id) for key, one in rebuilt.held.items()} == {
        (one.task_id, one.annotator_id): (one.state, one.slot, one.event_id) for one in held
    }
    assert rebuilt.answers == {(one.task_id, one.annotator_id): one.id for one in current}
    assert rebuilt.known == known


def test_answers_to_a_task_that_is_known_no_more_count_as_if_it_never_had_been(new_desk: Any) -> None:
    desk = new_desk(gold_every=2, overlap=2)
    desk.publish("a", "b")
    add(desk, g="부정")
    for who in ("ana", "bo", "cy"):
        for _ in range(3):
            desk.wait(1)
            if desk.answer(who, "긍정" if who == "ana" else "중립 😐") == "g":
                break
    assert scores(desk) == {"ana": (0, 1), "bo": (0, 1), "cy": (0, 1)}
    before = desk.now
    desk.wait(1)
    assert remove(desk, "g") == gold.Removed(num_records=1, num_asked=1, num_votes=2, num_late=1)
    assert scores(desk) == {}
    # The first two hold its places, the third is late; the known answer is nobody's.
    assert desk.labels()["g"] == ("긍정", 2, 0.5)
    assert [(one.annotator_id, one.late, one.retracted) for one in desk.history("g")] == [
        ("ana", False, None),
        ("bo", False, None),
        ("cy", True, None),
    ]
    assert desk.progress().num_tasks == 3
    check_laws(desk)
    with desk.catalog.read() as session:
        then = state_at(session, queue_id=desk.queue_id, until=before)
        gone = session.scalars(select(LabelEvent).where(LabelEvent.kind == "gold_removed")).one()
    assert (list(then.known.values()), len(then.answers)) == (["부정"], desk.progress().num_annotations)
    assert gone.detail == {"value": "부정", "note": "see g", "by": "lead"}
    # Whoever answered it is not asked again, and nobody else: it is done.
    asked = set()
    while isinstance(served := desk.next("dan"), queue.Served):
        desk.submit(served, "dan")
        asked.add(served.record_id)
    assert asked <= {"a", "b"}


def test_a_record_that_was_offered_is_asked_about_again_in_its_place(new_desk: Any) -> None:
    desk = new_desk(gold_every=2)
    desk.publish("a", "b")
    add(desk, a="긍정")
    assert remove(desk, "a") == gold.Removed(num_records=1, num_asked=1, num_votes=0, num_late=0)
    assert [desk.answer("ana") for _ in range(2)] == ["a", "b"]
    assert desk.next("bo").reason == "done"
    check_laws(desk)


def test_a_lease_stays_while_a_place_is_free_and_an_answer_to_one_that_went_is_late(new_desk: Any) -> None:
    desk = new_desk(gold_every=2)
    desk.publish(*(f"r{number}" for number in range(9)), "g")
    add(desk, g="긍정")
    hands: dict[str, Any] = {}
    for who in ("ana", "bo"):
        while who not in hands:
            served = desk.next(who)
            if served.record_id == "g":
                hands[who] = served
            else:
                desk.submit(served, who)
        desk.wait(1)
    remove(desk, "g")
    check_laws(desk)
    assert desk.next("ana").lease_id == hands["ana"].lease_id
    told = desk.submit(hands["ana"], "ana", "부정")
    assert (told.late, told.judged) == (False, None)
    assert desk.submit(hands["bo"], "bo", "긍정").late
    assert desk.labels()["g"] == ("부정", 1, 1.0)
    check_laws(desk)


def test_a_record_that_nobody_met_leaves_the_queue_until_it_is_chosen(new_desk: Any) -> None:
    desk = new_desk(gold_every=2)
    desk.publish("a")
    add(desk, g="긍정")
    assert remove(desk, "g") == gold.Removed(num_records=1, num_asked=0, num_votes=0, num_late=0)
    assert (desk.answer("ana"), desk.progress().num_tasks) == ("a", 1)
    # Nobody waits for it.
    assert desk.next("ana").reason == desk.next("bo").reason == "done"
    desk.publish("g")
    check_laws(desk)
    assert (desk.progress().num_tasks, desk.answer("bo", "부정")) == (2, "g")
    assert desk.next("ana").reason == "done"
    assert desk.labels()["g"] == ("부정", 1, 1.0)
    # And it may be known once more.
    add(desk, g="긍정")
    assert scores(desk) == {"bo": (0, 1)}
    check_laws(desk)


def test_an_answer_to_a_record_that_left_the_queue_is_kept_and_counts_once_it_is_chosen(new_desk: Any) -> None:
    desk = new_desk(gold_every=2)
    desk.publish(*(f"r{number}" for number in range(9)))
    add(desk, g="긍정")
    while (served := desk.next("ana")).record_id != "g":
        desk.submit(served, "ana")
    remove(desk, "g")
    assert desk.submit(served, "ana", "부정").judged is None
    assert "g" not in desk.labels()
    desk.publish("g")
    assert desk.labels()["g"] == ("부정", 1, 1.0)
    # It has all its answers: what is left are others.
    assert desk.next("bo").reason == "waiting_for_model"
    check_laws(desk)


def test_only_what_is_known_is_removed_and_all_or_nothing(new_desk: Any) -> None:
    desk = new_desk(gold_every=2)
    desk.publish("a")
    add(desk, gold1="긍정")
    with pytest.raises(NotFoundError, match="record 'gold' is not known in this queue; did you mean 'gold1'"):
        remove(desk, "gold1", "gold")
    with desk.catalog.read() as session:
        (found,) = gold_scores.known_records(session, queue_id=desk.queue_id)
    assert found == gold_scores.KnownRecord(
        record_id="gold1", value="긍정", note="see gold1", num_answered=0, num_right=0
    )
    with pytest.raises(NotFoundError, match="record 'a' is not known"):
        remove(desk, "a")


def test_known_tasks_come_and_go_among_random_acts_and_no_law_breaks(new_desk: Any) -> None:
    desk, chance = new_desk(gold_every=2, overlap=2), random.Random(5)
    records = ("a", "b", "c", "d", "e")
    desk.publish("a", "b", "c")
    removed = 0
    for _ in range(120):
        who, record = chance.choice(("ana", "bo", "cy", "dan")), chance.choice(records)
        act = chance.choice(("answer", "answer", "answer", "lease", "skip", "undo", "add", "remove", "publish", "wait"))
        if act in ("answer", "lease", "skip"):
            served = desk.next(who)
            if isinstance(served, queue.Served) and act != "lease":
                desk.submit(served, who, chance.choice(("긍정", "부정"))) if act == "answer" else desk.skip(served, who)
        elif act == "undo":
            desk.undo(who)
        elif act == "add":
            add(desk, **{record: "긍정"})
        elif act == "remove":
            with desk.catalog.read() as session:
                known = [one.record_id for one in gold_scores.known_records(session, queue_id=desk.queue_id)]
            if known:
                removed += remove(desk, *chance.sample(known, chance.randint(1, len(known)))).num_records
        elif act == "publish":
            desk.publish(*chance.sample(records, 3))
        else:
            desk.wait(chance.choice((1, 61)))
        check_laws(desk)
    # Ids, and with them who gets what, are drawn anew in every run.
    assert removed >= 3


def test_known_answers_go_along_with_the_schema_and_are_known_no_more_where_they_are_none(new_desk: Any) -> None:
    desk = new_desk(gold_every=2)
    desk.publish("a", "b")
    add(desk, g="긍정", h="부정")
    answered = {desk.answer("ana", "긍정") for _ in range(2)}
    newer = parse_schema("version: 2\nlabels: [{name: 좋음, was: 긍정}, 중립 😐]")
    done = desk.call(queue.change_schema, queue_id=desk.queue_id, schema=newer)
    assert (done.num_known, done.no_longer_known) == (1, ("h",))
    with desk.catalog.read() as session:
        (known,) = gold_scores.known_records(session, queue_id=desk.queue_id)
        rebuilt = state_at(session, queue_id=desk.queue_id)
    assert (known.record_id, known.value) == ("g", "좋음")
    assert (known.num_answered, known.num_right) == (("g" in answered), ("g" in answered))
    assert rebuilt.known == {task_id_of(desk.queue_id, "g"): "좋음"}
    assert desk.labels()["g"] == ("좋음", 1, 1.0)
    # An answer by the schema that was on the screen is as right as it was.
    with desk.catalog.write() as session:
        judged = [
            gold_scores.judge(session, queue_id=desk.queue_id, record_id="g", value=one) for one in ("긍정", "부정")
        ]
    assert [one and (one.is_right, one.expected) for one in judged] == [(True, "좋음"), (False, "좋음")]
