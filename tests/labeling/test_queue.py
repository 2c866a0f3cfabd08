"""The queue's promises, on SQLite and PostgreSQL, with a clock that only the test moves."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError

from catalog.errors import ConfigError, ConflictError, DataError, GoneError, NotFoundError
from catalog.tables.base import new_id
from catalog.tables.labeling import Annotation, LabelAssignment, LabelEntry, LabelEvent, LabelQueue, LabelTask
from labeling import queue
from labeling.results import throughput
from labeling.schema import LabelSchema
from labeling.servable import servable_locked

LEASE_SECONDS = 60.0


def events(desk: Any) -> list[tuple[str, str | None]]:
    with desk.catalog.read() as session:
        rows = session.execute(select(LabelEvent.kind, LabelEvent.annotator_id).order_by(LabelEvent.id)).all()
    return [(kind, annotator) for kind, annotator in rows]


def test_queue_waits_for_the_model_before_its_first_generation(desk: Any) -> None:
    assert desk.next("ana") == queue.NoTask(reason="waiting_for_model", retry_after_seconds=2.0)


def test_tasks_are_served_in_the_order_of_the_generation_with_their_reason(desk: Any) -> None:
    desk.publish("가", "나", "다")
    served = [desk.next(annotator) for annotator in ("ana", "bo", "cy")]
    assert [(one.record_id, one.text, one.why, one.rank, one.utility) for one in served] == [
        ("가", "글 가", "because 가", 0, 1.0),
        ("나", "글 나", "because 나", 1, 1 / 2),
        ("다", "글 다", "because 다", 2, 1 / 3),
    ]
    assert {one.generation for one in served} == {1}
    assert {one.expires_at for one in served} == {desk.now + timedelta(seconds=LEASE_SECONDS)}


def test_asking_again_gives_the_same_lease_back_renewed(desk: Any) -> None:
    desk.publish("x", "y")
    first = desk.next("ana")
    desk.wait(LEASE_SECONDS - 1)
    second = desk.next("ana")
    assert (second.lease_id, second.record_id) == (first.lease_id, "x")
    assert second.expires_at == desk.now + timedelta(seconds=LEASE_SECONDS)


def test_all_leased_says_when_to_ask_again_and_done_says_never(desk: Any) -> None:
    desk.publish("x")
    served = desk.next("ana")
    desk.wait(20)
    assert desk.next("bo") == queue.NoTask(reason="all_leased", retry_after_seconds=LEASE_SECONDS - 20)
    desk.submit(served, "ana")
    assert desk.next("bo") == desk.next("ana") == queue.NoTask(reason="done", retry_after_seconds=None)


def test_queue_is_done_for_an_annotator_who_answered_everything_others_may_still(pair_desk: Any) -> None:
    pair_desk.publish("x")
    pair_desk.answer("ana")
    assert pair_desk.next("ana").reason == "done"
    assert pair_desk.next("bo").record_id == "x"
    assert pair_desk.next("ana").reason == "done"


def test_empty_queue_waits_while_a_new_generation_is_under_way(desk: Any) -> None:
    desk.publish("x")
    desk.answer("ana")
    with desk.catalog.write() as session:
        queue.await_model(session, queue_id=desk.queue_id)
    assert desk.next("ana").reason == "waiting_for_model"
    desk.publish("x", "y")
    assert desk.next("ana").record_id == "y"


def test_new_generation_changes_the_order_and_leases_survive_it(desk: Any) -> None:
    desk.publish("a", "b", "c", "d")
    held = desk.next("ana")
    assert desk.publish("d", "c", "b", "a") == 2
    assert desk.next("bo").record_id == "d"
    assert desk.next("ana").lease_id == held.lease_id
    assert desk.submit(held, "ana").late is False
    assert [desk.answer("ana"), desk.answer("ana")] == ["c", "b"]
    assert desk.progress().num_tasks == 4


def test_finished_tasks_are_not_served_by_a_later_generation(desk: Any) -> None:
    desk.publish("a", "b")
    assert desk.answer("ana") == "a"
    desk.publish("a", "b")
    assert desk.next("bo").record_id == "b"
    desk.publish()
    assert desk.next("cy").reason == "all_leased"
    assert desk.answer("bo") == "b"
    assert desk.next("cy").reason == "done"


def test_annotator_at_the_end_of_a_generation_waits_while_records_are_left(desk: Any) -> None:
    desk.publish("x", num_left=1)
    served = desk.next("ana")
    assert desk.next("bo") == queue.NoTask(reason="waiting_for_model", retry_after_seconds=2.0)
    desk.submit(served, "ana")
    assert desk.next("ana") == queue.NoTask(reason="waiting_for_model", retry_after_seconds=2.0)
    desk.publish("y")
    assert desk.answer("ana") == "y"
    assert desk.next("ana") == queue.NoTask(reason="done", retry_after_seconds=None)


def test_open_task_that_the_generation_left_out_is_no_end(pair_desk: Any) -> None:
    pair_desk.publish("x", "y")
    assert pair_desk.answer("ana") == "x"
    skipped = pair_desk.next("ana")
    pair_desk.skip(skipped, "ana")
    pair_desk.publish("y")
    assert pair_desk.next("ana").reason == "done"
    assert pair_desk.answer("bo") == "y"
    assert pair_desk.next("bo").reason == "waiting_for_model"
    pair_desk.publish("x", "y")
    assert pair_desk.answer("bo") == "x"
    assert pair_desk.next("bo").reason == "done"


def test_unfinished_tasks_are_those_that_others_may_still_answer(pair_desk: Any) -> None:
    pair_desk.publish("skipped", "answered", "finished", "held", "untouched")
    pair_desk.skip(pair_desk.next("ana"), "ana")
    assert [pair_desk.answer("ana") for _ in range(3)] == ["answered", "finished", "held"]
    pair_desk.skip(pair_desk.next("bo"), "bo")
    pair_desk.skip(pair_desk.next("bo"), "bo")
    assert pair_desk.answer("bo") == "finished"
    assert pair_desk.next("bo").record_id == "held"
    found = pair_desk.call(queue.unfinished, queue_id=pair_desk.queue_id)
    assert [(one.record_id, one.is_answered, sorted(one.dealt_with_by), one.why) for one in found] == [
        ("answered", True, ["ana", "bo"], "because answered"),
        ("skipped", False, ["ana", "bo"], "because skipped"),
    ]
    assert pair_desk.call(queue.taken_records, queue_id=pair_desk.queue_id) == {"finished", "held"}
    pair_desk.wait(LEASE_SECONDS)
    found = pair_desk.call(queue.unfinished, queue_id=pair_desk.queue_id)
    assert [one.record_id for one in found] == ["answered", "held", "skipped"]
    assert pair_desk.call(queue.taken_records, queue_id=pair_desk.queue_id) == {"finished"}


def test_so_many_unfinished_tasks_are_carried_over_that_nobody_is_left_without() -> None:
    def one(record_id: str, *dealt_with_by: str) -> queue.Unfinished:
        dealt = frozenset(dealt_with_by)
        return queue.Unfinished(record_id=record_id, is_answered=True, dealt_with_by=dealt, utility=0.0, why="")

    found = [one(f"ana {number}", "ana") for number in range(9)] + [one(f"bo {number}", "bo") for number in range(9)]
    assert [each.record_id for each in queue.carried_over(found, 2)] == ["ana 0", "ana 1", "bo 0", "bo 1"]
    assert queue.carried_over([], 2) == []


def test_reopened_queue_goes_on_where_it_was_closed(desk: Any) -> None:
    desk.publish("x", "y")
    desk.answer("ana")
    desk.call(queue.close_queue, queue_id=desk.queue_id)
    with pytest.raises(GoneError, match="closed"):
        desk.next("ana")
    desk.call(queue.reopen_queue, queue_id=desk.queue_id)
    desk.call(queue.reopen_queue, queue_id=desk.queue_id)
    assert desk.next("ana").record_id == "y"
    assert [kind for kind, _ in events(desk)][-3:] == ["closed", "reopened", "served"]


@pytest.mark.parametrize("overlap", [1, 2, 3])
def test_each_task_is_given_to_exactly_overlap_annotators(new_desk: Any, overlap: int) -> None:
    desk = new_desk(overlap=overlap)
    desk.publish("x", "y")
    given = [desk.next(f"annotator {number}").record_id for number in range(2 * overlap)]
    assert given == ["x"] * overlap + ["y"] * overlap
    assert desk.next("one more").reason == "all_leased"


def test_task_with_one_answer_and_one_lease_is_full(pair_desk: Any) -> None:
    pair_desk.publish("x", "y")
    pair_desk.answer("ana")
    assert pair_desk.next("bo").record_id == "x"
    assert pair_desk.next("cy").record_id == "y"


def test_expired_lease_is_taken_over_in_the_second_it_runs_out(desk: Any) -> None:
    desk.publish("x")
    lost = desk.next("ana")
    desk.wait(LEASE_SECONDS - 0.001)
    assert desk.next("bo").reason == "all_leased"
    desk.wait(0.001)
    assert desk.next("bo").record_id == "x"
    with pytest.raises(GoneError, match="expired"):
        desk.heartbeat(lost, "ana")
    assert events(desk)[-2:] == [("expired", "ana"), ("served", "bo")]


def test_heartbeat_keeps_a_lease_and_revives_one_nobody_took(desk: Any) -> None:
    desk.publish("x")
    served = desk.next("ana")
    for _ in range(3):
        desk.wait(LEASE_SECONDS - 1)
        assert desk.heartbeat(served, "ana") == desk.now + timedelta(seconds=LEASE_SECONDS)
        assert desk.next("bo").reason == "all_leased"
    desk.wait(LEASE_SECONDS * 10)
    desk.heartbeat(served, "ana")
    assert desk.next("bo").reason == "all_leased"


def test_answer_after_expiry_counts_while_nobody_took_the_slot(desk: Any) -> None:
    desk.publish("x")
    served = desk.next("ana")
    desk.wait(LEASE_SECONDS * 5)
    assert desk.submit(served, "ana").late is False
    assert desk.labels() == {"x": ("긍정", 1, 1.0)}


def test_late_answer_is_kept_and_heard_only_until_an_accepted_one_comes(desk: Any) -> None:
    desk.publish("x", "y")
    lost = desk.next("ana")
    desk.wait(LEASE_SECONDS)
    taken = desk.next("bo")
    assert taken.record_id == "x"
    assert desk.submit(lost, "ana", "부정").late is True
    assert desk.labels() == {"x": ("부정", 1, 1.0)}
    assert desk.next("ana").record_id == "y"
    desk.wait(1)
    assert desk.submit(taken, "bo", "긍정").late is False
    assert desk.labels() == {"x": ("긍정", 1, 1.0)}
    assert [(one.annotator_id, one.value, one.late) for one in desk.history("x")] == [
        ("ana", "부정", True),
        ("bo", "긍정", False),
    ]
    assert desk.progress().num_done == 1


def test_stale_answer_takes_another_free_slot_before_it_is_late(pair_desk: Any) -> None:
    pair_desk.publish("x")
    lost = pair_desk.next("ana")
    pair_desk.next("bo")
    pair_desk.wait(LEASE_SECONDS)
    pair_desk.next("cy")
    assert pair_desk.submit(lost, "ana").late is False
    assert pair_desk.progress().num_annotations == 1


def test_released_task_is_free_at_once_and_releasing_twice_is_harmless(desk: Any) -> None:
    desk.publish("x", "y")
    served = desk.next("ana")
    desk.release(served, "ana")
    desk.release(served, "ana")
    assert desk.next("bo").record_id == "x"
    assert desk.next("ana").record_id == "y"


def test_skipped_task_goes_to_others_and_never_back(desk: Any) -> None:
    desk.publish("x", "y")
    served = desk.next("ana")
    desk.skip(served, "ana", "글이 깨졌다")
    desk.skip(served, "ana", "again")
    assert desk.next("ana").record_id == "y"
    assert desk.next("bo").record_id == "x"
    assert desk.progress().num_skipped == 1
    with desk.catalog.read() as session:
        detail = session.scalars(select(LabelEvent.detail).where(LabelEvent.kind == "skipped")).one()
    assert detail["reason"] == "글이 깨졌다"


def test_answered_task_cannot_be_skipped(desk: Any) -> None:
    desk.publish("x")
    served = desk.next("ana")
    desk.submit(served, "ana")
    with pytest.raises(ConflictError, match="undo"):
        desk.skip(served, "ana")


def test_repeated_answer_is_one_answer(desk: Any) -> None:
    desk.publish("x")
    served = desk.next("ana")
    first = desk.submit(served, "ana", key="k")
    again = desk.submit(served, "ana", key="k")
    assert (again.annotation_id, again.repeated) == (first.annotation_id, True)
    assert desk.progress().num_annotations == 1
    desk.call(queue.close_queue, queue_id=desk.queue_id)
    assert desk.submit(served, "ana", key="k").repeated is True


def test_key_used_for_another_answer_is_refused(desk: Any) -> None:
    desk.publish("x", "y")
    served = desk.next("ana")
    desk.submit(served, "ana", "긍정", key="k")
    with pytest.raises(ConflictError, match="'k'"):
        desk.submit(served, "ana", "부정", key="k")
    with pytest.raises(ConflictError, match="'k'"):
        desk.submit(desk.next("ana"), "ana", "긍정", key="k")


def test_two_annotators_may_use_one_key(pair_desk: Any) -> None:
    pair_desk.publish("x")
    for annotator in ("ana", "bo"):
        assert pair_desk.submit(pair_desk.next(annotator), annotator, key="1").repeated is False


def test_second_answer_of_an_annotator_supersedes_the_first(desk: Any) -> None:
    desk.publish("x")
    served = desk.next("ana")
    desk.submit(served, "ana", "긍정")
    desk.wait(1)
    desk.submit(served, "ana", "부정")
    assert desk.labels() == {"x": ("부정", 1, 1.0)}
    assert [(one.value, one.retracted) for one in desk.history("x")] == [("긍정", "superseded"), ("부정", None)]


@pytest.mark.parametrize("value", ["긍정적", "", 1, None, ["긍정"], True])
def test_answer_outside_the_schema_is_refused_with_the_allowed_labels(desk: Any, value: Any) -> None:
    desk.publish("x")
    with pytest.raises(DataError, match=r"allowed: 긍정, 부정, 중립 😐"):
        desk.submit(desk.next("ana"), "ana", value)
    assert desk.progress().num_annotations == 0


@pytest.mark.parametrize("key", ["", "k" * 201, "k\x00", "\ud800"])
def test_key_the_databases_cannot_hold_is_refused(desk: Any, key: str) -> None:
    desk.publish("x")
    served = desk.next("ana")
    with pytest.raises(DataError, match="key"):
        desk.call(queue.submit, lease_id=served.lease_id, annotator_id="ana", value="긍정", key=key)


def test_seconds_spent_are_stored_and_must_be_a_duration(desk: Any) -> None:
    desk.publish("x")
    given = {"lease_id": desk.next("ana").lease_id, "annotator_id": "ana", "value": "긍정", "key": "k"}
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(DataError, match="seconds_spent"):
            desk.call(queue.submit, **given, seconds_spent=wrong)
    desk.call(queue.submit, **given, seconds_spent=2.5)
    assert desk.history("x")[0].seconds_spent == 2.5


def test_undo_brings_the_task_back_before_the_one_on_the_screen(desk: Any) -> None:
    desk.publish("x", "y", "z")
    desk.answer("ana", "부정")
    on_screen = desk.next("ana")
    task_id = desk.undo("ana")
    again = desk.next("ana")
    assert (again.task_id, again.record_id) == (task_id, "x")
    assert desk.labels() == {}
    assert desk.next("bo").record_id == "z"
    desk.wait(1)
    desk.submit(again, "ana", "긍정")
    assert desk.next("ana").lease_id == on_screen.lease_id
    assert desk.labels() == {"x": ("긍정", 1, 1.0)}
    assert [(one.value, one.retracted) for one in desk.history("x")] == [("부정", "undone"), ("긍정", None)]


def test_undo_goes_back_answer_by_answer_and_skips_too(desk: Any) -> None:
    desk.publish("x", "y", "z")
    desk.answer("ana")
    desk.skip(desk.next("ana"), "ana")
    desk.answer("ana")
    with desk.catalog.read() as session:
        record = {task.id: task.record_id for task in session.scalars(select(LabelTask))}
    assert [record[desk.undo("ana")] for _ in range(3)] == ["z", "y", "x"]
    assert desk.undo("ana") is None
    assert desk.undo("bo") is None
    assert [desk.answer("ana") for _ in range(3)] == ["x", "y", "z"]


def test_undone_answer_left_alone_goes_back_to_everybody(desk: Any) -> None:
    desk.publish("x")
    desk.answer("ana")
    desk.undo("ana")
    assert desk.next("bo").reason == "all_leased"
    desk.wait(LEASE_SECONDS)
    assert desk.next("bo").record_id == "x"


def test_undo_of_an_answer_whose_task_left_the_generation_still_comes_back(desk: Any) -> None:
    desk.publish("x")
    desk.answer("ana")
    desk.publish("y")
    desk.undo("ana")
    assert desk.next("ana").record_id == "x"


def test_answer_sent_again_after_its_undo_stays_undone(desk: Any) -> None:
    desk.publish("x")
    served = desk.next("ana")
    desk.submit(served, "ana", key="k")
    desk.undo("ana")
    assert desk.submit(served, "ana", key="k").repeated is True
    assert desk.labels() == {}


def test_lease_of_another_annotator_looks_as_if_it_did_not_exist(desk: Any) -> None:
    desk.publish("x")
    served = desk.next("ana")
    for act in (desk.heartbeat, desk.release, desk.skip, desk.submit):
        with pytest.raises(NotFoundError, match="no lease"):
            act(served, "bo")
    unknown = {"lease_id": new_id(), "annotator_id": "ana"}
    with pytest.raises(NotFoundError, match="no lease"):
        desk.call(queue.heartbeat, **unknown)
    assert desk.heartbeat(served, "ana") > desk.now


def test_closed_queue_takes_nothing_and_keeps_everything(desk: Any) -> None:
    desk.publish("x", "y")
    desk.answer("ana")
    served = desk.next("ana")
    desk.call(queue.close_queue, queue_id=desk.queue_id)
    desk.call(queue.close_queue, queue_id=desk.queue_id)
    for act in (desk.heartbeat, desk.release, desk.skip, desk.submit):
        with pytest.raises(GoneError, match="'main' is closed"):
            act(served, "ana")
    for call in (lambda: desk.next("bo"), lambda: desk.undo("ana"), lambda: desk.publish("z")):
        with pytest.raises(GoneError):
            call()
    assert desk.labels() == {"x": ("긍정", 1, 1.0)}
    assert desk.progress().num_done == 1


def test_majority_wins_ties_go_to_the_smallest_and_agreement_is_told(new_desk: Any) -> None:
    desk = new_desk(overlap=3)
    desk.publish("x", "y", "z")
    said = {"x": ("부정", "긍정", "부정"), "y": ("중립 😐", "부정", "긍정"), "z": ("긍정", "긍정", "긍정")}
    for record in "xyz":
        for number, value in enumerate(said[record]):
            assert desk.answer(f"annotator {number}", value) == record
    assert desk.labels() == {"x": ("부정", 3, 2 / 3), "y": ("긍정", 3, 1 / 3), "z": ("긍정", 3, 1.0)}


@pytest.mark.parametrize("first", ["ana", "bo"])
def test_of_two_stale_answers_that_come_together_the_first_has_the_slot(desk: Any, first: str) -> None:
    desk.publish("x")
    served = {"bo": desk.next("bo")}
    desk.wait(LEASE_SECONDS + 1)
    served["ana"] = desk.next("ana")
    desk.wait(LEASE_SECONDS + 1)
    order = [first, *({"ana", "bo"} - {first})]
    answers = [
        queue.Given(lease_id=served[who].lease_id, annotator_id=who, value="긍정", key=f"key of {who}") for who in order
    ]
    stored = desk.call(queue.submit_all, answers=answers)
    assert [one.late for one in stored] == [False, True]


@pytest.mark.parametrize("first", ["ana", "bo"])
def test_of_two_who_ask_together_the_first_has_the_lease_that_ran_out(desk: Any, first: str) -> None:
    desk.publish("x")
    desk.next("bo")
    desk.wait(LEASE_SECONDS + 1)
    order = [first, *({"ana", "bo"} - {first})]
    asking = [queue.Asking(annotator_id=who) for who in order]
    served, none = desk.call(queue.next_tasks, queue_id=desk.queue_id, asking=asking)
    assert (served.record_id, none.reason) == ("x", "all_leased")


def test_wrong_answer_among_others_is_refused_alone(pair_desk: Any) -> None:
    pair_desk.publish("x")
    served = {who: pair_desk.next(who) for who in ("ana", "bo")}
    answers = [
        queue.Given(lease_id=served["ana"].lease_id, annotator_id="ana", value="기쁨", key="1"),
        queue.Given(lease_id=served["bo"].lease_id, annotator_id="bo", value="긍정", key="2"),
        queue.Given(lease_id=served["bo"].lease_id, annotator_id="cy", value="긍정", key="3"),
        queue.Given(lease_id=served["bo"].lease_id, annotator_id="di", value="긍정", key="\x00"),
    ]
    stored = pair_desk.call(queue.submit_all, answers=answers)
    assert [type(one) for one in stored] == [DataError, queue.Submitted, NotFoundError, DataError]
    assert pair_desk.labels() == {"x": ("긍정", 1, 1.0)}


def test_progress_counts_what_there_is(pair_desk: Any) -> None:
    desk = pair_desk
    desk.publish("x", "y", "z")
    desk.answer("ana", "긍정")
    desk.answer("bo", "부정")
    desk.skip(desk.next("ana"), "ana")
    desk.answer("bo", "긍정")
    desk.next("cy")
    assert desk.progress() == queue.Progress(
        num_tasks=3,
        num_done=1,
        num_leased=1,
        num_skipped=1,
        num_annotations=3,
        annotators={"ana": 1, "bo": 2},
        labels={"긍정": 2, "부정": 1},
    )
    desk.wait(LEASE_SECONDS)
    assert desk.progress().num_leased == 0


def test_throughput_counts_answers_by_hour_and_says_how_long_the_rest_takes(pair_desk: Any) -> None:
    pair_desk.publish("x", "y", "z")
    pair_desk.wait(1)
    assert pair_desk.call(throughput, queue_id=pair_desk.queue_id).hours_left is None
    pair_desk.answer("ana")
    pair_desk.wait(2 * 3600)
    pair_desk.answer("ana")
    pair_desk.answer("bo")
    pace = pair_desk.call(throughput, queue_id=pair_desk.queue_id)
    assert (pace.per_hour[-3:], sum(pace.per_hour)) == ((1, 0, 2), 3)
    assert pace.hours_left == 1.5
    pair_desk.wait(3600)
    assert pair_desk.call(throughput, queue_id=pair_desk.queue_id).hours_left == 1.5
    pair_desk.wait(3600)
    assert pair_desk.call(throughput, queue_id=pair_desk.queue_id).hours_left is None


def test_event_log_tells_why_somebody_got_a_task(desk: Any) -> None:
    desk.publish("x")
    served = desk.next("ana")
    desk.submit(served, "ana")
    assert events(desk) == [("published", None), ("served", "ana"), ("submitted", "ana")]
    with desk.catalog.read() as session:
        event = session.scalars(select(LabelEvent).where(LabelEvent.kind == "served")).one()
        assert event.at == desk.now
        assert event.task_id == served.task_id
        assert event.detail == {
            "lease_id": served.lease_id,
            "state": "leased",
            "slot": 0,
            "kind": "chosen",
            "suggestion": None,
            "generation": 1,
            "rank": 0,
            "utility": 1.0,
            "why": "because x",
        }


def test_generation_refuses_bad_entries_and_leaves_the_old_one(desk: Any) -> None:
    desk.publish("x")
    good = queue.QueueEntry(record_id="y", text="t", utility=1.0, why="w")
    wrong = [
        (queue.QueueEntry(record_id="y", text="t", utility=0.5, why="w"), "twice"),
        (queue.QueueEntry(record_id="z", text="t", utility=float("nan"), why="w"), "finite"),
        (queue.QueueEntry(record_id="z", text="a\x00b", utility=0.5, why="w"), "NUL"),
    ]
    for entry, message in wrong:
        with pytest.raises(DataError, match=message):
            desk.call(queue.publish_generation, queue_id=desk.queue_id, entries=[good, entry])
    assert desk.next("ana").record_id == "x"
    assert desk.progress().num_tasks == 1


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"name": "main"}, ConflictError, "'main'"),
        ({"name": ""}, DataError, "queue name"),
        ({"strategy": "margni"}, NotFoundError, "did you mean 'margin'"),
        ({"overlap": 0}, ConfigError, "overlap=0"),
        ({"overlap": 101}, ConfigError, "overlap=101"),
        ({"lease_seconds": 0.0}, ConfigError, r"lease_seconds=0\.0"),
        ({"lease_seconds": float("nan")}, ConfigError, "lease_seconds=nan"),
    ],
)
def test_queue_creation_names_what_is_wrong(desk: Any, given: dict[str, Any], error: type, message: str) -> None:
    with desk.catalog.read() as session:
        made = session.get_one(LabelQueue, desk.queue_id)
        schema = LabelSchema.from_json(made.schema)
    usual = {
        "name": "other",
        "dataset_id": desk.dataset_id,
        "version_id": desk.version_id,
        "schema": schema,
        "strategy": "margin",
        "encoder": "minilm",
        "overlap": 1,
        "lease_seconds": 60.0,
        "seed": 0,
    }
    with pytest.raises(error, match=message):
        desk.call(queue.create_queue, **{**usual, **given})


def test_queue_is_found_by_name_or_by_being_the_only_open_one(desk: Any) -> None:
    def find(name: str | None = None) -> str:
        with desk.catalog.read() as session:
            return queue.find_queue(session, dataset_id=desk.dataset_id, name=name).id

    assert find() == find("main") == desk.queue_id
    with pytest.raises(NotFoundError, match="did you mean 'main'"):
        find("mian")
    with desk.catalog.write() as session:
        made = session.get_one(LabelQueue, desk.queue_id)
        columns = {
            one.key: getattr(made, one.key) for one in made.__mapper__.column_attrs if one.key not in ("id", "name")
        }
        session.add(LabelQueue(**columns, name="second"))
    with pytest.raises(ConfigError, match="say by --queue which: main, second"), desk.catalog.read() as session:
        queue.find_queue(session, dataset_id=desk.dataset_id, named_by="--queue")
    desk.call(queue.close_queue, queue_id=desk.queue_id)
    assert find() == find("second")
    with desk.catalog.read() as session, pytest.raises(NotFoundError, match="winnow label create"):
        queue.find_queue(session, dataset_id=new_id())


def _lease_row(desk: Any, served: Any, **changed: Any) -> LabelAssignment:
    row = {
        "queue_id": desk.queue_id,
        "task_id": served.task_id,
        "annotator_id": "intruder",
        "overlap": 1,
        "slot": 0,
        "state": "leased",
        "generation": 1,
        "rank": 0,
        "utility": 0.0,
        "why": "",
        "expires_at": desk.now,
        "event_id": 1,
    }
    return LabelAssignment(**{**row, **changed})


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"slot": 1},
        {"slot": 1, "overlap": 2},
        {"slot": -1},
        {"slot": None},
        {"slot": None, "state": "accepted"},
        {"slot": 0, "state": "released"},
        {"slot": None, "state": "skipped", "annotator_id": "ana"},
        {"slot": None, "state": "stolen"},
    ],
)
def test_database_itself_refuses_a_lease_beyond_the_overlap(desk: Any, changed: dict[str, Any]) -> None:
    desk.publish("x")
    served = desk.next("ana")
    with pytest.raises(IntegrityError), desk.catalog.write() as session:
        session.add(_lease_row(desk, served, **changed))


def test_database_itself_refuses_two_current_answers_of_one_annotator(pair_desk: Any) -> None:
    pair_desk.publish("x")
    served = pair_desk.next("ana")
    pair_desk.submit(served, "ana", "긍정", key="1")
    pair_desk.submit(served, "ana", "부정", key="2")
    with pytest.raises(IntegrityError), pair_desk.catalog.write() as session:
        session.execute(update(Annotation).values(retracted=None))


def test_raising_a_tasks_overlap_lets_one_more_answer_in(desk: Any) -> None:
    desk.publish("x")
    desk.answer("ana")
    with desk.catalog.write() as session:
        session.execute(update(LabelTask).values(overlap=2, done=False))
        session.execute(update(LabelEntry).values(done=False))
    assert desk.answer("bo", "부정") == "x"
    assert desk.next("cy").reason == "done"


def test_serving_walks_the_index_of_open_entries_without_sorting(desk: Any) -> None:
    desk.publish(*(f"r{number}" for number in range(3000)))
    given = {"queue_id": desk.queue_id, "generation": 1, "annotator_id": "ana", "now": desk.now}
    with desk.catalog.read() as session:
        statement = servable_locked().params(given)
        sql = str(statement.compile(session.connection(), compile_kwargs={"literal_binds": True}))
        explain = "EXPLAIN QUERY PLAN " if desk.catalog.is_sqlite else "EXPLAIN "
        plan = " ".join(str(row) for row in session.connection().exec_driver_sql(explain + sql))
    assert "ix_label_entries_open" in plan
    assert "Sort" not in plan
    assert "TEMP B-TREE" not in plan
