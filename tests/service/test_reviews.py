"""Reviewing over HTTP: who may, what they see, what becomes of it."""

from typing import Any

import pytest
from sqlalchemy import select, update

from catalog.tables.labeling import LabelGeneration, LabelQueue, LabelSuggestion, LabelTask
from labeling import gold
from service.app import API
from tests.service.conftest import TEXTS, World


def answer(world: World, who: str, value: str, *, key: str) -> dict[str, Any]:
    """One task, taken and answered."""
    client = world.client(who)
    task = client.post(f"{API}/queues/{world.queue_id}/next").json()["task"]
    body = {"key": key.ljust(8, "-"), "value": value}
    told = client.put(f"{API}/leases/{task['lease_id']}/annotation", json=body)
    assert told.status_code == 200, told.text
    return task | told.json()


@pytest.fixture
def pair(worlds: World) -> World:
    """Each task wants two answers, and there is a second annotator."""
    with worlds.catalog.write() as session:
        session.execute(update(LabelTask).values(overlap=2))
    worlds.add_user("bo", "annotator")
    return worlds


def test_disagreements_are_settled_by_reviewers_and_unseen_by_annotators(pair: World) -> None:
    task = answer(pair, "annotator", "긍정", key="a1")
    answer(pair, "bo", "부정", key="b1")
    path = f"{API}/queues/{pair.queue_id}/disagreements"
    assert pair.client("annotator").get(path).status_code == 403
    reviewer = pair.client("reviewer")
    (case,) = reviewer.get(path).json()["items"]
    assert (case["task_id"], case["text"], case["settled"]) == (task["task_id"], task["text"], None)
    opinions = sorted((one["annotator"], one["value"]) for one in case["opinions"])
    assert opinions == [("annotator", "긍정"), ("bo", "부정")]
    decision = f"{API}/tasks/{task['task_id']}/decision"
    body = {"key": "decision-1", "value": "중립", "note": "between the two"}
    assert pair.client("annotator").put(decision, json=body).status_code == 403
    wrong = reviewer.put(decision, json=body | {"value": "화남"})
    assert (wrong.status_code, "allowed: 긍정, 부정, 중립" in wrong.json()["message"]) == (422, True)
    made = reviewer.put(decision, json=body)
    assert made.status_code == 200
    assert reviewer.put(decision, json=body).json() == made.json()
    assert reviewer.put(decision, json=body | {"value": "긍정"}).status_code == 409
    assert reviewer.get(path).json()["items"] == []
    (case,) = reviewer.get(path, params={"settled": True}).json()["items"]
    assert (case["settled"]["annotator"], case["settled"]["value"]) == ("reviewer", "중립")
    told = reviewer.get(f"{API}/queues/{pair.queue_id}/history", params={"task": task["task_id"]}).json()["items"]
    assert (told[0]["kind"], told[0]["annotator"], told[0]["detail"]["note"]) == (
        "adjudicated", "reviewer", "between the two",
    )  # fmt: skip
    assert [one["kind"] for one in told[1:]] == ["submitted", "served", "submitted", "served"]


def test_a_decision_is_taken_back_and_its_task_waits_again(pair: World) -> None:
    task = answer(pair, "annotator", "긍정", key="a1")
    answer(pair, "bo", "부정", key="b1")
    reviewer, path = pair.client("reviewer"), f"{API}/queues/{pair.queue_id}"
    decided = reviewer.put(f"{API}/tasks/{task['task_id']}/decision", json={"key": "decision-1", "value": "중립"})
    assert decided.status_code == 200
    assert pair.client("annotator").post(f"{path}/decisions/undo").status_code == 403
    assert pair.client("curator").post(f"{path}/decisions/undo").json() == {"case": None}
    back = reviewer.post(f"{path}/decisions/undo").json()["case"]
    assert reviewer.get(f"{path}/disagreements").json()["items"] == [back]
    assert (back["task_id"], back["settled"], len(back["opinions"])) == (task["task_id"], None, 2)
    assert reviewer.post(f"{path}/decisions/undo").json() == {"case": None}
    assert reviewer.post(f"{API}/queues/nope/decisions/undo").status_code == 404


def test_a_reviewer_hands_a_task_to_somebody(pair: World) -> None:
    held = pair.client("annotator").post(f"{API}/queues/{pair.queue_id}/next").json()["task"]
    reviewer, path = pair.client("reviewer"), f"{API}/tasks/{held['task_id']}/reassign"
    nobody = reviewer.post(path, json={"to": "boo"})
    assert (nobody.status_code, "did you mean 'bo'" in nobody.json()["message"]) == (404, True)
    given = reviewer.post(path, json={"to": "bo"})
    assert given.status_code == 200
    got = pair.client("bo").post(f"{API}/queues/{pair.queue_id}/next").json()["task"]
    assert (got["lease_id"], got["why"]) == (given.json()["lease_id"], "a reviewer asks for your answer")
    assert pair.client("annotator").post(path, json={"to": "bo"}).status_code == 403


def test_fetching_ahead_gives_other_tasks_up_to_a_limit(worlds: World) -> None:
    client, path = worlds.client("annotator"), f"{API}/queues/{worlds.queue_id}/next"
    hand: list[str] = []
    for _ in range(4):
        task = client.post(path, json={"beside": hand}).json()["task"]
        assert task["lease_id"] not in hand
        hand.append(task["lease_id"])
    refused = client.post(path, json={"beside": hand})
    assert (refused.status_code, "at most 3 beside" in refused.json()["message"]) == (422, True)
    # What is on the screen, not what was fetched last.
    assert client.post(path).json()["task"]["lease_id"] == hand[0]
    assert client.post(path, json={"beside": [], "x": 1}).status_code == 422


def test_known_tasks_are_judged_at_once_and_scored_for_reviewers(worlds: World) -> None:
    with worlds.catalog.write() as session:
        items = [gold.GoldItem(record_id="r0", text=TEXTS[0], value="긍정", note="the tone is warm")]
        gold.add_gold(session, now=worlds.catalog.now(session), queue_id=worlds.queue_id, items=items)
        session.get_one(LabelQueue, worlds.queue_id).gold_every = 2
    told = [answer(worlds, "annotator", "부정", key=f"k{number}") for number in range(4)]
    judged = {one["record_id"]: one["judged"] for one in told}
    assert judged.pop("r0") == {"is_right": False, "expected": "긍정", "note": "the tone is warm"}
    assert set(judged.values()) == {None}
    path = f"{API}/queues/{worlds.queue_id}/gold"
    assert worlds.client("reviewer").get(path).json() == [{"annotator": "annotator", "num_answered": 1, "num_right": 0}]
    assert worlds.client("annotator").get(path).status_code == 403
    assert worlds.client("reviewer").post(path, json={"values": {"r1": "긍정"}}).status_code == 403


def test_a_suggestion_is_served_with_its_task(worlds: World) -> None:
    with worlds.catalog.write() as session:
        made = {"queue_id": worlds.queue_id, "record_id": "r0", "created_at": worlds.catalog.now(session)}
        session.add(LabelSuggestion(**made, source="model 3", value="긍정", score=0.75))
    task = worlds.client("annotator").post(f"{API}/queues/{worlds.queue_id}/next").json()["task"]
    assert task["suggestion"] == {"value": "긍정", "score": 0.75, "source": "model 3"}
    assert task["schema_version"] == 1


def test_strategy_tells_what_is_known_and_what_is_not_yet(worlds: World) -> None:
    path = f"{API}/queues/{worlds.queue_id}/strategy"
    assert worlds.client("annotator").get(path).status_code == 403
    early = worlds.client("reviewer").get(path).json()
    assert (early["worth"], early["num_labels"], {one["says_stop"] for one in early["advice"]}) == (None, 0, {None})
    worth = {"num_labels": 200, "num_random": 40, "accuracy": {"value": 0.9, "low": 0.8, "high": 0.95},
             "labels_saved": {"value": 120.0, "low": 10.0, "high": None}, "labels_for_same": None,
             "next_gain": {"value": 0.01, "low": 0.0, "high": 0.02}}  # fmt: skip
    with worlds.catalog.write() as session:
        now = worlds.catalog.now(session)
        figures = {"kappa": 0.9, "changed": 0.05, "uncertainty": 0.01, "worth": worth}
        made = {"queue_id": worlds.queue_id, "at": now, "strategy": "badge", "num_labels": 200, "figures": figures}
        session.add_all(LabelGeneration(generation=number, **made) for number in range(2, 5))
    late = worlds.client("curator").get(path).json()
    assert (late["chosen_by"], late["worth"]["accuracy"]["value"]) == ("badge", 0.9)
    assert {one["name"]: one["says_stop"] for one in late["advice"]} == {
        "agreement": False, "change": False, "uncertainty": True, "gain": False,
    }  # fmt: skip
    assert late["curve"] == [{"num_labels": 200, "value": 0.9, "low": 0.8, "high": 0.95}]
    with worlds.catalog.read() as session:
        assert session.scalar(select(LabelGeneration.strategy).limit(1)) == "badge"
