"""Ctrl-C in the middle of a command: everything so far is kept, and the same command goes on from there."""

import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.cli import corpus
from tests.cli.command import TIMEOUT_SECONDS, Winnow
from tests.end_to_end.waiting import wait_until

pytestmark = pytest.mark.xdist_group("end_to_end")

NUM_SHARDS = 10


def make_home(home: Path, folder: Path) -> Winnow:
    """``tickets`` ingested, in so many shards that cleaning is many units."""
    winnow = Winnow(home, shard_rows=corpus.NUM_RECORDS // NUM_SHARDS, sweep_seconds=0.5, num_workers=2)
    winnow.ok("init")
    path = corpus.write_jsonl(folder / "tickets.jsonl", corpus.records())
    (folder / "tiny.yaml").write_text(corpus.RECIPE)
    winnow.ok("ingest", path, "--dataset", "tickets", "--text", "body", "--label", "queue")
    return winnow


def rows(home: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(f"file:{home / 'winnow.db'}?mode=ro", uri=True)) as database:
        return database.execute(query).fetchall()


def outcome(home: Path) -> dict[str, list[Any]]:
    """All that cleaning decided, without the ids of runs."""
    return {
        "manifests": rows(home, "SELECT kind, number, manifest_sha256, num_records, summary FROM versions ORDER BY 2"),
        "verdicts": rows(
            home, "SELECT record_id, kept, reason, failed, measured, scores FROM verdicts ORDER BY record_id"
        ),
        "pairs": rows(
            home,
            "SELECT record_id, keeper_id, kind, jaccard, bands_shared, accepted, rule "
            "FROM duplicate_pairs ORDER BY 1, 2",
        ),
    }


def num_done(home: Path) -> int:
    """Units of the cleaning run that are finished."""
    query = "SELECT count(*) FROM units JOIN runs ON runs.id = run_id WHERE kind = 'clean' AND units.state = 'done'"
    (count,) = rows(home, query)[0]
    return int(count)


def test_interrupted_clean_goes_on_and_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    undisturbed = make_home(tmp_path / "undisturbed", tmp_path)
    command = ["clean", "tickets", "--recipe", tmp_path / "tiny.yaml"]
    expected = undisturbed.ok(*command)
    disturbed = make_home(tmp_path / "disturbed", tmp_path)
    for at_least in (2, NUM_SHARDS + 3):
        process = disturbed.start(*command)
        assert wait_until(lambda: num_done(disturbed.home) >= at_least or process.poll() is not None)  # noqa: B023
        workers = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=TIMEOUT_SECONDS)
        assert process.returncode == 130, told
        assert "the same command goes on from there" in told
        assert "Traceback" not in told
        assert workers
        assert not any(one.is_running() for one in workers)
    kept = num_done(disturbed.home)
    assert NUM_SHARDS + 3 <= kept < 3 * NUM_SHARDS + 3
    assert rows(disturbed.home, "SELECT count(*) FROM versions WHERE kind = 'curated'") == [(0,)]
    finished = disturbed.ok(*command)
    assert {**finished, "run": ""} == {**expected, "run": ""}
    found = outcome(disturbed.home)
    assert len(found["verdicts"]) == corpus.NUM_RECORDS
    assert [kind for kind, *_ in found["manifests"]] == ["raw", "curated"]
    assert found == outcome(undisturbed.home)
    # Nothing was done twice: as many units as an undisturbed run has.
    assert num_done(disturbed.home) == num_done(undisturbed.home) == 3 * NUM_SHARDS + 3
