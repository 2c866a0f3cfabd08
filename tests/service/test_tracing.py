"""Traces, at a real OTLP/HTTP receiver: a span a unit in the trace of its run, a span a request, nothing when off."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from sqlalchemy import select

from catalog import tracing
from catalog.database import Catalog
from catalog.errors import ConfigError
from catalog.settings import Settings
from catalog.tables.engine import Run, Unit
from service.auth import create_user, issue_token
from tests.workers.corpus import write_files
from tests.workers.test_determinism import ask_ingest, make_catalog
from tests.workers.test_logs import environment
from workers.app import make_app, relay

CALLER = "0af7651916cd43dd8448eb211c80319c"


class Collector(ThreadingHTTPServer):
    """Decodes what it is sent and keeps the spans, with the service that sent each."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiving)
        self.spans: list[tuple[str, Any]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def of(self, service: str) -> list[Any]:
        return [span for sender, span in self.spans if sender == service]


class Receiving(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        assert self.path == "/v1/traces"
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            import gzip

            body = gzip.decompress(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = attributes(resource.resource)["service.name"]
            self.server.spans += [(service, span) for scope in resource.scope_spans for span in scope.spans]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def attributes(of: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in of.attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def start_clean_over_http(catalog: Catalog, collector: Collector) -> str:
    """Ask a real web service for a cleaning, in the name of a caller that traces too; the run's id."""
    with catalog.write() as session:
        now = catalog.now(session)
        admin = create_user(session, now=now, name="me", role="admin")
        token = issue_token(session, now=now, user_id=admin.id, days=1)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.set_inheritable(True)
    service = subprocess.Popen(
        [sys.executable, "-m", "service.serve", "--fd", str(listener.fileno())],
        env=environment(catalog.settings.home, otlp_endpoint=collector.url),
        pass_fds=(listener.fileno(),),
    )
    try:
        answer = httpx.post(
            f"http://127.0.0.1:{listener.getsockname()[1]}/api/v1/runs",
            json={"kind": "clean", "dataset": "tickets", "config": {"recipe": "short-text"}},
            headers={"Authorization": f"Bearer {token}", "traceparent": f"00-{CALLER}-b7ad6b7169203331-01"},
            timeout=60,
        )
        assert answer.status_code == 202, answer.text
        with catalog.read() as session:
            return session.scalars(select(Run.id).where(Run.kind == "clean")).one()
    finally:
        service.send_signal(signal.SIGTERM)
        service.wait(60)
        listener.close()


def work_until_done(catalog: Catalog, run_id: str, collector: Collector) -> None:
    worker = subprocess.Popen(
        [sys.executable, "-m", "workers.main", "--name", "w1"],
        env=environment(catalog.settings.home, otlp_endpoint=collector.url),
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 200
        while True:
            with catalog.read() as session:
                state = session.get_one(Run, run_id).state
            if state != "running":
                break
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert state == "done"
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(60)


def test_a_run_is_one_trace_from_its_submission_to_its_last_unit(tmp_path: Path, collector: Collector) -> None:
    catalog = make_catalog(tmp_path / "home")
    run_id = ask_ingest(catalog, write_files(tmp_path / "in", 1, 30))
    relay(catalog, make_app(catalog.settings))
    work_until_done(catalog, run_id, collector)
    spans = collector.of("winnow-worker")
    assert {one.trace_id.hex() for one in spans} == {uuid.UUID(run_id).hex}
    (root,) = [one for one in spans if one.name == "ingest"]
    units = [one for one in spans if one is not root]
    with catalog.read() as session:
        run = session.get_one(Run, run_id)
        done = {one.id: one.stage_name for one in session.scalars(select(Unit).where(Unit.run_id == run_id))}
    assert {attributes(one)["winnow.unit_id"]: one.name for one in units} == done
    assert {attributes(one)["winnow.outcome"] for one in units} == {"done"}
    assert {one.parent_span_id for one in units} == {root.span_id}
    assert root.parent_span_id == b""
    assert run.finished_at is not None
    seconds = (root.end_time_unix_nano - root.start_time_unix_nano) / 1e9
    assert seconds == pytest.approx((run.finished_at - run.created_at).total_seconds(), abs=1e-4)

    cleaning = start_clean_over_http(catalog, collector)
    (asking,) = [one for one in collector.of("winnow-service") if one.name.startswith("POST")]
    assert asking.trace_id.hex() == CALLER
    told = attributes(asking)
    assert (told["http.route"], told["http.response.status_code"]) == ("/api/v1/runs", 202)
    assert told["winnow.run_id"] == cleaning
    (submitted,) = [one for one in collector.of("winnow-service") if one.name == "submit clean"]
    assert submitted.trace_id.hex() == uuid.UUID(cleaning).hex
    assert submitted.parent_span_id == tracing.ids_of_run(cleaning)[1].to_bytes(8, "big")
    assert [one.trace_id.hex() for one in submitted.links] == [CALLER]
    assert [one.trace_id for one in asking.links] == [submitted.trace_id]
    catalog.close()


OFF = """
import sys
from pathlib import Path
from catalog import tracing
from catalog.settings import Settings
from service.app import create_app
from workers import main
tracing.configure(Settings(home=Path("/nowhere")), "x")
with tracing.unit_span("a", "b") as span:
    assert span is None
print([name for name in sys.modules if name.startswith("opentelemetry.sdk") or "otlp" in name])
"""


def test_nothing_of_it_is_imported_while_no_endpoint_is_set() -> None:
    done = subprocess.run([sys.executable, "-c", OFF], capture_output=True, text=True, check=True, timeout=120)
    assert json.loads(done.stdout) == []


def test_an_endpoint_that_is_no_url_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="otlp_endpoint='collector:4318' must begin with http"):
        tracing.configure(Settings(home=tmp_path, otlp_endpoint="collector:4318"), "x")


def test_a_worker_whose_collector_is_away_works_and_stops(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path / "home")
    ask_ingest(catalog, write_files(tmp_path / "in", 1, 10))
    program = (
        "import os, time; from catalog import tracing; from catalog.database import Catalog;"
        "from catalog.settings import load_settings; from tests.workers.building import drain\n"
        "s = load_settings(); tracing.configure(s, 'x'); print(drain(Catalog(s)))\n"
        "began = time.monotonic(); tracing.shut_down(); print(time.monotonic() - began)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(catalog.settings.home, otlp_endpoint="http://127.0.0.1:1") | {"PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    outcomes, seconds = done.stdout.splitlines()
    assert set(json.loads(outcomes.replace("'", '"'))) == {"done"}
    assert float(seconds) < 2 * tracing.EXPORT_SECONDS
    catalog.close()
