"""Log lines of a real worker and a real web service: JSON that says what it belongs to, or for people; no secret."""

import io
import json
import logging
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from catalog import logs
from catalog.database import Catalog
from catalog.settings import Settings
from catalog.tables.engine import Run, Unit, UnitLog
from tests.workers.corpus import write_files
from tests.workers.test_determinism import ask_ingest, make_catalog
from workers import engine, process_names
from workers.app import make_app, relay
from workers.execution import _record_failure
from workers.unit_log import unit_log

TOKEN = "wnw_0123456789abcdef_" + "k" * 43
SECRETS = {
    "our token": (f"login with {TOKEN}", "k" * 43),
    "any bearer": ("Authorization: Bearer eyJhbGciOiJIUzI1", "eyJhbGciOiJIUzI1"),
    "password of a URL": ("postgresql+psycopg://winnow:p%40ss@db/winnow", "p%40ss"),
    "password of a DSN": ("connection failed: host=db password=hunter2pass", "hunter2pass"),
    "pii_key": ("key is correct-horse-battery", "correct-horse-battery"),
    "the broker's password, alone": ("login refused for tr0ub4dor", "tr0ub4dor"),
}


def environment(home: Path, **settings: object) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WINNOW_")}
    given = {"home": home, "shard_rows": 20, "sweep_seconds": 0.3} | settings
    return kept | {f"WINNOW_{name.upper()}": str(value) for name, value in given.items()}


@pytest.fixture
def logged() -> Any:
    """Configure logging on a stream of the test's own, and put back what was there."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level, sys.excepthook)
    levels = {name: logging.getLogger(name).level for name in logs.OURS}
    stream = io.StringIO()

    def start(settings: Settings, **options: Any) -> io.StringIO:
        logs.configure(settings, stream=stream, **options)
        return stream

    yield start
    root.handlers[:], root.level, sys.excepthook = before
    logging.captureWarnings(capture=False)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_no_secret_is_in_a_line_whether_told_or_raised(name: str, tmp_path: Path, logged: Any) -> None:
    told, secret = SECRETS[name]
    stream = logged(
        Settings(home=tmp_path, broker_url="amqp://me:tr0ub4dor@queue//", pii_key="correct-horse-battery"), worker="w1"
    )
    log = logging.getLogger("workers.anything")
    log.warning("refused: %s", told)
    with logs.log_context(run_id=told):
        try:
            raise RuntimeError(told)
        except RuntimeError:
            log.exception("failed")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(one["level"], one["worker"]) for one in lines] == [("warning", "w1"), ("error", "w1")]
    assert secret not in stream.getvalue()
    assert stream.getvalue().count(logs.HIDDEN) >= 3
    assert "RuntimeError" in lines[1]["exception"]


def test_no_secret_is_in_what_is_kept_with_a_unit(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path / "home")
    ask_ingest(catalog, write_files(tmp_path / "in", 1, 10))
    with catalog.read() as session:
        unit_id = session.scalars(select(Unit.id)).first()
    assert unit_id is not None
    mine = engine.take(catalog, unit_id, process_names.this_process())
    assert mine is not None
    with unit_log(catalog, mine):
        logging.getLogger("workers.anything").warning("refused: %s", TOKEN)
    _record_failure(catalog, mine, f"no answer from redis://me:hunter2pass@queue/0 for {TOKEN}", retry=False)
    with catalog.read() as session:
        told = [
            *session.scalars(select(UnitLog.message)),
            *session.scalars(select(Unit.reason)),
            *session.scalars(select(Run.reason)),
        ]
    assert [one.count(logs.HIDDEN) for one in told if one] == [1, 2, 2]
    assert not any("hunter2pass" in one or "k" * 43 in one for one in told if one)
    catalog.close()


def test_level_is_of_our_own_lines_and_an_uncaught_error_is_a_line_too(tmp_path: Path, logged: Any) -> None:
    stream = logged(Settings(home=tmp_path, log_level="info"))
    for name in ("workers.engine", "sqlalchemy.engine"):
        logging.getLogger(name).debug("nobody")
        logging.getLogger(name).info("of %s", name)
    sys.excepthook(ValueError, ValueError("boom"), None)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [one["message"] for one in lines] == ["of workers.engine", "uncaught: boom"]
    assert lines[0]["time"].endswith("Z")


def test_a_worker_writes_json_that_names_run_unit_and_stage_of_what_happens_inside(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path / "home")
    run_id = ask_ingest(catalog, write_files(tmp_path / "in", 1, 60))
    relay(catalog, make_app(catalog.settings))
    broken = _break_one_unit(catalog)
    worker = subprocess.Popen(
        [sys.executable, "-m", "workers.main", "--name", "w7"],
        env=environment(catalog.settings.home),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    _wait_until(lambda: _num_units(catalog, "poisoned") == 1)
    worker.send_signal(signal.SIGTERM)
    out, err = worker.communicate(timeout=60)
    # `winnow up` has both in one file.
    assert out == b""
    lines = [json.loads(line) for line in err.decode().splitlines()]
    assert [one for one in lines if one["level"] == "warning"] == []
    assert worker.returncode == 0
    assert {one["worker"] for one in lines} == {"w7"}
    assert lines[0]["message"].startswith("worker ")
    inside = [one for one in lines if one.get("unit_id") == broken]
    assert {one["run_id"] for one in inside} == {run_id}
    assert {one["stage"] for one in inside} == {"parse"}
    failed = next(one for one in inside if one["level"] == "error")
    assert "KeyError" in failed["exception"]
    assert any("unit failed after" in one["message"] for one in inside)
    catalog.close()


def _break_one_unit(catalog: Catalog) -> str:
    with catalog.write() as session:
        unit = session.scalars(select(Unit)).first()
        assert unit is not None
        unit.payload = {}
        return unit.id


def _num_units(catalog: Catalog, state: str) -> int:
    with catalog.read() as session:
        return session.scalar(select(func.count()).select_from(Unit).where(Unit.state == state)) or 0


def _wait_until(happened: Any, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_the_web_server_complains_of_is_a_json_line(tmp_path: Path) -> None:
    make_catalog(tmp_path).close()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.set_inheritable(True)
    service = subprocess.Popen(
        [sys.executable, "-m", "service.serve", "--fd", str(listener.fileno())],
        env=environment(tmp_path),
        stderr=subprocess.PIPE,
        pass_fds=(listener.fileno(),),
    )
    with socket.create_connection(listener.getsockname()) as client:
        client.sendall(b"\x16\x03\x01 no HTTP\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 400")
    service.send_signal(signal.SIGTERM)
    lines = [json.loads(line) for line in service.communicate(timeout=60)[1].decode().splitlines()]
    listener.close()
    assert [(one["logger"], one["level"], one["worker"]) for one in lines] == [("uvicorn.error", "warning", "service")]
    assert "Invalid HTTP request" in lines[0]["message"]


def test_on_a_terminal_lines_are_for_people_and_obey_no_control_character(tmp_path: Path) -> None:
    program = (
        "import logging; from pathlib import Path; from catalog import logs; from catalog.settings import Settings\n"
        f"logs.configure(Settings(home=Path({str(tmp_path)!r})), worker='w1')\n"
        "with logs.log_context(run_id='r1', unit_id='u1', stage='parse'):\n"
        "    logging.getLogger('workers.x').info('half \\x1b[2J done 완료')\n"
    )
    ours, theirs = pty.openpty()
    ended = subprocess.run([sys.executable, "-c", program], stderr=theirs, check=False, timeout=60)
    assert ended.returncode == 0
    line = os.read(ours, 10_000).decode().strip()
    os.close(ours)
    os.close(theirs)
    assert line.endswith("info     workers.x: half \ufffd[2J done 완료  [worker=w1 run_id=r1 unit_id=u1 stage=parse]")
