"""The HTTP API on both databases: what it answers, to whom, and what it refuses."""

import json

import pytest
from sqlalchemy import select

from catalog.tables.access import AuditEntry
from catalog.tables.base import new_id
from catalog.tables.datasets import Dataset, Version
from catalog.tables.engine import Run, Unit
from catalog.tables.labeling import Annotation, LabelQueue, LabelTask
from catalog.tables.training import LossPoint
from labeling import queue
from labeling.schema import LabelSchema
from service.api.queues import RETRY_SPREAD_SECONDS

API = "/api/v1"
SCHEMA = {"labels": [{"name": "긍정"}, {"name": "부정", "hotkey": "n"}], "question": "기분은?"}


def take(client, world):
    answer = client.post(f"{API}/queues/{world.queue_id}/next")
    assert answer.status_code == 200, answer.text
    return answer.json()["task"]


def put(client, lease_id, **body):
    return client.put(f"{API}/leases/{lease_id}/annotation", json={"key": "k" * 16, "value": "긍정", **body})


def test_datasets_are_paged_by_key_in_order(worlds):
    with worlds.catalog.write() as session:
        now = worlds.catalog.now(session)
        session.add_all(Dataset(name=f"d{number}", text_column="t", created_at=now) for number in range(5))
    client, seen, after = worlds.client("curator"), [], ""
    while True:
        page = client.get(f"{API}/datasets", params={"limit": 2, "after": after}).json()
        seen += [item["name"] for item in page["items"]]
        if page["next"] is None:
            break
        after = page["next"]
    assert seen == ["d0", "d1", "d2", "d3", "d4", "tickets 고객"]


def test_dataset_and_its_versions(worlds):
    client = worlds.client("curator")
    found = client.get(f"{API}/datasets/tickets 고객").json()
    assert (found["id"], found["text_column"]) == (worlds.dataset_id, "body")
    versions = client.get(f"{API}/datasets/tickets 고객/versions").json()
    assert [(one["number"], one["num_records"]) for one in versions["items"]] == [(1, 5)]
    assert client.get(f"{API}/datasets/tickets 고객/versions", params={"after": "1"}).json()["items"] == []


def test_unknown_dataset_is_404_with_the_nearest_name(world):
    answer = world.client("curator").get(f"{API}/datasets/tickets")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert "tickets 고객" in answer.json()["message"]


def test_runs_are_paged_newest_first(worlds):
    with worlds.catalog.write() as session:
        now = worlds.catalog.now(session)
        for _ in range(4):
            session.add(
                Run(
                    kind="clean",
                    dataset_id=worlds.dataset_id,
                    idempotency_key=new_id(),
                    config={},
                    config_hash="0",
                    created_at=now,
                )
            )
    client, seen, after = worlds.client("curator"), [], {}
    while True:
        page = client.get(f"{API}/runs", params={"limit": 2, **after}).json()
        seen += [(item["created_at"], item["id"]) for item in page["items"]]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert len(seen) == len(set(seen)) == 5
    assert seen == sorted(seen, reverse=True)
    assert client.get(f"{API}/runs", params={"dataset": "other"}).json()["items"] == []


def test_runs_are_listed_by_state_and_a_filter_that_does_not_exist_is_refused(worlds):
    client = worlds.client("curator")

    def states(**params):
        return {item["state"] for item in client.get(f"{API}/runs", params=params).json()["items"]}

    with worlds.catalog.write() as session:
        run = session.get_one(Run, worlds.run_id)
        run.state = "failed"
    assert states() == states(state="failed") == {"failed"}
    assert states(state="done") == set()
    refused = client.get(f"{API}/runs", params={"state": "filed"})
    assert (refused.status_code, "did you mean 'failed'" in refused.json()["message"]) == (422, True)
    refused = client.get(f"{API}/runs", params={"stat": "failed"})
    assert refused.status_code == 422
    assert "unknown query parameter 'stat'; did you mean 'state'?" in refused.json()["message"]
    assert client.get(f"{API}/openapi.json", params={"x": "1"}).status_code == 422
    assert client.get(f"{API}/openapi.json").status_code == 200


def test_losses_of_a_training_are_read_while_it_goes_on(worlds):
    client, path = worlds.client("curator"), f"{API}/runs/{worlds.run_id}/losses"
    with worlds.catalog.write() as session:
        run = session.get_one(Run, worlds.run_id)
        # Of cells of vectors, not of an arm.
        cells = Unit(run_id=run.id, stage=1, stage_name="fit", position=0, payload={}, ready_at=run.created_at)
        session.add(cells)
    assert client.get(path).json() == {"items": []}, "of a cleaning"
    with worlds.catalog.write() as session:
        session.delete(session.merge(cells))
        run = session.get_one(Run, worlds.run_id)
        run.kind = "train"
        about = {"stage": 1, "stage_name": "fit", "ready_at": run.created_at, "state": "running"}
        first = {"arm": "a", "index": 0, "steps": 9, "seed": 5, "control_of": None, "replica_of": None}
        second = first | {"arm": "a-random", "index": 1, "control_of": "a"}
        memory = {"total_bytes": 7, "free_bytes": 9}
        session.add(Unit(run_id=run.id, position=0, payload=first, result={"memory": memory}, **about))
        session.add(Unit(run_id=run.id, position=1, payload=second, **about))
        session.add_all(LossPoint(run_id=run.id, arm="a", step=step, loss=8.0 / step) for step in (1, 2, 3, 4))
    found, control = client.get(path, params={"points": 2}).json()["items"]
    assert found == {
        "arm": "a",
        "seed": 5,
        "control_of": None,
        "replica_of": None,
        "num_done": 4,
        "num_steps": 9,
        "points": [[2, 6.0], [4, pytest.approx((8 / 3 + 2) / 2)]],
        "memory": memory,
    }
    assert (control["control_of"], control["num_done"], control["points"], control["memory"]) == ("a", 0, [], None)
    assert client.get(path, params={"points": 0}).status_code == 422
    assert client.get(f"{API}/runs/none/losses").status_code == 404
    assert worlds.client("annotator").get(path).status_code == 403


def test_units_that_gave_up_are_listed_with_their_reason(worlds):
    items = worlds.client("curator").get(f"{API}/runs/{worlds.run_id}/units").json()["items"]
    assert [(one["state"], one["attempts"], one["reason"]) for one in items] == [
        ("poisoned", 3, "ValueError: <b>no</b>")
    ]


def test_progress_of_a_run(worlds):
    answer = worlds.client("curator").get(f"{API}/runs/{worlds.run_id}")
    assert answer.status_code == 200, answer.text
    assert (answer.json()["state"], answer.json()["kind"]) == ("done", "clean")
    assert [set(stage) >= {"name", "num_units", "num_units_done"} for stage in answer.json()["stages"]]


def test_labeling_from_next_to_progress(worlds):
    client = worlds.client("annotator")
    task = take(client, worlds)
    assert (task["text"], task["why"]) == ("배송이 늦었지만 품질은 좋아요 👍", "margin 0.00")
    stored = put(client, task["lease_id"], seconds_spent=1.5)
    assert (stored.status_code, stored.json()["late"], stored.json()["repeated"]) == (200, False, False)
    progress = client.get(f"{API}/queues/{worlds.queue_id}/progress").json()
    assert (progress["num_done"], progress["num_mine"], progress["num_tasks"]) == (1, 1, 5)
    with worlds.catalog.read() as session:
        row = session.scalars(select(Annotation)).one()
        assert (row.value, row.annotator_id, row.seconds_spent) == ("긍정", worlds.users["annotator"], 1.5)


def test_the_same_answer_sent_again_changes_nothing(worlds):
    client = worlds.client("annotator")
    task = take(client, worlds)
    first, again = put(client, task["lease_id"]), put(client, task["lease_id"])
    assert (again.status_code, again.json()["repeated"]) == (200, True)
    assert again.json()["annotation_id"] == first.json()["annotation_id"]
    other = put(client, task["lease_id"], value="부정")
    assert (other.status_code, other.json()["code"]) == (409, "conflict")
    with worlds.catalog.read() as session:
        assert len(session.scalars(select(Annotation)).all()) == 1


def test_leases_of_others_do_not_exist(worlds):
    task = take(worlds.client("annotator"), worlds)
    other = worlds.client("admin")
    lease = f"{API}/leases/{task['lease_id']}"
    answers = [
        other.post(f"{lease}/heartbeat"),
        other.post(f"{lease}/release"),
        other.post(f"{lease}/skip", json={"reason": "x"}),
        put(other, task["lease_id"]),
        put(other, new_id()),
    ]
    assert [answer.status_code for answer in answers] == [404] * 5
    assert take(worlds.client("annotator"), worlds)["lease_id"] == task["lease_id"]


def test_skip_undo_release_and_heartbeat(worlds):
    client = worlds.client("annotator")
    first = take(client, worlds)
    assert client.post(f"{API}/leases/{first['lease_id']}/skip", json={"reason": "cannot tell"}).status_code == 204
    second = take(client, worlds)
    assert second["task_id"] != first["task_id"]
    beat = client.post(f"{API}/leases/{second['lease_id']}/heartbeat").json()
    assert beat["expires_at"] >= second["expires_at"]
    assert client.post(f"{API}/queues/{worlds.queue_id}/undo").json() == {"task_id": first["task_id"]}
    assert take(client, worlds)["task_id"] == first["task_id"]
    for task in (first, second):
        assert client.post(f"{API}/leases/{task['lease_id']}/release").status_code == 204
    assert client.post(f"{API}/queues/{worlds.queue_id}/undo").json() == {"task_id": None}


def test_no_task_says_why_and_when_to_ask_again(worlds):
    client, other = worlds.client("annotator"), worlds.client("curator")
    for number in range(5):
        put(client, take(client, worlds)["lease_id"], key=f"key-{number:08}")
    done = client.post(f"{API}/queues/{worlds.queue_id}/next")
    nothing = {"task": None, "reason": "done", "retry_after_seconds": None, "problem": None}
    assert (done.status_code, done.json()) == (200, nothing)
    client.post(f"{API}/queues/{worlds.queue_id}/undo")
    leased = other.post(f"{API}/queues/{worlds.queue_id}/next").json()
    assert (leased["task"], leased["reason"]) == (None, "all_leased")
    assert 0 < leased["retry_after_seconds"] <= 600 + RETRY_SPREAD_SECONDS


def test_annotators_see_their_own_part_of_the_progress_only(world):
    client = world.client("annotator")
    put(client, take(client, world)["lease_id"])
    path = f"{API}/queues/{world.queue_id}/progress"
    mine, all_of_it = client.get(path).json(), world.client("curator").get(path).json()
    assert (mine["annotators"], mine["labels"], mine["num_mine"]) == (None, None, 1)
    assert (all_of_it["annotators"], all_of_it["labels"]) == ({world.users["annotator"]: 1}, {"긍정": 1})


def test_agreement_is_for_curators_and_says_who_is_how_good(worlds):
    path = f"{API}/queues/{worlds.queue_id}/agreement"
    client, curator = worlds.client("annotator"), worlds.client("curator")
    put(client, take(client, worlds)["lease_id"], seconds_spent=3.0)
    refused = client.get(path)
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    found = curator.get(path, params={"seed": 3}).json()
    assert (found["task"], found["num_items"], found["num_answers"], found["method"]) == (
        "single_choice",
        1,
        1,
        "majority",
    )
    assert found["agreement"][0] == {
        "measure": "krippendorff_alpha_nominal",
        "value": None,
        "reason": "no item was answered by two annotators",
        "low": None,
        "high": None,
        "num_items": 0,
        "num_annotations": 0,
    }
    (one,) = found["annotators"]
    assert (one["annotator_id"], one["num_answers"], one["median_seconds"]) == (worlds.users["annotator"], 1, 3.0)
    assert (one["accuracy"], one["confusion"]) == (None, [["긍정", "긍정", 1]])
    assert curator.get(path, params={"method": "majorty"}).status_code == 404
    assert curator.get(f"{API}/queues/none/agreement").status_code == 404
    needs_more = curator.get(path, params={"method": "crowdlab"})
    assert (needs_more.status_code, needs_more.json()["code"]) == (422, "no_classifier")


def test_queues_are_listed_with_their_schema(worlds):
    page = worlds.client("annotator").get(f"{API}/queues", params={"state": "open"}).json()
    assert [(one["id"], one["name"], one["dataset"]) for one in page["items"]] == [
        (worlds.queue_id, "tone", "tickets 고객")
    ]
    assert [label["hotkey"] for label in page["items"][0]["schema"]["labels"]] == ["1", "2", "3"]
    assert worlds.client("annotator").get(f"{API}/queues/{worlds.queue_id}").json()["schema"]["question"] == "기분은?"
    assert worlds.client("annotator").get(f"{API}/queues", params={"state": "closed"}).json()["items"] == []


def test_created_queue_asks_the_workers_for_its_first_tasks(worlds):
    body = {"name": "두 번째", "dataset": "tickets 고객", "schema": SCHEMA, "strategy": "kmeans"}
    made = worlds.client("curator").post(f"{API}/queues", json=body)
    assert made.status_code == 201, made.text
    assert (made.json()["overlap"], made.json()["lease_seconds"]) == (1, 600.0)
    waiting = worlds.client("annotator").post(f"{API}/queues/{made.json()['id']}/next").json()
    assert (waiting["task"], waiting["reason"]) == (None, "waiting_for_model")
    with worlds.catalog.read() as session:
        assert [run.config["queue"] for run in session.scalars(select(Run).where(Run.kind == "query"))] == [
            made.json()["id"]
        ]
    assert [entry.object for entry in worlds.audited("queue.created")] == [f"queue:{made.json()['id']}"]
    again = worlds.client("curator").post(f"{API}/queues", json=body)
    assert (again.status_code, again.json()["id"]) == (200, made.json()["id"])
    assert len(worlds.audited("queue.created")) == 1
    other = worlds.client("curator").post(f"{API}/queues", json=body | {"overlap": 2, "strategy": "margin"})
    assert (other.status_code, other.json()["code"]) == (409, "conflict")
    for words in ("strategy='kmeans' (asked for: 'margin')", "overlap=1 (asked for: 2)"):
        assert words in other.json()["message"]


def test_empty_queue_with_records_left_asks_the_workers_for_more_and_says_when_they_fail(worlds):
    client = worlds.client("annotator")
    with worlds.catalog.write() as session:
        now = worlds.catalog.now(session)
        entry = queue.QueueEntry(record_id="r0", text="배송이 늦었어요", utility=1.0, why="first")
        queue.publish_generation(session, now=now, queue_id=worlds.queue_id, entries=[entry], num_left=4)
    put(client, take(client, worlds)["lease_id"])
    for _ in range(2):
        waiting = client.post(f"{API}/queues/{worlds.queue_id}/next").json()
        assert 2.0 <= waiting.pop("retry_after_seconds") <= 2.0 + RETRY_SPREAD_SECONDS
        assert waiting == {"task": None, "reason": "waiting_for_model", "problem": None}
    with worlds.catalog.write() as session:
        run = session.scalars(select(Run).where(Run.kind == "query")).one()
        assert (run.config["queue"], run.config["num_labels"], run.config["num_entries"]) == (worlds.queue_id, 1, 200)
        run.state, run.reason, run.finished_at = "failed", "choose: a disk broke", worlds.catalog.now(session)
        run_id = run.id
    waiting = client.post(f"{API}/queues/{worlds.queue_id}/next").json()
    assert waiting["reason"] == "waiting_for_model"
    assert f"`winnow runs` has the reason of run {run_id[:8]}" in waiting["problem"]
    assert "disk" not in waiting["problem"]


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"colour": "red"}, 422, "body.colour"),
        ({"overlap": 0}, 422, "body.overlap"),
        ({"overlap": "1; DROP TABLE users"}, 422, "body.overlap"),
        ({"schema": {"labels": [{"name": "a"}]}}, 422, "labels"),
        ({"schema": {"labels": [{"name": "a"}, {"name": "a"}]}}, 422, "given twice"),
        ({"schema": {"labels": [{"name": "a", "hotkey": "s"}, {"name": "b"}]}}, 422, "taken by the page"),
        ({"schema": {**SCHEMA, "html": "<b>"}}, 422, "html"),
        ({"strategy": "margn"}, 404, "margin"),
        ({"dataset": "nothing"}, 404, "tickets"),
        ({"held_out_share": 1}, 422, "held_out_share"),
        ({"encoder": "minilm"}, 422, "encoder"),
        ({"name": "\ud800"}, 422, "name"),
        ({"name": "a\x00b"}, 422, "NUL"),
        ({"seed": 2**80}, 422, "seed"),
    ],
)
def test_bad_queue_requests_say_what_is_wrong(world, change, status, words):
    body = {"name": "q", "dataset": "tickets 고객", "schema": SCHEMA, "strategy": "kmeans", **change}
    answer = world.client("curator").post(
        f"{API}/queues", content=json.dumps(body), headers={"Content-Type": "application/json"}
    )
    assert (answer.status_code, set(answer.json())) == (status, {"code", "message"}), answer.text
    assert words in answer.json()["message"]
    with world.catalog.read() as session:
        assert session.scalars(select(Run).where(Run.kind == "query")).all() == []


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"key": "short", "value": "긍정"},
        {"key": "k" * 16, "value": "기쁨"},
        {"key": "k" * 16, "value": 1},
        {"key": "k" * 16, "value": "긍정", "role": "admin"},
        {"key": "k" * 16, "value": "긍정", "seconds_spent": -1},
        {"key": "k" * 16, "value": ""},
        [],
        "x",
        None,
    ],
)
def test_bad_answers_are_422_and_store_nothing(world, body):
    client = world.client("annotator")
    task = take(client, world)
    answer = client.put(f"{API}/leases/{task['lease_id']}/annotation", json=body)
    assert (answer.status_code, set(answer.json())) == (422, {"code", "message"})
    with world.catalog.read() as session:
        assert session.scalars(select(Annotation)).all() == []


@pytest.mark.parametrize(
    "path",
    [
        "datasets/a\x00b",
        "queues/a\x00b",
        "runs/a\x00b",
        "runs?after=a%00b",
        "datasets?after=%00",
        "queues?after=%ff",
        "datasets/x/versions?after=-1",
        "datasets?limit=0",
        "datasets?limit=1000",
        "runs/../../etc/passwd",
    ],
)
def test_hostile_paths_and_queries_never_reach_500(worlds, path):
    answer = worlds.client("admin").get(f"{API}/{path.replace(chr(0), '%00')}")
    assert answer.status_code in (200, 404, 422), answer.text


def test_a_run_is_accepted_once_and_audited(worlds):
    with worlds.catalog.write() as session:
        ingest = Run(
            kind="ingest",
            dataset_id=worlds.dataset_id,
            idempotency_key=new_id(),
            config={},
            config_hash="0",
            created_at=worlds.catalog.now(session),
        )
        session.add(ingest)
        session.flush()
        raw = {"number": 2, "kind": "raw", "run_id": ingest.id, "manifest_name": "m", "manifest_sha256": "0" * 64}
        session.add(
            Version(
                dataset_id=worlds.dataset_id,
                num_records=9,
                num_shards=1,
                created_at=worlds.catalog.now(session),
                **raw,
            )
        )
    client = worlds.client("curator")
    body = {"kind": "clean", "dataset": "tickets 고객", "config": {"recipe": "web-text"}}
    first, again = client.post(f"{API}/runs", json=body), client.post(f"{API}/runs", json=body)
    assert (first.status_code, again.status_code) == (202, 202), first.text
    assert first.json() == again.json()
    assert first.headers["location"] == f"{API}/runs/{first.json()['run_id']}"
    assert client.get(first.headers["location"]).json()["state"] == "running"
    assert [entry.actor for entry in worlds.audited("run.requested")] == [worlds.users["curator"]] * 2
    path = client.post(f"{API}/runs", json=body | {"config": {"recipe": "/etc/passwd"}})
    assert (path.status_code, path.json()["code"]) == (422, "config")


def test_unknown_fields_of_a_run_request_are_refused(world):
    client = world.client("curator")
    for body in ({"kind": "rm", "dataset": "x"}, {"kind": "clean", "dataset": "x", "shell": "x"}, {"dataset": "x"}):
        assert client.post(f"{API}/runs", json=body).status_code == 422


def test_openapi_names_every_route_and_its_refusals(world):
    schema = world.client("annotator").get(f"{API}/openapi.json").json()
    assert {"/api/v1/queues/{queue_id}/next", "/api/v1/leases/{lease_id}/annotation", "/api/v1/runs"} <= set(
        schema["paths"]
    )
    assert all(path.startswith("/api/v1/") for path in schema["paths"])
    operations = [one for path in schema["paths"].values() for one in path.values()]
    assert all({"401", "403", "404", "422"} <= set(one["responses"]) for one in operations)
    assert all(one["security"] for one in operations)


def _add_run(world, name):
    with world.catalog.write() as session:
        run = Run(
            kind="clean",
            dataset_id=world.dataset_id,
            idempotency_key=name,
            config={},
            config_hash="0",
            created_at=world.catalog.now(session),
        )
        session.add(run)
        session.flush()
        return run.id


def test_a_run_is_steered_paused_resumed_and_cancelled_and_who_did_it_is_known(worlds):
    run_id, client = _add_run(worlds, "steered"), worlds.client("curator")
    assert client.patch(f"{API}/runs/{run_id}", json={"priority": 7, "max_units": 2}).json()["max_units"] == 2
    assert client.post(f"{API}/runs/{run_id}/pause").json()["state"] == "paused"
    progress = client.get(f"{API}/runs/{run_id}").json()
    assert (progress["state"], progress["paused"], progress["priority"], progress["max_units"]) == (
        "running", True, 7, 2,
    )  # fmt: skip
    assert client.post(f"{API}/runs/{run_id}/resume").json()["state"] == "running"
    assert client.post(f"{API}/runs/{run_id}/resume").status_code == 409
    assert client.post(f"{API}/runs/{run_id}/cancel").json()["state"] == "cancelled"
    assert client.patch(f"{API}/runs/{run_id}", json={"priority": 1}).status_code == 409
    with worlds.catalog.read() as session:
        query = select(AuditEntry.action).where(AuditEntry.object == f"run:{run_id}").order_by(AuditEntry.at)
        assert list(session.scalars(query)) == ["run.steered", "run.paused", "run.resumed", "run.cancelled"]


@pytest.mark.parametrize("asked", [("post", "pause"), ("post", "resume"), ("post", "cancel"), ("get", "log")])
def test_steering_needs_a_curator_and_a_run(worlds, asked):
    method, verb = asked
    path = f"{API}/runs/{_add_run(worlds, verb)}/{verb}"
    assert worlds.client("annotator").request(method, path).status_code == 403
    assert worlds.client("curator").request(method, f"{API}/runs/none/{verb}").status_code == 404


@pytest.mark.parametrize("body", [{"priority": 101}, {"max_units": -1}, {"speed": 3}, {"priority": "high"}])
def test_steering_beyond_the_limits_is_refused(world, body):
    run_id = _add_run(world, "limits")
    assert world.client("curator").patch(f"{API}/runs/{run_id}", json=body).status_code == 422


NIGHTLY = {"name": "nightly", "dataset": "tickets 고객", "kind": "clean", "config": {"recipe": "short-text"}}


def test_a_schedule_is_added_changed_run_and_removed(worlds):
    client = worlds.client("curator")
    made = client.post(f"{API}/schedules", json=NIGHTLY | {"cron": "0 3 * * *", "timezone": "Asia/Seoul"})
    assert (made.status_code, made.json()["trigger"]) == (201, "cron")
    assert client.post(f"{API}/schedules", json=NIGHTLY | {"on": "ingest"}).status_code == 409
    changed = client.patch(f"{API}/schedules/nightly", json={"cron": "30 4 * * *", "enabled": False})
    assert (changed.json()["cron"], changed.json()["enabled"]) == ("30 4 * * *", False)
    assert client.post(f"{API}/schedules/nightly/run").status_code == 202
    history = client.get(f"{API}/schedules/nightly/history").json()["items"]
    assert [one["outcome"] for one in history] == ["pending"]
    assert [one["name"] for one in client.get(f"{API}/schedules").json()["items"]] == ["nightly"]
    assert client.delete(f"{API}/schedules/nightly").status_code == 204
    assert client.get(f"{API}/schedules/nightly/history").status_code == 404


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"cron": "0 3 * *"}, "five fields"),
        ({"config": {"recipe": "/etc/passwd"}, "on": "ingest"}, "no clean recipe"),
        ({"config": {"recipe": "short-text", "document": {}}, "on": "ingest"}, "unknown option 'document'"),
        ({"folder": "/etc", "kind": "ingest"}, "folder"),
        ({"kind": "ingest", "on": "ingest"}, "no job kind 'ingest'"),
        ({"on": "ingest", "max_units": 0}, "max_units"),
    ],
)
def test_a_schedule_over_http_reads_no_file_of_the_server_and_nothing_unknown(world, body, words):
    answer = world.client("curator").post(f"{API}/schedules", json=NIGHTLY | body)
    assert answer.status_code == 422
    assert words in answer.text


def test_schedules_are_for_curators(world):
    client = world.client("annotator")
    assert client.get(f"{API}/schedules").status_code == 403
    assert client.post(f"{API}/schedules", json=NIGHTLY | {"on": "ingest"}).status_code == 403
    assert client.get(f"{API}/requests").status_code == 403


def test_a_job_that_waits_for_a_run_is_a_request_until_then(worlds):
    client, run_id = worlds.client("curator"), _add_run(worlds, "first")
    body = {"kind": "dedup", "dataset": "tickets 고객", "config": {"threshold": 0.7}, "after": run_id}
    asked = client.post(f"{API}/runs", json=body)
    assert (asked.status_code, asked.json()["run_id"]) == (202, None)
    request_id = asked.json()["request_id"]
    (item,) = client.get(f"{API}/requests", params={"state": "waiting"}).json()["items"]
    assert item["id"] == request_id
    assert item["waits_for"] == f"clean run {run_id[:8]}, which is running"
    assert client.delete(f"{API}/requests/{request_id}").status_code == 204
    assert client.delete(f"{API}/requests/{request_id}").status_code == 409
    assert client.post(f"{API}/runs", json=body | {"after": "none-such"}).status_code == 404


def test_webhooks_are_for_administrators_and_secrets_are_shown_once(worlds):
    hook = {"url": "https://example.org/hook", "events": ["run.done"]}
    assert worlds.client("curator").post(f"{API}/webhooks", json=hook).status_code == 403
    client = worlds.client("admin")
    made = client.post(f"{API}/webhooks", json=hook)
    assert made.status_code == 201
    assert made.json()["secret"].startswith("whsec_")
    listed = client.get(f"{API}/webhooks")
    assert [one["url"] for one in listed.json()["items"]] == [hook["url"]]
    assert "whsec_" not in listed.text
    assert client.get(f"{API}/webhooks/{made.json()['id']}/deliveries").json()["items"] == []
    assert client.post(f"{API}/webhooks", json=hook | {"url": "http://169.254.169.254/"}).status_code == 422
    assert client.post(f"{API}/webhooks", json=hook | {"events": ["run.dnoe"]}).status_code == 422
    assert client.delete(f"{API}/webhooks/{made.json()['id']}").status_code == 204
    assert client.delete(f"{API}/webhooks/{made.json()['id']}").status_code == 404


TASKS = {
    "multi_label": (
        {"labels": [{"name": "긍정"}, {"name": "부정"}], "max_labels": 1},
        ["긍정"],
        ["긍정", "부정"],
        "1 to 1",
    ),
    "spans": (
        {"labels": [{"name": "도시"}]},
        [{"start": 2, "end": 4, "label": "도시"}],
        [{"start": 0, "end": 1, "label": "도시"}],
        "use start=0, end=2",
    ),
    "pairwise": ({"ties": True}, "tie", "c", "allowed: a, b, tie"),
    "rating": ({"max": 10}, 10, 11, "from 1 to 10"),
    "free_text": ({"max_chars": 5}, "다섯 글자", "다섯 글자가 넘는다", "takes 1 to 5"),
}


@pytest.mark.parametrize("task", TASKS)
def test_every_task_type_takes_its_answers_and_refuses_others_in_words(world, task):
    options, value, wrong, words = TASKS[task]
    text = '{"a":"하나","b":"둘"}' if task == "pairwise" else "🇰🇷서울"
    with world.catalog.write() as session:
        found = session.get_one(LabelQueue, world.queue_id)
        found.schema = LabelSchema.from_json({"task": task, **options}).to_json()
        for one in session.scalars(select(LabelTask).where(LabelTask.queue_id == world.queue_id)):
            one.text = text
    client = world.client("annotator")
    shown = client.get(f"{API}/queues/{world.queue_id}").json()["schema"]
    assert LabelSchema.from_json(shown) == LabelSchema.from_json({"task": task, **options})
    served = client.post(f"{API}/queues/{world.queue_id}/next").json()
    assert served["task"]["schema_version"] == 1
    assert served["task"]["pair"] == ({"a": "하나", "b": "둘", "prompt": None} if task == "pairwise" else None)
    lease = served["task"]["lease_id"]
    refused = put(client, lease, value=wrong)
    assert (refused.status_code, refused.json()["code"]) == (422, "data")
    assert words in refused.json()["message"]
    assert put(client, lease, value=value).json()["repeated"] is False
    assert put(client, lease, value=value).json()["repeated"] is True
    assert put(client, lease, value=value, schema_version=9).status_code == 200
    with world.catalog.read() as session:
        assert [row.value for row in session.scalars(select(Annotation))] == [value]


def test_answer_to_a_schema_that_never_was_is_a_conflict(world):
    client = world.client("annotator")
    answer = put(client, take(client, world)["lease_id"], schema_version=2)
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert "it had 1" in answer.json()["message"]


def test_deep_and_large_values_are_refused_not_failed_at(world):
    client = world.client("annotator")
    lease = take(client, world)["lease_id"]
    for value in ("[" * 900 + "]" * 900, '"' + "긍" * 300_000 + '"', "[" * 500_000):
        body = f'{{"key": "{"k" * 16}", "value": {value}}}'.encode()
        answer = client.put(
            f"{API}/leases/{lease}/annotation", content=body, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code in (400, 422), answer.text
        assert len(answer.json()["message"]) < 1000
