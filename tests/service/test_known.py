"""Known tasks and suggestions over HTTP: listed, and taken away again."""

from typing import Any

import pytest
from sqlalchemy import select, update

from catalog.tables.labeling import LabelQueue
from catalog.tables.webhooks import Delivery
from labeling import gold
from labeling.suggestions import Suggestion, add_suggestions
from service.app import API
from tests.service.conftest import TEXTS, World
from workers.webhooks import add_webhook


@pytest.fixture
def told(worlds: World) -> World:
    """Two of the records are known, and one model says something of two."""
    with worlds.catalog.write() as session:
        now = worlds.catalog.now(session)
        session.execute(update(LabelQueue).values(gold_every=2))
        items = [gold.GoldItem(record_id=f"r{number}", text=TEXTS[number], value="긍정") for number in (0, 1)]
        gold.add_gold(session, now=now, queue_id=worlds.queue_id, items=items)
        guesses = [Suggestion(record_id=f"r{number}", value="부정", source="small 1") for number in (2, 3)]
        add_suggestions(session, now=now, queue_id=worlds.queue_id, suggestions=guesses)
    return worlds


def path_of(world: World, part: str) -> str:
    return f"{API}/queues/{world.queue_id}/{part}"


def answer(world: World, value: str, number: int) -> dict[str, Any]:
    client = world.client("annotator")
    task = client.post(path_of(world, "next")).json()["task"]
    body = {"key": f"answer-{number:03}", "value": value}
    reply = client.put(f"{API}/leases/{task['lease_id']}/annotation", json=body)
    assert reply.status_code == 200, reply.text
    return dict(task | reply.json())


def test_a_known_record_that_nobody_agrees_with_is_found_and_taken_away(told: World) -> None:
    given = (answer(told, "부정", number) for number in range(5))
    met = next(one for one in given if one["judged"])
    reviewer, curator = told.client("reviewer"), told.client("curator")
    page = reviewer.get(path_of(told, "gold/records"), params={"limit": 1}).json()
    rest = reviewer.get(path_of(told, "gold/records"), params={"after": page["next"]}).json()
    known = {one["record_id"]: one for one in page["items"] + rest["items"]}
    assert (sorted(known), rest["next"]) == (["r0", "r1"], None)
    record = met["record_id"]
    with told.catalog.write() as session:
        url = "https://example.org/hook"
        add_webhook(session, url=url, events=["item.completed"], now=told.catalog.now(session))
    assert known[record] == {
        "record_id": record, "value": "긍정", "note": "", "num_answered": 1, "num_right": 0,
    }  # fmt: skip
    mistyped = curator.delete(path_of(told, "gold"), params={"record": [record, "r9"]})
    assert (mistyped.status_code, "record 'r9' is not known" in mistyped.json()["message"]) == (404, True)
    done = curator.delete(path_of(told, "gold"), params={"record": [record]})
    assert (done.status_code, done.json()) == (
        200, {"num_records": 1, "num_asked": 1, "num_votes": 1, "num_late": 0},
    )  # fmt: skip
    with told.catalog.read() as session:
        finished = {"queue_id": told.queue_id, "task_id": met["task_id"], "record_id": record}
        assert [one.payload["data"] for one in session.scalars(select(Delivery))] == [finished]
    assert curator.delete(path_of(told, "gold"), params={"record": record}).status_code == 404
    assert curator.delete(path_of(told, "gold")).status_code == 422
    assert reviewer.get(path_of(told, "gold")).json() == []
    assert [one.detail for one in told.audited("queue.gold_removed")] == [{"records": [record]}]
    happened = reviewer.get(path_of(told, "history"), params={"task": met["task_id"]}).json()["items"]
    assert [one["kind"] for one in happened] == ["gold_removed", "submitted", "served", "gold"]
    progress = curator.get(path_of(told, "progress")).json()
    assert progress["labels"]["부정"] == progress["num_annotations"]


def test_a_models_suggestions_are_listed_and_taken_away(told: World) -> None:
    reviewer, curator = told.client("reviewer"), told.client("curator")
    listed = path_of(told, "suggestions")
    assert reviewer.get(listed).json() == [{"source": "small 1", "num_records": 2}]
    mistyped = curator.delete(listed, params={"source": "small"})
    assert (mistyped.status_code, "did you mean 'small 1'" in mistyped.json()["message"]) == (404, True)
    done = curator.delete(listed, params={"source": "small 1"})
    assert (done.status_code, done.json()) == (200, {"num_removed": 2})
    assert reviewer.get(listed).json() == []
    (entry,) = told.audited("queue.suggestions_removed")
    assert (entry.actor, entry.detail) == (told.users["curator"], {"source": "small 1", "num_removed": 2})


def test_taking_away_is_for_curators(told: World) -> None:
    for part, params in (("gold", {"record": "r0"}), ("suggestions", {"source": "small 1"})):
        for role in ("annotator", "reviewer"):
            assert told.client(role).delete(path_of(told, part), params=params).status_code == 403
        assert told.client("annotator").get(path_of(told, part)).status_code == 403
        assert told.client("curator").delete(f"{API}/queues/nope/{part}", params=params).status_code == 404
