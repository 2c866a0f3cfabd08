"""Many annotators in real processes and threads, on a real clock: never too many, none twice, none lost."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from catalog.tables.labeling import Annotation, LabelAssignment, LabelEvent, LabelTask

SCRIPT = Path(__file__).with_name("annotator_process.py")
ROOT = Path(__file__).parents[2]


def start(desk: Any, annotators: list[str], *, lease_seconds: float, **orders: Any) -> "subprocess.Popen[str]":
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
    command = [sys.executable, "-W", "error", str(SCRIPT), json.dumps(given)]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def wait_until_ready(process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"


def finish(processes: list["subprocess.Popen[str]"]) -> list[tuple[str, str, bool]]:
    """Let all start at once, and collect what they were told."""
    for process in processes:
        wait_until_ready(process)
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = []
    for process in processes:
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        answers += [(record, annotator, late) for record, annotator, late in json.loads(out)]
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
    wait_until_ready(dead)
    dead.send_signal(signal.SIGKILL)
    dead.communicate()
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
