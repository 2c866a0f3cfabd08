"""The Python client, also as the docs show it, and what webhooks are told of answers."""

import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from catalog.database import Catalog
from catalog.settings import Settings
from catalog.tables import metadata
from catalog.tables.labeling import LabelQueue
from catalog.tables.webhooks import EVENTS, Delivery
from labeling import queue
from service import client
from service.client import Annotator
from service.gate import MAX_IMPORT_BYTES
from service.processes import service_for
from tests.service.conftest import SHOP_TEXTS, TEXTS, World, open_shop
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


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[tuple[World, str]]:
    """A dataset that is really cleaned, and the service as a process over it."""
    catalog = Catalog(Settings(home=tmp_path))
    with catalog.write() as session:
        metadata.create_all(session.connection())
    world = open_shop(catalog, tmp_path)
    with service_for(catalog.settings, world.tokens["curator"]) as address:
        yield world, address
    world.close()
    catalog.close()


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


DOCS = Path(__file__).resolve().parents[2] / "docs"


def examples(page: str, word: str) -> list[str]:
    """The indented blocks of a page of the docs that hold a word."""
    blocks = re.findall(r"(?:^ {4}.*\n|^\n(?= {4}))+", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE)
    return [textwrap.dedent(one) for one in blocks if word in one]


def test_the_examples_of_the_docs_run(
    shop: tuple[World, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world, address = shop
    monkeypatch.chdir(tmp_path)
    rows = zip(SHOP_TEXTS[:3], ("neg", "긍정", "긍정"), strict=True)
    said = "".join(f'"{text}",{label}\n' for text, label in rows)
    (tmp_path / "answers.csv").write_text(f"body,said\n{said}", encoding="utf-8")
    (lead,) = examples("exchange.md", "lead.import_file")
    names = {"url": address, "token": world.tokens["curator"], "queue_id": world.queue_id}
    exec(compile(lead, "docs/exchange.md", "exec"), dict(names))
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("3 answers, {")
    assert told[1:] == ["2 would be seen under another name", "3 answers written"]
    assert (tmp_path / "answers.json").read_text(encoding="utf-8").count("좋음") == 2
    (answering,) = examples("labeling.md", "ann.answer")
    answering = answering.replace("http://127.0.0.1:8765", address)
    names = {"token": world.tokens["annotator"], "queue_id": world.queue_id, "my_model": lambda _: "부정"}
    exec(compile(answering, "docs/labeling.md", "exec"), names)
    with world.catalog.read() as session:
        labels = queue.current_labels(session, queue_id=world.queue_id)
    assert sorted(one.value for one in labels) == ["부정", "부정", "좋음", "좋음"]


def test_files_and_removals_though_replies_are_lost(
    shop: tuple[World, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, address = shop
    monkeypatch.setattr(client, "PAUSE_SECONDS", 0.0)
    rows = [{"text": SHOP_TEXTS[0], "value": "긍정"}, {"text": SHOP_TEXTS[1], "predictions": [{"value": "부정"}]}]
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in rows), encoding="utf-8")
    newer = {"version": 2, "labels": [{"name": "좋음", "was": "긍정"}, {"name": "부정"}]}
    with Annotator(address, world.tokens["curator"], transport=Unreliable()) as lead:
        told = lead.import_file(world.queue_id, path, "jsonl")
        # The first reply was lost, and the file sent again.
        assert (told["num_new"], told["num_repeated"], told["num_suggestions"]) == (0, 1, 1)
        changed = lead.change_schema(world.queue_id, newer)
        assert (changed["repeated"], changed["num_migrated"]) == (True, 1)
    with Annotator(address, world.tokens["curator"]) as lead:
        assert lead.remove_suggestions(world.queue_id, "import") == 1
        with pytest.raises(httpx.HTTPStatusError, match="record 'x' is not known in this queue"):
            lead.remove_gold(world.queue_id, ["x"])
        told = lead.export_file(world.queue_id, tmp_path / "out.csv", "csv")
        assert told == {"records": 1, "answers": 1, "changed": {}}
        before = (tmp_path / "out.csv").read_bytes()
        with pytest.raises(httpx.HTTPStatusError, match="conll files hold no single_choice answers"):
            lead.export_file(world.queue_id, tmp_path / "out.csv", "conll")
        too_large = tmp_path / "large.jsonl"
        too_large.write_bytes(b" " * (MAX_IMPORT_BYTES + 1))
        with pytest.raises(httpx.HTTPStatusError, match=str(MAX_IMPORT_BYTES)):
            lead.import_file(world.queue_id, too_large, "jsonl")
    assert (tmp_path / "out.csv").read_bytes() == before
    assert [one.name for one in tmp_path.glob(".tmp-*")] == []


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
