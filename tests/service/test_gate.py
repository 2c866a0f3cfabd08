"""What stands before every handler: login, roles, host, size, origin, headers, the guess limit."""

import logging
from datetime import timedelta

import pytest
from fastapi.routing import iter_route_contexts
from starlette.testclient import TestClient

from catalog.errors import ConfigError
from catalog.settings import Settings
from catalog.tables.access import AuditEntry
from service.app import create_app
from service.gate import CONTENT_SECURITY_POLICY, MAX_BODY_BYTES

BASE = "http://127.0.0.1:8765"
OPEN = {"/health", "/login", "/ready", "/static"}
SAMPLE = dict.fromkeys(("run_id", "queue_id", "lease_id", "task_id", "request_id", "webhook_id", "arm"), "x") | {
    "name": "tickets 고객"
}


def all_routes(app):
    """Every (method, path) that the application answers, included routers flattened."""
    found = set()
    for route in iter_route_contexts(app.routes):
        methods = (route.methods or {"GET"}) - {"HEAD"}
        found.update((method, route.path) for method in methods)
    return sorted(found)


def test_every_route_but_health_login_and_static_needs_a_login(world):
    routes = all_routes(world.app)
    assert len(routes) > 20
    checked = 0
    for method, template in routes:
        if template in OPEN:
            continue
        path = template.replace(":path", "").format(**SAMPLE)
        answer = world.client().request(method, path, json={} if method != "GET" else None)
        if template.startswith("/api/"):
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized"), path
            assert answer.headers["www-authenticate"] == "Bearer"
        elif template == "/metrics":
            assert answer.status_code == 401
        elif method == "GET":
            assert (answer.status_code, answer.headers["location"][:12]) == (303, "/login?next="), path
        else:
            assert answer.status_code == 401, path
        checked += 1
    assert checked == len(routes) - sum(template in OPEN for _, template in routes)


@pytest.mark.parametrize(
    "path", ["/api/v1/nothing", "/api/", "/nothing", "/docs", "/openapi.json", "/redoc", "//", "/staticx"]
)
def test_paths_that_do_not_exist_need_a_login_too(world, path):
    answer = world.client().get(BASE + path)
    assert answer.status_code == (401 if path.startswith("/api/") else 303)


def test_invalid_json_without_a_token_is_401_and_not_422(world):
    answer = world.client().post("/api/v1/queues", content=b"{", headers={"Content-Type": "application/json"})
    assert answer.status_code == 401


def test_health_says_ok_and_nothing_else(world):
    answer = world.client().get("/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_health_without_a_database_is_503(tmp_path):
    client = TestClient(create_app(Settings(home=tmp_path / "absent")), base_url=BASE)
    answer = client.get("/health")
    assert (answer.status_code, answer.json()) == (503, {"status": "unavailable"})


ANNOTATOR_MAY = {"/", "/logout", "/label/{queue_id}", "/api/v1/openapi.json"}


OF_REVIEWERS = (
    {("POST", "/api/v1/queues")}
    | {
        (method, f"/api/v1/queues/{{queue_id}}/{part}")
        for method, part in (
            ("DELETE", "gold"),
            ("DELETE", "suggestions"),
            ("POST", "decisions/undo"),
            ("POST", "gold"),
            ("POST", "import"),
            ("PUT", "schema"),
        )
    }
    | {
        ("GET", f"/api/v1/queues/{{queue_id}}/{part}")
        for part in (
            "agreement",
            "disagreements",
            "export",
            "gold",
            "gold/records",
            "history",
            "labeling-config",
            "strategy",
            "suggestions",
        )
    }
)


def test_annotators_reach_queues_and_leases_only(world):
    annotator = world.client("annotator")
    refused = []
    for method, template in all_routes(world.app):
        if template in OPEN:
            continue
        path = template.replace(":path", "").format(**SAMPLE)
        answer = annotator.request(method, path, json={} if method != "GET" else None)
        may = template in ANNOTATOR_MAY or template.startswith(("/api/v1/queues", "/api/v1/leases"))
        if (method, template) in OF_REVIEWERS:
            may = False
        assert (answer.status_code != 403) == may, (method, template, answer.status_code)
        refused += [template] if answer.status_code == 403 else []
    assert "/api/v1/datasets/{name:path}" in refused
    assert "/queues/{queue_id}" in refused


def test_every_answer_carries_the_security_headers(world, caplog):
    @world.app.get("/api/v1/broken")
    def broken():
        raise RuntimeError("secret detail")

    admin = world.client("admin")
    with caplog.at_level(logging.CRITICAL):
        answers = [
            world.client().get("/health"),
            world.client().get("/login"),
            world.client().get("/"),
            world.client().get("/static/style.css"),
            world.client().get("/health", headers={"Host": "evil.example"}),
            admin.get("/"),
            admin.get("/api/v1/datasets"),
            admin.get("/api/v1/nothing"),
            admin.get("/api/v1/broken"),
        ]
    for answer in answers:
        assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY, answer.url
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        cacheable = "/static/" in str(answer.url)
        assert answer.headers["cache-control"] == ("no-cache" if cacheable else "no-store")
    assert answers[-1].status_code == 500
    assert "secret" not in answers[-1].text


def test_policy_is_the_strict_one():
    assert CONTENT_SECURITY_POLICY == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    )


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8765", 200),
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("[::1]:8765", 200),
        ("evil.example", 400),
        ("127.0.0.1.evil.example", 400),
        ("localhost@evil.example", 400),
        ("", 400),
        ("[::1", 400),
    ],
)
def test_only_allowed_hosts_are_answered(world, host, status):
    assert world.client().get("/health", headers={"Host": host}).status_code == status


def test_large_bodies_are_413_whether_declared_or_streamed(world):
    admin = world.client("admin")
    big = b'{"name": "' + b"x" * MAX_BODY_BYTES + b'"}'
    declared = admin.post("/api/v1/queues", content=big, headers={"Content-Type": "application/json"})

    def chunks():
        for start in range(0, len(big), 65536):
            yield big[start : start + 65536]

    streamed = admin.post("/api/v1/queues", content=chunks(), headers={"Content-Type": "application/json"})
    lying = admin.post("/login", content=chunks(), headers={"Origin": BASE})
    assert (declared.status_code, declared.json()["code"]) == (413, "too_large")
    assert (streamed.status_code, streamed.json()["code"]) == (413, "too_large")
    assert lying.status_code == 413


def test_ten_wrong_guesses_a_minute_an_address_then_429(worlds):
    worlds.tokens["wrong"] = "wnw_0123456789abcdef_" + "A" * 43
    answers = [worlds.client("wrong").get("/api/v1/queues") for _ in range(15)]
    assert [answer.status_code for answer in answers] == [401] * 10 + [429] * 5
    assert answers[-1].headers["retry-after"] == "60"
    assert len(worlds.audited("login.failed")) == 10
    assert worlds.client("annotator").get("/api/v1/queues").status_code == 200, "a valid token is never locked out"
    with worlds.catalog.write() as session:
        for entry in session.query(AuditEntry).where(AuditEntry.action == "login.failed"):
            entry.at -= timedelta(seconds=61)
    assert worlds.client("wrong").get("/api/v1/queues").status_code == 401


def test_login_page_counts_the_same_guesses(world):
    statuses = [
        world.client(Origin=BASE).post("/login", data={"token": f"guess{number}"}).status_code for number in range(12)
    ]
    assert statuses == [401] * 10 + [429] * 2
    assert world.browser("admin").get("/").status_code == 200


def test_missing_and_expired_tokens_are_no_guesses(world):
    with world.catalog.write() as session:
        from catalog.tables.access import Token

        session.query(Token).where(Token.user_id == world.users["admin"]).update(
            {"expires_at": world.catalog.now(session)}
        )
    for _ in range(12):
        assert world.client("admin").get("/api/v1/queues").status_code == 401
        assert world.client().get("/api/v1/queues").status_code == 401
    assert world.audited("login.failed") == []


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({"Origin": BASE}, True),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Origin": BASE, "Sec-Fetch-Site": "same-origin"}, True),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "null", "Sec-Fetch-Site": "same-origin"}, True),
        ({"Origin": "null", "Sec-Fetch-Site": "cross-site"}, False),
        ({"Origin": "http://127.0.0.1:1"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Origin": BASE, "Sec-Fetch-Site": "cross-site"}, False),
        ({}, False),
    ],
)
def test_writes_by_cookie_must_come_from_our_own_pages(world, headers, allowed):
    cookie = world.browser("annotator").cookies["winnow_session"]
    client = world.client(Cookie=f"winnow_session={cookie}")
    answer = client.post(f"/api/v1/queues/{world.queue_id}/next", headers=headers)
    assert answer.status_code == (200 if allowed else 403)
    assert client.get("/api/v1/queues").status_code == 200


def test_login_from_another_site_is_refused(world):
    answer = world.client(Origin="http://evil.example").post("/login", data={"token": world.tokens["admin"]})
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


def test_non_loopback_host_needs_a_declared_proxy(tmp_path):
    with pytest.raises(ConfigError, match="WINNOW_BEHIND_PROXY"):
        create_app(Settings(home=tmp_path, host="0.0.0.0"))
    create_app(Settings(home=tmp_path, host="0.0.0.0", behind_proxy=True))
