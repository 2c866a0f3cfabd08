"""Many annotators in real processes and threads, on a real clock: never too many, none twice, none lost."""

import multiprocessing
import signal
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import Any, NamedTuple

import pytest
from sqlalchemy import select

from catalog.tables.labeling import Annotation, LabelAssignment, LabelEvent, LabelTask
from tests.labeling import annotator_process

WAIT_SECONDS = 120.0
# Importing would be most of what such a process does.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([annotator_process.__name__])


class Annotators(NamedTuple):
    """A process of some annotators, and the line to it."""

    process: ForkServerProcess
    pipe: "Connection[str, Any]"

    def told(self) -> Any:
        assert self.pipe.poll(WAIT_SECONDS)
        return self.pipe.recv()

    def end(self) -> int | None:
        self.process.join(WAIT_SECONDS)
        code = self.process.exitcode
        self.process.close()
        self.pipe.close()
        return code


def start(desk: Any, annotators: list[str], *, lease_seconds: float, **orders: Any) -> Annotators:
    given = {
        "home": str(desk.catalog.settings.home),
        "database_url": desk.catalog.settings.database_url,
        "queue_id": desk.queue_id,
        "annotators": annotators,
        "lease_seconds": lease_seconds,
        "oversleep": 0.0,
        "give_back": 0.05,
        "seed": 3,
        **orders,
    }
    pipe, theirs = FORKS.Pipe()
    process = FORKS.Process(target=annotator_process.main, args=(given, theirs))
    process.start()
    theirs.close()
    return Annotators(process, pipe)


def finish(processes: list[Annotators]) -> list[tuple[str, str, bool]]:
    """Let all start at once, and collect what they were told."""
    for one in processes:
        assert one.told() == "ready"
    for one in processes:
        one.pipe.send("go")
    answers: list[tuple[str, str, bool]] = []
    for one in processes:
        answers += one.told()
        assert one.end() == 0
    return answers


def check_nothing_doubled_or_lost(desk: Any, overlap: int, records: list[str], answers: list[Any]) -> None:
    with desk.catalog.read() as session:
        stored = session.execute(
            select(LabelTask.record_id, Annotation.annotator_id, Annotation.late)
            .join(LabelTask, LabelTask.id == Annotation.task_id)
            .where(Annotation.retracted.is_(None))
        ).all()
        events = session.execute(
            select(LabelEvent.kind, LabelEvent.task_id, LabelEvent.annotator_id).order_by(LabelEvent.id)
        ).all()
        assert all(session.scalars(select(LabelTask.done)))
        assert not session.scalars(select(LabelAssignment.id).where(LabelAssignment.state == "leased")).all()
    assert sorted(map(tuple, stored)) == sorted(answers)
    accepted = Counter(record for record, _, late in stored if not late)
    assert accepted == dict.fromkeys(records, overlap)
    check_never_too_many_at_once(events, overlap)


def check_never_too_many_at_once(events: list[Any], overlap: int) -> None:
    """Replay the log, in which acts on one task stand in the order they happened."""
    holders: dict[str, set[str]] = {}
    for kind, task_id, annotator in events:
        inside = holders.setdefault(task_id, set())
        if kind in ("served", "submitted", "undone"):
            inside.add(annotator)
        elif kind in ("expired", "released", "skipped"):
            inside.discard(annotator)
        assert len(inside) <= overlap or task_id is None


@pytest.mark.parametrize("overlap", [1, 2])
def test_processes_drain_a_queue_without_doubles_or_losses(new_desk: Callable[..., Any], overlap: int) -> None:
    desk = new_desk(overlap=overlap, lease_seconds=600.0)
    records = [f"r{number:03}" for number in range(150)]
    desk.publish(*records)
    groups = [[f"p{process} t{thread}" for thread in range(5)] for process in range(4)]
    answers = finish([start(desk, group, lease_seconds=600.0) for group in groups])
    assert not any(late for _, _, late in answers)
    check_nothing_doubled_or_lost(desk, overlap, records, answers)


@pytest.mark.parametrize("overlap", [1, 2])
def test_leases_that_run_out_during_work_lose_no_answer(new_desk: Callable[..., Any], overlap: int) -> None:
    desk = new_desk(overlap=overlap, lease_seconds=0.3)
    records = [f"r{number:03}" for number in range(60)]
    desk.publish(*records)
    groups = [[f"p{process} t{thread}" for thread in range(5)] for process in range(3)]
    answers = finish([start(desk, group, lease_seconds=0.3, oversleep=0.1) for group in groups])
    check_nothing_doubled_or_lost(desk, overlap, records, answers)


def test_killed_process_gives_its_tasks_back_after_the_lease(new_desk: Callable[..., Any]) -> None:
    desk = new_desk(lease_seconds=2.0)
    records = [f"r{number:03}" for number in range(20)]
    desk.publish(*records)
    dead = start(desk, [f"dead {number}" for number in range(5)], lease_seconds=2.0, hold=True)
    assert dead.told() == "ready"
    dead.process.kill()
    assert dead.end() == -signal.SIGKILL
    answers = finish([start(desk, ["ana", "bo"], lease_seconds=2.0)])
    check_nothing_doubled_or_lost(desk, 1, records, answers)
    with desk.catalog.read() as session:
        expired = session.scalars(select(LabelEvent.annotator_id).where(LabelEvent.kind == "expired")).all()
    assert sorted(expired) == [f"dead {number}" for number in range(5)]


def test_one_annotator_in_many_tabs_holds_one_task_at_a_time(new_desk: Callable[..., Any]) -> None:
    desk = new_desk(lease_seconds=600.0)
    records = [f"r{number:03}" for number in range(60)]
    desk.publish(*records)
    tabs = [start(desk, ["ana", "ana"], lease_seconds=600.0, give_back=0.0) for _ in range(3)]
    answers = finish(tabs)
    with desk.catalog.read() as session:
        events = session.execute(select(LabelEvent.kind, LabelEvent.task_id).order_by(LabelEvent.id)).all()
    held: set[str] = set()
    for kind, task_id in events:
        if kind == "served":
            held.add(task_id)
        elif kind == "submitted":
            held.discard(task_id)
        assert len(held) <= 1
    assert {record for record, _, _ in answers} == set(records)
    assert len(desk.labels()) == desk.progress().num_annotations == len(records)
