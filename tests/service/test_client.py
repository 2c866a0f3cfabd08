"""The Python client, and what webhooks are told of answers."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from catalog.tables.labeling import LabelQueue
from catalog.tables.webhooks import EVENTS, Delivery
from labeling import queue
from service import client
from service.client import Annotator
from service.processes import service_for
from tests.service.conftest import TEXTS, World
from workers.webhooks import add_webhook


class Unreliable(httpx.HTTPTransport):
    """The network; the first reply to each kind of call is lost on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.lost: set[str] = set()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        reply = super().handle_request(request)
        kind = f"{request.method} {request.url.path.rpartition('/')[2]}"
        if kind not in self.lost:
            self.lost.add(kind)
            reply.close()
            raise httpx.ReadError("cut")
        return reply


@pytest.fixture
def url(world: World) -> Iterator[str]:
    """The service as a process, on SQLite."""
    with service_for(world.catalog.settings, world.tokens["admin"]) as address:
        yield address


def deliveries(world: World) -> list[tuple[str, dict[str, Any]]]:
    with world.catalog.read() as session:
        rows = session.scalars(select(Delivery).order_by(Delivery.created_at, Delivery.event)).all()
        return [(one.event, one.payload["data"]) for one in rows]


def test_a_program_answers_a_queue_to_its_end_though_replies_are_lost(
    world: World, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PAUSE_SECONDS", 0.0)
    with Annotator(url, world.tokens["annotator"], transport=Unreliable()) as ann:
        seen = []
        for task in ann.tasks(world.queue_id):
            seen.append(task["text"])
            if len(seen) == 1:
                ann.skip(task, "no idea")
            else:
                assert ann.answer(task, "긍정", seconds_spent=0.5)["late"] is False
        assert seen == list(TEXTS)
        assert ann.progress(world.queue_id)["num_mine"] == len(TEXTS) - 1
        again = ann.undo(world.queue_id)
        (task,) = [one for one, _ in zip(ann.tasks(world.queue_id), range(1), strict=False)]
        assert task["task_id"] == again
        with pytest.raises(httpx.HTTPStatusError, match="allowed: 긍정, 부정, 중립"):
            ann.answer(task, "화남")
    with world.catalog.read() as session:
        labels = queue.current_labels(session, queue_id=world.queue_id)
    assert {one.value for one in labels} == {"긍정"}


def test_webhooks_are_told_of_answers_finished_items_and_a_spent_budget(world: World, url: str) -> None:
    with world.catalog.write() as session:
        now = world.catalog.now(session)
        add_webhook(session, url="https://example.org/hook", events=EVENTS, now=now)
        session.get_one(LabelQueue, world.queue_id).budget = 2
    with Annotator(url, world.tokens["annotator"]) as ann:
        tasks = ann.tasks(world.queue_id)
        first = next(tasks)
        ann.answer(first, "긍정")
        ann.answer(next(tasks), "부정")
        assert ann.undo(world.queue_id) is not None
        skipped = next(tasks)
        ann.skip(skipped, "no idea")
        ann.undo(world.queue_id)
    told = deliveries(world)
    assert sorted(event for event, _ in told) == sorted(
        ["annotation.created", "item.completed"] * 2 + ["budget.reached", "annotation.updated"]
    )
    created = next(data for event, data in told if event == "annotation.created")
    assert (created["record_id"], created["value"], created["late"], created["known"]) == ("r0", "긍정", False, False)
    assert created["annotator_id"] == world.users["annotator"]
    assert next(data for event, data in told if event == "budget.reached")["budget"] == 2


def test_nobody_is_told_what_nobody_asked_for(world: World, url: str) -> None:
    with world.catalog.write() as session:
        add_webhook(session, url="https://example.org/hook", events=["run.done"], now=world.catalog.now(session))
    with Annotator(url, world.tokens["annotator"]) as ann:
        ann.answer(next(ann.tasks(world.queue_id)), "긍정")
    assert deliveries(world) == []
