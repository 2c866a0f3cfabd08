"""``winnow up`` really started: it serves, it mends itself, and it leaves nothing behind however it ends."""

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from tests.cli import corpus
from tests.cli.command import TIMEOUT_SECONDS, Winnow
from tests.end_to_end.waiting import PATIENCE_SECONDS, wait_until

pytestmark = pytest.mark.xdist_group("end_to_end")

STOP_SECONDS = 25.0


@dataclass(frozen=True, kw_only=True)
class Up:
    """A started ``winnow up``."""

    winnow: Winnow
    process: "subprocess.Popen[str]"
    url: str
    token: str

    def children(self) -> list[psutil.Process]:
        """The service and the workers, with whatever they started."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def workers(self) -> list[psutil.Process]:
        return [one for one in self.children() if "workers.main" in one.cmdline()]

    def page(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", timeout=PATIENCE_SECONDS)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Up]]:
    """Start ``winnow up`` on a fresh home; whatever is left of it after the test is killed."""
    started: list[Up] = []
    left: list[psutil.Process] = []

    def begin() -> Up:
        winnow = Winnow(tmp_path / "home", sweep_seconds=0.5, num_workers=2)
        token = winnow.ok("init")["token"]
        process = winnow.start("up", "--port", "0", "--json")
        assert process.stdout is not None
        told = process.stdout.readline()
        assert told, process.communicate(timeout=TIMEOUT_SECONDS)[1]
        answer = json.loads(told)
        assert (answer["workers"], answer["home"]) == (2, str(winnow.home))
        up = Up(winnow=winnow, process=process, url=answer["url"], token=token)
        assert wait_until(lambda: len(up.workers()) == 2)
        started.append(up)
        left.extend(up.children())
        return up

    yield begin
    for up in started:
        if up.process.poll() is None:
            left.extend(up.children())
            up.process.kill()
        up.process.communicate(timeout=TIMEOUT_SECONDS)
    for one in left:
        if one.is_running():
            one.kill()


def are_gone(processes: list[psutil.Process], seconds: float) -> bool:
    """Whether all have ended in time. A zombie whose parent has yet to look has ended."""
    return wait_until(
        lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in processes), seconds
    )


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_pages_answer_and_a_signal_stops_everything(start: Callable[[], Up], how: signal.Signals) -> None:
    up = start()
    assert up.page("/health").json() == {"status": "ok"}
    assert "Winnow" in up.page("/login").text
    assert up.page("/api/v1/datasets").status_code == 401
    allowed = httpx.get(
        f"{up.url}/api/v1/datasets", headers={"Authorization": f"Bearer {up.token}"}, timeout=PATIENCE_SECONDS
    )
    assert allowed.status_code == 200
    children = up.children()
    assert len(children) == 3
    up.process.send_signal(how)
    assert up.process.wait(STOP_SECONDS) == 0
    assert are_gone(children, 0)
    with pytest.raises(httpx.ConnectError):
        up.page("/health")


def test_service_and_workers_end_by_themselves_when_their_parent_is_killed(start: Callable[[], Up]) -> None:
    up = start()
    children = up.children()
    up.process.kill()
    up.process.wait(PATIENCE_SECONDS)
    assert are_gone(children, PATIENCE_SECONDS)
    # Nothing they held stands in the way of the next one.
    assert start().page("/health").status_code == 200


def test_killed_worker_is_restarted_and_queued_work_is_done(start: Callable[[], Up], tmp_path: Path) -> None:
    up = start()
    victims = up.workers()
    for one in victims:
        one.kill()
    assert wait_until(lambda: len({one.pid for one in up.workers()} - {one.pid for one in victims}) == 2)
    path = corpus.write_jsonl(tmp_path / "tickets.jsonl", corpus.records()[:50])
    assert up.winnow.ok("ingest", path, "--dataset", "tickets", "--text", "body")["records"] == 50
    up.process.send_signal(signal.SIGINT)
    _, told = up.process.communicate(timeout=TIMEOUT_SECONDS)
    for number in (1, 2):
        assert f"worker-{number} ended with status -9; started again" in told
    assert "no worker is running" not in told


def test_detached_run_waits_for_workers_and_is_done_by_them(start: Callable[[], Up], tmp_path: Path) -> None:
    winnow = Winnow(tmp_path / "home", sweep_seconds=0.5, num_workers=2)
    winnow.ok("init")
    path = corpus.write_jsonl(tmp_path / "tickets.jsonl", corpus.records()[:50])
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(corpus.RECIPE)
    # No worker runs: this command brings its own, and takes them away again.
    ingested = winnow("ingest", path, "--dataset", "tickets", "--text", "body")
    assert ingested.code == 0
    assert "2 started for this command" in ingested.err
    asked = winnow("clean", "tickets", "--recipe", recipe, "--detach")
    assert asked.code == 0
    assert "start them with `winnow up`" in asked.err
    process = winnow.start("up", "--port", "0")
    try:
        assert wait_until(lambda: winnow.ok("runs")[0]["state"] != "running")
        assert next((one["run"], one["state"]) for one in winnow.ok("runs")) == (asked.out.strip()[:8], "done")
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=TIMEOUT_SECONDS)
