"""Ctrl-C, SIGTERM and kill -9: nothing stays behind, and the same command goes on from where it was."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select

from catalog import migrate
from catalog.store import Store
from catalog.tables.curation import Verdict
from catalog.tables.datasets import Source, Version
from catalog.tables.engine import Run, Unit
from service.processes import bind
from tests.cli import corpus
from tests.cli.command import TIMEOUT_SECONDS, Done
from tests.cli.interruptions import (
    Terminal,
    done_units,
    end_of,
    press_ctrl_c,
    record_ids,
    strike_in_the_middle,
    wait_until,
)
from tests.workers.building import drain
from workers.pipelines.ingest import submit_ingest
from workers.runs import num_workers_alive

# For a machine that has much else to do; on a quiet one each takes seconds.
pytestmark = pytest.mark.timeout(900)

SHARD_ROWS = 40
NUM_FILES = 30
AT_LEAST = 3
"""Units that are done when the blow falls: enough to be kept, and so few that most are still to come."""


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Let commands take Ctrl-C even where this program must not: a script's ``&`` turns it off for all descendants."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def open_terminal(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """Make terminals on a fresh home with a database and tiny shards; what still runs after the test is killed."""
    opened: list[Terminal] = []

    def make(**settings: object) -> Terminal:
        terminal = Terminal(tmp_path / "home", shard_rows=SHARD_ROWS, **settings)
        opened.append(terminal)
        terminal.winnow.home.mkdir()
        migrate.upgrade(terminal.catalog)
        Store.of(terminal.catalog.settings).create()
        return terminal

    yield make
    for terminal in opened:
        terminal.close()


def ingest_tickets(terminal: Terminal, folder: Path) -> None:
    """The corpus as ``tickets``, by the engine in this process: quick, and no test of it."""
    path = corpus.write_jsonl(folder / "tickets.jsonl", corpus.records())
    submit_ingest(terminal.catalog, dataset="tickets", paths=[str(path)], text_column="body", label_column="queue")
    assert set(drain(terminal.catalog)) == {"done"}


def clean_command(folder: Path) -> list[str | Path]:
    recipe = folder / "tiny.yaml"
    recipe.write_text(corpus.RECIPE)
    return ["clean", "tickets", "--recipe", recipe]


def started_up(terminal: Terminal, *options: str) -> "tuple[subprocess.Popen[str], str, int]":
    """``winnow up`` with all its workers at work; the process, its URL and its port."""
    up = terminal.start("up", "--json", *options)
    assert up.stdout is not None
    # A service that does not come up ends the command, and with it this wait.
    told = up.stdout.readline()
    assert told, end_of(up).err
    url = json.loads(told)["url"]
    assert httpx.get(f"{url}/health", timeout=TIMEOUT_SECONDS).json() == {"status": "ok"}
    num_workers = terminal.catalog.settings.num_workers
    wait_until(lambda: num_workers_alive(terminal.catalog) == num_workers)
    assert len(terminal.processes()) == 2 + num_workers
    return up, url, int(url.rpartition(":")[2])


def assert_nothing_is_held(terminal: Terminal, url: str, port: int) -> None:
    """Neither the port nor the database's write lock."""
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health", timeout=TIMEOUT_SECONDS)
    bind("127.0.0.1", port).close()
    path = terminal.catalog.sqlite_path
    with path.with_name(f"{path.name}.lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def assert_interrupted(ended: Done) -> None:
    assert ended.code == 130, ended.err
    assert "interrupted; everything finished so far is kept" in ended.err
    assert "the same command goes on from there" in ended.err
    assert ended.out == ""


def assert_cleaned(terminal: Terminal) -> None:
    """One verdict a record, each planted record found, every unit done."""
    with terminal.catalog.read() as session:
        (run,) = session.scalars(select(Run).where(Run.kind == "clean"))
        verdicts = session.execute(select(Verdict.record_id, Verdict.reason).where(Verdict.run_id == run.id)).all()
        kinds = session.scalars(select(Version.kind).order_by(Version.number)).all()
    assert (run.state, kinds) == ("done", ["raw", "curated"])
    assert sorted(row.record_id for row in verdicts) == sorted(record_ids(terminal.catalog))
    assert Counter(row.reason for row in verdicts) == {
        None: corpus.NUM_PLAIN,
        "word_count": corpus.NUM_SHORT,
        "exact_duplicate": corpus.NUM_EXACT,
        "near_duplicate": corpus.NUM_NEAR,
    }


def attempts(terminal: Terminal) -> set[int]:
    with terminal.catalog.read() as session:
        return set(session.scalars(select(Unit.attempts)))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_up_answers_and_a_signal_ends_all_of_it(open_terminal: Callable[..., Terminal], how: signal.Signals) -> None:
    terminal = open_terminal(num_workers=2)
    up, url, port = started_up(terminal, "--port", "0")
    if how == signal.SIGINT:
        press_ctrl_c(up)
    else:
        up.send_signal(how)
    ended = end_of(up)
    assert (ended.code, ended.out) == (0, ""), ended.err
    # The command has waited for its children.
    assert terminal.processes() == []
    assert num_workers_alive(terminal.catalog) == 0
    assert_nothing_is_held(terminal, url, port)


def test_killed_up_takes_its_children_along_and_the_next_one_works(open_terminal: Callable[..., Terminal]) -> None:
    # Sweeps are rare here: nobody should notice the parent's end by them alone.
    terminal = open_terminal(num_workers=2, sweep_seconds=3600)
    up, url, port = started_up(terminal, "--port", "0")
    up.kill()
    assert end_of(up).code == -signal.SIGKILL
    wait_until(lambda: terminal.processes() == [])
    assert_nothing_is_held(terminal, url, port)
    assert num_workers_alive(terminal.catalog) == 0
    again, same_url, _ = started_up(terminal, "--port", str(port))
    assert same_url == url
    press_ctrl_c(again)
    assert end_of(again).code == 0
    assert terminal.processes() == []


def test_clean_goes_on_after_ctrl_c(open_terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    terminal = open_terminal(num_workers=1)
    ingest_tickets(terminal, tmp_path)
    command = clean_command(tmp_path)
    first = terminal.start(*command)
    strike_in_the_middle(terminal.catalog, "clean", AT_LEAST, lambda: press_ctrl_c(first))
    assert_interrupted(end_of(first))
    assert terminal.processes() == []
    kept = done_units(terminal.catalog, "clean")
    assert len(kept) >= AT_LEAST
    second = end_of(terminal.start(*command))
    assert second.code == 0, second.err
    assert_cleaned(terminal)
    done = done_units(terminal.catalog, "clean")
    assert {unit: done[unit] for unit in kept} == kept
    # A unit that was under way went back unharmed.
    assert attempts(terminal) == {1}


def test_clean_goes_on_after_kill_9(open_terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    terminal = open_terminal(num_workers=1)
    ingest_tickets(terminal, tmp_path)
    command = clean_command(tmp_path)
    first = terminal.start(*command)
    kept = strike_in_the_middle(terminal.catalog, "clean", AT_LEAST, first.kill)
    assert end_of(first).code == -signal.SIGKILL
    # Its workers notice, give back what they were at, and go.
    wait_until(lambda: terminal.processes() == [])
    with terminal.catalog.read() as session:
        assert session.scalars(select(Unit.id).where(Unit.state == "running")).all() == []
    second = end_of(terminal.start(*command))
    assert second.code == 0, second.err
    assert_cleaned(terminal)
    done = done_units(terminal.catalog, "clean")
    assert {unit: done[unit] for unit in kept} == kept
    assert attempts(terminal) == {1}
    assert terminal.processes() == []


def test_ingest_goes_on_after_ctrl_c(open_terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    terminal = open_terminal(num_workers=1)
    rows = corpus.records()
    parts = [rows[number::NUM_FILES] for number in range(NUM_FILES)]
    files = [corpus.write_jsonl(tmp_path / f"{number:03}.jsonl", part) for number, part in enumerate(parts)]
    command: list[str | Path] = ["ingest", *files, "--dataset", "tickets", "--text", "body", "--label", "queue"]
    first = terminal.start(*command)
    strike_in_the_middle(terminal.catalog, "ingest", AT_LEAST, lambda: press_ctrl_c(first))
    assert_interrupted(end_of(first))
    assert terminal.processes() == []
    kept = done_units(terminal.catalog, "ingest")
    assert AT_LEAST <= len(kept) <= NUM_FILES
    second = end_of(terminal.start(*command))
    assert second.code == 0, second.err
    assert f"{corpus.NUM_RECORDS} records in 'tickets' from {NUM_FILES} files" in second.err
    done = done_units(terminal.catalog, "ingest")
    assert len(done) == NUM_FILES + 1
    assert {unit: done[unit] for unit in kept} == kept
    with terminal.catalog.read() as session:
        assert sorted(session.scalars(select(Source.num_records))) == sorted(len(part) for part in parts)
    assert attempts(terminal) == {1}
    ids = record_ids(terminal.catalog)
    assert len(set(ids)) == len(ids) == corpus.NUM_RECORDS


def test_ctrl_c_while_something_is_imported_ends_with_the_status_of_every_other(tmp_path: Path) -> None:
    (tmp_path / "struck.py").write_text(
        "from service.cli.app import _interrupted\n"
        "try:\n    exec('raise KeyboardInterrupt')\nexcept KeyboardInterrupt:\n    _interrupted()\n"
    )
    path = os.pathsep.join((str(tmp_path), str(Path(__file__).parents[2])))
    done = subprocess.run(
        [sys.executable, "-m", "struck"], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 130, done.stderr
