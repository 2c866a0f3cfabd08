"""A command that waits for the workers of others does not wait for ever once they have left."""

import subprocess
import sys
from pathlib import Path

import pytest

from catalog.database import Catalog
from catalog.settings import Settings
from catalog.tables.engine import Worker
from tests.cli import corpus
from tests.cli.command import TIMEOUT_SECONDS, Winnow
from workers import process_names


@pytest.mark.slow
def test_command_whose_workers_left_goes_on_with_its_own(fresh: Winnow, tmp_path: Path) -> None:
    fresh.ok("init")
    path = corpus.write_jsonl(tmp_path / "a.jsonl", corpus.records()[:5])
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        catalog = Catalog(Settings(home=fresh.home))
        with catalog.write() as session:
            now = catalog.now(session)
            session.add(
                Worker(name=process_names.name_of_process(other.pid), pid=other.pid, started_at=now, seen_at=now)
            )
        catalog.close()
        command = fresh.start("ingest", path, "--dataset", "tickets", "--text", "body", num_workers=1)
        assert command.stderr is not None
        seen = command.stderr.readline()
        while seen and "ingest 1/" not in seen:
            seen = command.stderr.readline()
    finally:
        other.kill()
        other.wait()
    try:
        _, told = command.communicate(timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        command.kill()
        raise
    assert command.returncode == 0
    assert "no worker is running: 1 started for this command" in told
    assert "5 records in 'tickets'" in told
