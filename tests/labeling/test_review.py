"""What reviewers do, and suggestions that some annotators do not see."""

from typing import Any

import pytest

from catalog.errors import ConflictError, DataError, GoneError, NotFoundError
from catalog.tables.labeling import LabelSuggestion
from labeling import queue, replay, review
from labeling.suggestions import Suggestion, _anchoring, add_suggestions, anchoring


def open_cases(desk: Any, **given: Any) -> list[review.Disagreement]:
    with desk.catalog.read() as session:
        return review.disagreements(session, queue_id=desk.queue_id, **given)


def test_disagreements_are_told_side_by_side_until_a_reviewer_settles_them(pair_desk: Any) -> None:
    desk = pair_desk
    desk.publish("a", "b", "c")
    served = {}
    for who, values in (("ana", ("긍정", "긍정", "부정")), ("bo", ("긍정", "부정", "긍정"))):
        for value in values:
            served[who] = desk.next(who)
            desk.submit(served[who], who, value)
    cases = open_cases(desk)
    assert sorted(one.record_id for one in cases) == ["b", "c"]
    assert [[(o.annotator_id, o.value) for o in one.opinions] for one in cases if one.record_id == "b"] == [
        [("ana", "긍정"), ("bo", "부정")]
    ]
    assert [one.record_id for one in open_cases(desk, limit=1)] == [cases[0].record_id]
    assert [one.record_id for one in open_cases(desk, after=cases[0].task_id)] == [cases[1].record_id]
    # Somebody who answered it may settle it: both answers stand.
    case = next(one for one in cases if one.record_id == "c")
    first = desk.adjudicate(case, "ana", "중립 😐", key="decision-1")
    assert desk.adjudicate(case, "ana", "중립 😐", key="decision-1") == first
    with pytest.raises(ConflictError, match="key 'decision-1' was already used"):
        desk.adjudicate(case, "ana", "긍정", key="decision-1")
    assert [one.record_id for one in open_cases(desk)] == ["b"]
    (settled,) = open_cases(desk, settled=True)
    assert (settled.settled.annotator_id, settled.settled.value) == ("ana", "중립 😐")
    assert [(o.annotator_id, o.value) for o in settled.opinions] == [("ana", "부정"), ("bo", "긍정")]
    assert desk.labels()["c"] == ("중립 😐", 1, 1.0)
    assert desk.progress().num_annotations == 6
    second = desk.adjudicate(case, "lead", "긍정")
    assert second != first
    assert desk.labels()["c"] == ("긍정", 1, 1.0)
    # The annotator's own undo is about what the annotator answered.
    assert desk.undo("ana") == case.task_id
    assert desk.labels()["c"] == ("긍정", 1, 1.0)


def test_a_reviewer_takes_own_decisions_back_the_last_one_first(pair_desk: Any) -> None:
    desk = pair_desk
    desk.publish("a", "b", "c")
    for who, value in (("ana", "긍정"), ("bo", "부정")):
        for _ in range(3):
            desk.answer(who, value)
    cases = {one.record_id: one for one in open_cases(desk)}
    for name, who in (("a", "lead"), ("b", "lead"), ("c", "lead"), ("b", "dee")):
        desk.adjudicate(cases[name], who, "중립 😐", key=f"{name} by {who}")
    found = desk.call(review.take_back, queue_id=desk.queue_id, reviewer_id="lead")
    assert (found.task_id, found.settled) == (cases["c"].task_id, None)
    assert [one.value for one in found.opinions] == ["긍정", "부정"]
    # The other's decision stands, and so it is not for this reviewer to take back.
    assert [desk.take_back("lead"), desk.take_back("lead")] == ["a", None]
    assert sorted(one.record_id for one in open_cases(desk)) == ["a", "c"]
    assert [value for value, _, _ in desk.labels().values()].count("중립 😐") == 1
    # A retry of what was taken back says that it was stored, and settles nothing.
    desk.adjudicate(cases["c"], "lead", "중립 😐", key="c by lead")
    assert sorted(one.record_id for one in open_cases(desk)) == ["a", "c"]
    desk.adjudicate(cases["c"], "lead", "부정")
    assert desk.labels()["c"] == ("부정", 1, 1.0)
    with desk.catalog.read() as session:
        told = replay.history(session, queue_id=desk.queue_id, task_id=cases["c"].task_id)
    assert [one.kind for one in told][:3] == ["adjudicated", "undone", "adjudicated"]
    with pytest.raises(NotFoundError, match="no label queue 'nope'"):
        desk.call(review.take_back, queue_id="nope", reviewer_id="lead")


def test_a_closed_queue_is_still_settled_and_bad_decisions_are_refused(pair_desk: Any) -> None:
    desk = pair_desk
    desk.publish("a")
    for who, value in (("ana", "긍정"), ("bo", "부정")):
        desk.answer(who, value)
    (case,) = open_cases(desk)
    desk.call(queue.close_queue, queue_id=desk.queue_id)
    with pytest.raises(DataError, match="'maybe' is no label"):
        desk.adjudicate(case, "lead", "maybe")
    desk.adjudicate(case, "lead", "부정")
    assert desk.labels() == {"a": ("부정", 1, 1.0)}
    with pytest.raises(GoneError, match="is closed"):
        desk.reassign(case, "cy")
    with pytest.raises(NotFoundError, match="no task 'nope'"):
        desk.call(review.adjudicate, task_id="nope", reviewer_id="lead", value="부정", key="k")


def test_a_reassigned_task_is_served_next_and_leaves_whoever_held_it(desk: Any) -> None:
    desk.publish("a", "b", "c")
    held = desk.next("ana")
    desk.next("bo")
    lease_id = desk.reassign(held, "cy")
    got = desk.next("cy")
    assert (got.lease_id, got.record_id, got.why) == (lease_id, "a", "a reviewer asks for your answer")
    assert desk.next("ana").record_id == "c"
    # An answer that was under way is late, not lost.
    assert desk.submit(held, "ana").late
    assert not desk.submit(got, "cy").late
    with pytest.raises(ConflictError, match="'cy' has accepted this task already"):
        desk.reassign(held, "cy")
    with pytest.raises(ConflictError, match="all answers that this task is to have are there"):
        desk.reassign(held, "dee")


def test_a_reassigned_task_comes_back_when_nobody_answers_it(desk: Any) -> None:
    desk.publish("a")
    held = desk.next("ana")
    desk.reassign(held, "absent")
    assert desk.next("ana").reason == "all_leased"
    desk.wait(61)
    assert desk.next("ana").record_id == "a"


def test_the_past_can_be_asked_for(desk: Any) -> None:
    desk.publish("a", "b")
    served = desk.next("ana")
    then = desk.now
    desk.wait(5)
    desk.submit(served, "ana")
    with desk.catalog.read() as session:
        before = replay.state_at(session, queue_id=desk.queue_id, until=then)
        now = replay.state_at(session, queue_id=desk.queue_id)
        told = replay.history(session, queue_id=desk.queue_id, annotator_id="ana", until=then)
    key = (served.task_id, "ana")
    assert (before.held[key].state, before.held[key].why, before.answers) == ("leased", "because a", {})
    assert (now.held[key].state, list(now.answers)) == ("accepted", [key])
    assert [(one.kind, one.detail["rank"], one.detail["why"]) for one in told] == [("served", 0, "because a")]


def test_a_share_of_the_suggestions_is_hidden_and_the_answer_says_which(new_desk: Any) -> None:
    desk = new_desk(hidden_share=0.3)
    names = [f"r{number}" for number in range(100)]
    desk.publish(*names, "none")
    with desk.catalog.write() as session:
        for at, source in enumerate(("old", "new")):
            session.add_all(
                LabelSuggestion(
                    queue_id=desk.queue_id,
                    record_id=name,
                    source=source,
                    value="긍정" if source == "new" else "부정",
                    score=0.9,
                    created_at=desk.now.replace(minute=at),
                )
                for name in names
            )
    shown = 0
    for _ in names:
        served = desk.next("ana")
        if served.suggestion is not None:
            shown += 1
            assert served.suggestion == {"value": "긍정", "score": 0.9, "source": "new", "shown": True}
        desk.submit(served, "ana")
    # Binomial, 100 draws at 0.7: six standard deviations.
    assert 43 <= shown <= 97
    assert desk.next("ana").suggestion is None


def test_how_much_suggestions_lead_is_told_by_those_that_were_not_seen(new_desk: Any) -> None:
    desk = new_desk(hidden_share=0.5)
    names = [f"r{number}" for number in range(80)]
    desk.publish(*names)
    given = [Suggestion(record_id=name, value="긍정", source="model 3", score=0.9) for name in names]
    assert desk.call(add_suggestions, queue_id=desk.queue_id, suggestions=[*given, *given]) == 160
    agreed = {True: 0, False: 0}
    answered = {True: 0, False: 0}
    for number in range(80):
        served = desk.next("ana")
        was_seen = served.suggestion is not None
        # Led: always agrees with what is seen, with every second one of the others.
        value = "긍정" if was_seen or number % 2 else "부정"
        desk.submit(served, "ana", value)
        answered[was_seen] += 1
        agreed[was_seen] += value == "긍정"
    with desk.catalog.read() as session:
        (found,) = anchoring(session, queue_id=desk.queue_id)
    assert (found.num_shown, found.num_accepted) == (answered[True], agreed[True])
    assert (found.num_hidden, found.num_agreed) == (answered[False], agreed[False])
    assert found.bias == pytest.approx(1 - agreed[False] / answered[False])
    assert 0 < found.low < found.bias < found.high <= 1


def test_the_interval_of_a_difference_is_the_published_one() -> None:
    # Newcombe (1998), table II, example (a): 56/70 against 48/80, method 10.
    found = _anchoring("s", 70, 56, 80, 48)
    assert (round(found.bias, 4), round(found.low, 4), round(found.high, 4)) == (0.2, 0.0524, 0.3339)
    assert _anchoring("s", 70, 56, 0, 0).bias is None
