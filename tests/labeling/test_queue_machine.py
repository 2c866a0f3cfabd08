"""The queue against a model of it small enough to read, over random acts of three annotators and a fake clock."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import select

from catalog.errors import ConflictError, DataError, GoneError
from catalog.tables.labeling import Annotation, LabelAssignment, LabelTask
from labeling import queue
from labeling.imports import Imported, Taken, import_answers
from labeling.leases import MAX_IN_HAND
from labeling.relabels import MOST_ANSWERS
from labeling.replay import state_at
from labeling.slots import TASK_NAMESPACE

ANNOTATORS = ("ana", "bo", "cy")
RECORDS = ("가", "b", "c", "d")
LABELS = ("긍정", "부정")
LEASE = timedelta(seconds=60)
DEALT_WITH = ("accepted", "skipped", "late")


@dataclass
class Lease:
    """The model's idea of one annotator's dealings with one record."""

    record: str
    annotator: str
    state: str
    slot: int | None
    expires_at: datetime
    act: int
    served: Any = None
    comes_first: bool = False


@dataclass
class Model:
    """What the queue should do: dictionaries and loops."""

    overlap: int
    now: datetime
    order: list[str] = field(default_factory=list)
    published: bool = False
    num_left: int = 0
    offered: set[str] = field(default_factory=set)
    leases: dict[tuple[str, str], Lease] = field(default_factory=dict)
    answers: dict[tuple[str, str], tuple[str, bool]] = field(default_factory=dict)
    decided: dict[str, str] = field(default_factory=dict)
    raised: dict[str, int] = field(default_factory=dict)
    acts: int = 0

    def slots(self, record: str) -> int:
        return self.overlap + self.raised.get(record, 0)

    def answered_slots(self, record: str) -> set[int | None]:
        return {one.slot for one in self.leases.values() if one.record == record and one.state == "accepted"}

    def publish(self, order: list[str], again: set[str], num_left: int) -> None:
        for record in [one for one, count in self.raised.items() if count and one not in order]:
            last = self.slots(record) - 1
            if self.answered_slots(record) != set(range(last)):
                continue
            holder = next((one for one in self.leases.values() if one.record == record and one.slot == last), None)
            if holder is not None and self.live(holder):
                continue
            if holder is not None:
                self.set(holder, "expired", None)
            self.raised[record] -= 1
        for record in again:
            is_done = len(self.answered_slots(record)) == self.slots(record)
            if is_done and record not in self.decided and self.slots(record) < MOST_ANSWERS:
                self.raised[record] = self.raised.get(record, 0) + 1
        self.order, self.published, self.num_left = order, True, num_left
        self.offered.update(order)

    def live(self, lease: Lease) -> bool:
        return lease.state == "accepted" or (lease.state == "leased" and lease.expires_at > self.now)

    def set(self, lease: Lease, state: str, slot: int | None, *, comes_first: bool = False) -> None:
        self.acts += 1
        lease.comes_first = comes_first
        lease.state, lease.slot, lease.act = state, slot, self.acts

    def take_slot(self, record: str) -> int | None:
        holders = {one.slot: one for one in self.leases.values() if one.record == record and one.slot is not None}
        for slot in range(self.slots(record)):
            if slot not in holders:
                return slot
        for slot in range(self.slots(record)):
            if not self.live(holders[slot]):
                self.set(holders[slot], "expired", None)
                return slot
        return None

    def dealt_with(self, record: str, annotator: str) -> bool:
        lease = self.leases.get((record, annotator))
        return lease is not None and lease.state in DEALT_WITH

    def in_hand(self, annotator: str) -> list[Lease]:
        held = [one for one in self.leases.values() if one.annotator == annotator and one.state == "leased"]
        return [one for one in held if self.live(one)]

    def next(self, annotator: str, *, ahead: bool) -> Lease | str:
        held = [] if ahead else self.in_hand(annotator)
        if held:
            lease = min(held, key=lambda one: (not one.comes_first, -one.act if one.comes_first else one.act))
            lease.expires_at = self.now + LEASE
            return lease
        if not self.published:
            return "waiting_for_model"
        for record in self.order:
            num_live = sum(self.live(one) for one in self.leases.values() if one.record == record)
            mine = self.leases.get((record, annotator))
            if self.dealt_with(record, annotator) or num_live >= self.slots(record) or (mine and self.live(mine)):
                continue
            new = Lease(record, annotator, "", None, self.now, 0)
            lease = self.leases.setdefault((record, annotator), new)
            self.set(lease, "leased", lease.slot if lease.slot is not None else self.take_slot(record))
            lease.expires_at = self.now + LEASE
            return lease
        in_hand = {one.record for one in self.in_hand(annotator)}
        mine = [record for record in self.offered - in_hand if not self.dealt_with(record, annotator)]
        leases = [one for one in self.leases.values() if one.record in mine and self.live(one)]
        left_out = [record for record in mine if sum(one.record == record for one in leases) < self.slots(record)]
        if self.num_left or left_out:
            return "waiting_for_model"
        return "all_leased" if any(one.state == "leased" for one in leases) else "done"

    def submit(self, lease: Lease, value: str) -> bool:
        slot = lease.slot if lease.slot is not None else self.take_slot(lease.record)
        self.answers[lease.record, lease.annotator] = (value, slot is None)
        self.set(lease, "late" if slot is None else "accepted", slot)
        return slot is None

    def undo(self, annotator: str) -> str | None:
        done = [one for one in self.leases.values() if one.annotator == annotator and one.state in DEALT_WITH]
        if not done:
            return None
        lease = max(done, key=lambda one: one.act)
        self.answers.pop((lease.record, annotator), None)
        slot = lease.slot if lease.slot is not None else self.take_slot(lease.record)
        lease.expires_at = self.now + LEASE
        self.set(lease, "released" if slot is None else "leased", slot, comes_first=True)
        return lease.record

    def reassign(self, record: str, to: str) -> Lease | None:
        lease = self.leases.get((record, to)) or Lease(record, to, "released", None, self.now, 0)
        if lease.state in DEALT_WITH:
            return None
        slot = lease.slot if lease.slot is not None else self.take_slot(record)
        if slot is None:
            held = [one for one in self.leases.values() if one.record == record and one.state == "leased"]
            if not held:
                return None
            # Equal ends are told apart by an id that the model does not know.
            victim = min(held, key=lambda one: (one.expires_at, one.served.lease_id))
            slot = victim.slot
            self.set(victim, "released", None)
        self.leases[record, to] = lease
        lease.expires_at = self.now + LEASE
        self.set(lease, "leased", slot, comes_first=True)
        return lease

    def labels(self) -> dict[str, tuple[str, int, float]]:
        found = {record: (value, 1, 1.0) for record, value in self.decided.items()}
        for record in {record for record, _ in self.answers} - set(self.decided):
            votes = [(value, late) for (one, _), (value, late) in self.answers.items() if one == record]
            counted = [value for value, late in votes if not late] or [value for value, _ in votes]
            best = min(counted, key=lambda value: (-counted.count(value), value))
            found[record] = (best, len(counted), counted.count(best) / len(counted))
        return found


annotators = st.sampled_from(ANNOTATORS)


class QueueMachine(RuleBasedStateMachine):
    """Every act on the real queue is done to the model too, and both must say the same."""

    def __init__(self, new_desk: Callable[..., Any]) -> None:
        super().__init__()
        self.new_desk = new_desk
        self.sent: list[tuple[Lease, str, str, queue.Submitted]] = []
        self.given: dict[tuple[str, str], set[str]] = {}

    @initialize(overlap=st.integers(1, 3))
    def start(self, overlap: int) -> None:
        self.desk = self.new_desk(overlap=overlap)
        self.model = Model(overlap, self.desk.now)

    @rule(
        order=st.lists(st.sampled_from(RECORDS), unique=True),
        again=st.sets(st.sampled_from(RECORDS)),
        num_left=st.sampled_from([0, 0, 1]),
    )
    def publish(self, order: list[str], again: set[str], num_left: int) -> None:
        """A new order; what of it is finished may be asked about again."""
        self.desk.publish(*order, num_left=num_left, again=again)
        self.model.publish(order, again & set(order), num_left)

    @rule(seconds=st.sampled_from([1, 30, 60, 120]))
    def wait(self, seconds: int) -> None:
        self.desk.wait(seconds)
        self.model.now = self.desk.now

    @rule(annotator=annotators)
    def next(self, annotator: str) -> None:
        self._next(annotator)

    @rule(annotator=annotators)
    def next_ahead(self, annotator: str) -> None:
        held = [one.served for one in self.model.in_hand(annotator)]
        if None in held:
            # An imported answer taken back is in hand, and its lease not yet known to the annotator.
            return
        if len(held) >= MAX_IN_HAND:
            with pytest.raises(DataError):
                self.desk.next(annotator, *held)
            return
        self._next(annotator, *held)

    def _next(self, annotator: str, *held: Any) -> None:
        expected, got = self.model.next(annotator, ahead=bool(held)), self.desk.next(annotator, *held)
        if isinstance(expected, str):
            assert got.reason == expected
            return
        assert (got.record_id, got.expires_at) == (expected.record, expected.expires_at)
        if expected.served is not None:
            assert got.lease_id == expected.served.lease_id
        expected.served = got

    @rule(asking=st.lists(annotators, min_size=2, unique=True))
    def next_together(self, asking: list[str]) -> None:
        """Several in one transaction get what they would have got one after the other."""
        expected = [self.model.next(annotator, ahead=False) for annotator in asking]
        given = [queue.Asking(annotator_id=annotator) for annotator in asking]
        got = self.desk.call(queue.next_tasks, queue_id=self.desk.queue_id, asking=given)
        for lease, served in zip(expected, got, strict=True):
            if isinstance(lease, str):
                assert served.reason == lease
                continue
            assert (served.record_id, served.expires_at) == (lease.record, lease.expires_at)
            lease.served = served

    @rule(data=st.data(), values=st.lists(st.sampled_from(LABELS), min_size=len(ANNOTATORS)))
    def submit_together(self, data: st.DataObject, values: list[str]) -> None:
        leases = [one for one in self.model.leases.values() if one.served is not None]
        shuffled = data.draw(st.permutations(leases))
        one_each = {one.annotator: one for one in shuffled}.values()
        expected = [
            (lease, value, f"{self.desk.queue_id} {len(self.sent) + place}")
            for place, (lease, value) in enumerate(zip(one_each, values, strict=False))
        ]
        lateness = [self.model.submit(lease, value) for lease, value, _ in expected]
        given = [
            queue.Given(lease_id=lease.served.lease_id, annotator_id=lease.annotator, value=value, key=key)
            for lease, value, key in expected
        ]
        got = self.desk.call(queue.submit_all, answers=given)
        for (lease, value, key), late, stored in zip(expected, lateness, got, strict=True):
            assert (stored.late, stored.repeated) == (late, False)
            self.sent.append((lease, value, key, stored))
            self.given.setdefault((lease.record, lease.annotator), set()).add(value)

    @rule(data=st.data(), value=st.sampled_from(LABELS))
    def submit(self, data: st.DataObject, value: str) -> None:
        lease = self._draw(data)
        if lease is not None:
            self._submit(lease, value)

    @rule(annotator=annotators, value=st.sampled_from(LABELS))
    def ask_and_answer(self, annotator: str, value: str) -> None:
        self.next(annotator)
        held = [one for one in self.model.leases.values() if one.annotator == annotator and one.state == "leased"]
        # Whoever was only imported never had a lease to answer to.
        held = [one for one in held if one.served is not None]
        if held:
            self._submit(max(held, key=lambda one: one.act), value)

    def _submit(self, lease: Lease, value: str) -> None:
        late, key = self.model.submit(lease, value), f"{self.desk.queue_id} {len(self.sent)}"
        got = self.desk.submit(lease.served, lease.annotator, value, key=key)
        assert (got.late, got.repeated) == (late, False)
        self.sent.append((lease, value, key, got))
        self.given.setdefault((lease.record, lease.annotator), set()).add(value)

    @rule(
        record=st.sampled_from(RECORDS),
        given=st.dictionaries(annotators, st.sampled_from(LABELS), min_size=1, max_size=3),
    )
    def import_answers(self, record: str, given: dict[str, str]) -> None:
        """Answers from a file: whoever gave the same one before, even taken back, is passed over."""
        answers = [Imported(record_id=record, annotator_id=who, value=value) for who, value in given.items()]
        got = self.desk.call(
            import_answers,
            queue_id=self.desk.queue_id,
            answers=answers,
            texts={record: f"글 {record}"},
            source="file",
        )
        expected = Taken()
        for annotator, value in sorted(given.items()):
            if value in self.given.setdefault((record, annotator), set()):
                expected.num_repeated += 1
                continue
            lease = self.model.leases.setdefault(
                (record, annotator), Lease(record, annotator, "released", None, self.model.now, 0)
            )
            expected.num_late += self.model.submit(lease, value)
            expected.num_new += 1
            self.given[record, annotator].add(value)
        self.model.offered.add(record)
        assert got == expected

    @rule(data=st.data())
    def send_again(self, data: st.DataObject) -> None:
        if not self.sent:
            return
        lease, value, key, first = data.draw(st.sampled_from(self.sent))
        again = self.desk.submit(lease.served, lease.annotator, value, key=key)
        assert again == replace(first, repeated=True)

    @rule(data=st.data())
    def heartbeat(self, data: st.DataObject) -> None:
        lease = self._draw(data)
        if lease is None:
            return
        if lease.state != "leased":
            with pytest.raises(GoneError):
                self.desk.heartbeat(lease.served, lease.annotator)
            return
        lease.expires_at = self.model.now + LEASE
        assert self.desk.heartbeat(lease.served, lease.annotator) == lease.expires_at

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        lease = self._draw(data)
        if lease is None:
            return
        self.desk.release(lease.served, lease.annotator)
        if lease.state == "leased":
            self.model.set(lease, "released", None)

    @rule(data=st.data())
    def skip(self, data: st.DataObject) -> None:
        lease = self._draw(data)
        if lease is None:
            return
        if lease.state in ("accepted", "late"):
            with pytest.raises(ConflictError):
                self.desk.skip(lease.served, lease.annotator)
            return
        self.desk.skip(lease.served, lease.annotator)
        if lease.state != "skipped":
            self.model.set(lease, "skipped", None)

    @rule(annotator=annotators)
    def undo(self, annotator: str) -> None:
        expected, got = self.model.undo(annotator), self.desk.undo(annotator)
        if expected is None:
            assert got is None
        else:
            assert got == str(uuid.uuid5(TASK_NAMESPACE, f"{self.desk.queue_id}/{expected}"))

    @rule(data=st.data(), value=st.sampled_from(LABELS))
    def adjudicate(self, data: st.DataObject, value: str) -> None:
        lease = self._draw(data)
        if lease is not None:
            self.desk.adjudicate(lease.served, "lead", value)
            self.model.decided.pop(lease.record, None)
            self.model.decided[lease.record] = value

    @rule()
    def take_back(self) -> None:
        expected = self.model.decided.popitem()[0] if self.model.decided else None
        assert self.desk.take_back("lead") == expected

    @rule(data=st.data(), to=annotators)
    def reassign(self, data: st.DataObject, to: str) -> None:
        lease = self._draw(data)
        held = [one for one in self.model.leases.values() if lease and one.record == lease.record]
        # Whose lease is taken may hang on an id, which the model learns when the task is served.
        if lease is None or any(one.served is None and one.state == "leased" for one in held):
            return
        given = self.model.reassign(lease.record, to)
        if given is None:
            with pytest.raises(ConflictError):
                self.desk.reassign(lease.served, to)
            return
        lease_id = self.desk.reassign(lease.served, to)
        if given.served is not None:
            assert lease_id == given.served.lease_id
        # It is what this annotator gets next.
        self._next(to)

    @invariant()
    def events_alone_rebuild_the_queue(self) -> None:
        if not hasattr(self, "desk"):
            return
        with self.desk.catalog.read() as session:
            rebuilt = state_at(session, queue_id=self.desk.queue_id)
            held = session.execute(select(LabelAssignment).where(LabelAssignment.queue_id == self.desk.queue_id))
            there = {(one.task_id, one.annotator_id): one for one in held.scalars()}
            tasks = select(LabelTask.id, LabelTask.overlap).where(LabelTask.queue_id == self.desk.queue_id)
            overlaps = {row.id: row.overlap for row in session.execute(tasks)}
            current = session.scalars(
                select(Annotation).where(Annotation.queue_id == self.desk.queue_id, Annotation.retracted.is_(None))
            ).all()
        assert {key: (one.state, one.slot, one.event_id) for key, one in rebuilt.held.items()} == {
            key: (one.state, one.slot, one.event_id) for key, one in there.items()
        }
        for key, one in rebuilt.held.items():
            if one.state == "leased":
                assert (one.why, one.generation) == (there[key].why, there[key].generation)
        assert overlaps == dict.fromkeys(overlaps, self.model.overlap) | rebuilt.overlaps
        assert rebuilt.answers == {(one.task_id, one.annotator_id): one.id for one in current}

    @invariant()
    def labels_and_progress_are_those_of_the_model(self) -> None:
        if not hasattr(self, "desk"):
            return
        assert self.desk.labels() == self.model.labels()
        progress, leases = self.desk.progress(), self.model.leases.values()
        accepted = [one.record for one in leases if one.state == "accepted"]
        assert progress.num_tasks == len(self.model.offered)
        assert progress.num_done == sum(accepted.count(record) == self.model.slots(record) for record in set(accepted))
        assert progress.num_leased == sum(one.state == "leased" and self.model.live(one) for one in leases)
        assert progress.num_skipped == sum(one.state == "skipped" for one in leases)
        assert progress.num_annotations == len(self.model.answers)

    def _draw(self, data: st.DataObject) -> Lease | None:
        leases = [one for one in self.model.leases.values() if one.served is not None]
        return data.draw(st.sampled_from(leases)) if leases else None


def test_queue_does_what_the_model_does(new_desk: Callable[..., Any]) -> None:
    run_state_machine_as_test(
        lambda: QueueMachine(new_desk), settings=settings(max_examples=25, stateful_step_count=30, deadline=None)
    )
