"""``/metrics`` and ``/ready``: what they say on each database, who may ask, and that they say no secret."""

import re
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import delete, select, text
from starlette.testclient import TestClient

from catalog.errors import ConfigError
from catalog.settings import Settings
from catalog.store import Store
from catalog.tables.engine import Outbox, Run, Unit, Worker
from service import app as application
from service.app import close_app, create_app
from service.metrics import RECENT_SECONDS
from tests.service.conftest import BASE, World
from workers import process_names

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scraped(answer: str) -> Samples:
    """Every sample by name and labels, as Prometheus reads it."""
    return {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for family in text_string_to_metric_families(answer)
        for one in family.samples
    }


def add_units(world: World) -> None:
    """A running run with units in every state, in all sorts of times."""
    with world.catalog.write() as session:
        now = world.catalog.now(session)
        run = Run(
            kind="clean",
            dataset_id=world.dataset_id,
            idempotency_key="k",
            config={},
            config_hash="0" * 64,
            created_at=now,
        )
        session.add(run)
        session.flush()

        def unit(position: int, state: str, needs: str = "cpu", **times: float) -> Unit:
            moments = {name: now - timedelta(seconds=ago) for name, ago in times.items()}
            return Unit(
                run_id=run.id,
                stage=0,
                stage_name="measure",
                position=position,
                payload={},
                state=state,
                needs=needs,
                **({"ready_at": now} | moments),
            )

        session.add_all(
            [
                unit(0, "ready", ready_at=90.0),
                unit(1, "ready", needs="embed", ready_at=30.0),
                unit(2, "running", started_at=5.0, lease_until=-30.0),
                unit(3, "running", started_at=99.0, lease_until=2.0),
                unit(4, "done", started_at=20.0, finished_at=16.0),
                unit(5, "done", started_at=12.0, finished_at=10.0),
                unit(6, "done", started_at=RECENT_SECONDS + 90, finished_at=RECENT_SECONDS + 60),
                Outbox(task="engine.run_unit", args=["u"], created_at=now - timedelta(seconds=7)),
                Worker(name=process_names.this_process(), pid=1, started_at=now, seen_at=now),
            ]
        )


def test_figures_are_those_of_the_database_whichever_process_is_asked(worlds: World) -> None:
    add_units(worlds)
    answers = []
    for app in (worlds.app, create_app(worlds.catalog.settings)):
        client = TestClient(app, base_url=BASE, headers={"Authorization": f"Bearer {worlds.tokens['curator']}"})
        answer = client.get("/metrics")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain; version=")
        answers.append(scraped(answer.text))
        close_app(app)
    for found in answers:
        for name, labels, value in (
            ("winnow_runs", {"kind": "clean", "state": "done"}, 1),
            ("winnow_runs", {"kind": "clean", "state": "running"}, 1),
            ("winnow_units", {"state": "done"}, 3),
            ("winnow_units", {"state": "poisoned"}, 1),
            ("winnow_units_live", {"state": "ready", "stage": "measure"}, 2),
            ("winnow_units_ready", {"needs": "cpu"}, 1),
            ("winnow_units_ready", {"needs": "embed"}, 1),
            ("winnow_units_ready", {"needs": "train"}, 0),
            ("winnow_leases_expired", {}, 1),
            ("winnow_outbox_messages", {}, 1),
            ("winnow_workers_alive", {}, 1),
            ("winnow_recent_units_done", {"stage": "measure"}, 2),
            ("winnow_annotations", {}, 0),
            ("winnow_quarantined_rows", {}, 1),
            ("winnow_store_bytes", {}, 0),
        ):
            assert found[name, tuple(sorted(labels.items()))] == value, name
        assert 90 <= found["winnow_oldest_ready_seconds", (("needs", "cpu"),)] < 150
        assert 30 <= found["winnow_oldest_ready_seconds", (("needs", "embed"),)] < 90
        assert 7 <= found["winnow_outbox_oldest_seconds", ()] < 67
        assert found["winnow_recent_unit_seconds", (("stage", "measure"),)] == pytest.approx(6.0, abs=0.01)
        assert found["winnow_database_bytes", ()] > 100_000


@pytest.mark.parametrize("ended", ["failed", "cancelled", "paused"])
def test_units_of_a_run_that_does_not_go_on_wait_for_nobody(world: World, ended: str) -> None:
    add_units(world)
    with world.catalog.write() as session:
        run = session.scalars(select(Run).where(Run.state == "running")).one()
        if ended == "paused":
            run.paused_at = world.catalog.now(session)
        else:
            run.state = ended
    found = scraped(world.client("admin").get("/metrics").text)
    assert found["winnow_units_ready", (("needs", "cpu"),)] == 0
    assert found["winnow_oldest_ready_seconds", (("needs", "cpu"),)] == 0
    left = {state: found["winnow_units", (("state", state),)] for state in ("ready", "running", "done")}
    assert left == (
        {"ready": 2, "running": 2, "done": 3} if ended == "paused" else {"ready": 0, "running": 0, "done": 3}
    )
    assert found.get(("winnow_units", (("state", "cancelled"),)), 0) == (0 if ended == "paused" else 4)
    live = {labels for name, labels in found if name == "winnow_units_live"}
    assert ((("stage", "measure"), ("state", "ready")) in live) == (ended == "paused")
    assert (("stage", "measure"), ("state", "poisoned")) in live


def test_requests_are_counted_by_route_and_never_by_id(world: World) -> None:
    admin = world.client("admin")
    for run_id in ("a1", "b2", world.run_id):
        admin.get(f"/api/v1/runs/{run_id}")
    world.client().get("/api/v1/runs/c3")
    admin.request("BREW", "/api/v1/runs/c3")
    told = admin.get("/metrics").text
    found = scraped(told)
    route = "/api/v1/runs/{run_id}"
    count = {
        status: found["winnow_http_requests_total", (("method", "GET"), ("route", route), ("status", status))]
        for status in ("200", "404")
    }
    assert count == {"200": 1, "404": 2}
    assert found["winnow_http_requests_total", (("method", "GET"), ("route", "(none)"), ("status", "401"))] == 1
    assert found["winnow_http_request_seconds_count", (("method", "GET"), ("route", route))] == 3
    assert ("winnow_http_request_seconds_count", (("method", "other"), ("route", route))) in found
    for value in ("a1", "b2", "BREW", world.run_id, world.tokens["admin"]):
        assert value not in told


def test_metrics_take_a_token_of_a_curator_or_an_admin(world: World) -> None:
    refused = world.client("annotator").get("/metrics")
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    refused = world.client(Host="elsewhere.example").get("/health")
    assert (refused.status_code, refused.json()["code"]) == (400, "bad_request")
    told = {role: world.client(role).get("/metrics").status_code for role in (None, "annotator", "curator", "admin")}
    assert told == {None: 401, "annotator": 403, "curator": 200, "admin": 200}
    # The browser of this machine is no scraper, and neither is a client that says where it comes from by itself.
    local = TestClient(world.app, base_url=BASE, client=("127.0.0.1", 5))
    assert local.get("/metrics", headers={"X-Forwarded-For": "127.0.0.1"}).status_code == 401


def test_metrics_may_be_opened_to_programs_on_this_machine_and_to_nobody_else(world: World) -> None:
    settings = world.catalog.settings.model_copy(update={"metrics_from_loopback": True})
    app = create_app(settings)
    told = {
        address: TestClient(app, base_url=BASE, client=(address, 5)).get("/metrics").status_code
        for address in ("127.0.0.1", "::1", "10.0.0.7")
    }
    assert told == {"127.0.0.1": 200, "::1": 200, "10.0.0.7": 401}
    local = TestClient(app, base_url=BASE, client=("127.0.0.1", 5), follow_redirects=False)
    assert local.get("/api/v1/datasets").status_code == 401
    assert local.get("/metrics/").status_code in (401, 404)
    close_app(app)
    with pytest.raises(ConfigError, match="metrics_from_loopback and behind_proxy"):
        create_app(settings.model_copy(update={"behind_proxy": True}))


@pytest.fixture
def anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask the parts at every request: a test does not wait for the answer before to grow old."""
    monkeypatch.setattr(application.Readiness, "SECONDS", 0.0)


def test_ready_says_which_part_is_away_and_no_more(worlds: World, anew: None, tmp_path: Path) -> None:
    Store.of(worlds.catalog.settings).create()
    with worlds.catalog.write() as session:
        session.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"))
        session.execute(text(f"INSERT INTO alembic_version VALUES ('{application_revision()}')"))
    client = worlds.client()
    answer = client.get("/ready")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready"})
    shutil.rmtree(worlds.catalog.settings.home / "store")
    answer = client.get("/ready")
    assert (answer.status_code, answer.json()) == (503, {"status": "unavailable", "away": ["store"]})
    with worlds.catalog.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    assert client.get("/ready").json()["away"] == ["database", "store"]
    with worlds.catalog.write() as session:
        session.execute(delete(Outbox))
        session.execute(text("DROP TABLE alembic_version"))
    assert client.get("/ready").json()["away"] == ["database", "store"]
    assert client.get("/health").status_code == 200


def application_revision() -> str:
    from catalog.migrate import latest_revision

    return latest_revision()


@pytest.mark.parametrize("broker", ["redis://:hunter2pass@127.0.0.1:1/0", "amqp://me:hunter2pass@127.0.0.1:1//"])
def test_ready_without_its_broker_is_503_and_says_no_password(broker: str, tmp_path: Path, caplog: object) -> None:
    client = TestClient(create_app(Settings(home=tmp_path, broker_url=broker)), base_url=BASE)
    answer = client.get("/ready")
    assert answer.status_code == 503
    assert answer.json() == {"status": "unavailable", "away": ["broker", "database", "store"]}
    assert not re.search("hunter2pass|127.0.0.1", answer.text)


def test_ready_reaches_a_real_redis(world: World, anew: None, tmp_path: Path) -> None:
    from tests.servers import RedisServer

    server = RedisServer(tmp_path)
    server.start()
    client = TestClient(create_app(world.catalog.settings.model_copy(update={"broker_url": server.url})), base_url=BASE)
    try:
        assert "broker" not in client.get("/ready").json()["away"]
    finally:
        server.stop()
    assert "broker" in client.get("/ready").json()["away"]
