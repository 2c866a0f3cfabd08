"""A worker process refuses what it cannot work with, and leaves when its parent is gone."""

import os
import subprocess
import sys
from pathlib import Path

from catalog.database import Catalog
from tests.workers.test_determinism import make_catalog, settings_in_environment
from workers.runs import num_workers_alive


def run_worker(home: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "workers.main", *arguments],
        env=os.environ | {"WINNOW_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_worker_without_database_or_store_says_what_to_do(tmp_path: Path) -> None:
    ended = run_worker(tmp_path, "--name", "w")
    assert ended.returncode == 2
    assert "there is no database at" in ended.stderr
    assert "winnow init" in ended.stderr
    catalog = make_catalog(tmp_path)
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    ended = run_worker(tmp_path, "--name", "w")
    assert ended.returncode == 2
    assert "is not there; run `winnow init`" in ended.stderr
    catalog.close()


def test_a_worker_shows_life_and_leaves_with_its_parent(tmp_path: Path) -> None:
    catalog: Catalog = make_catalog(tmp_path / "home")
    assert num_workers_alive(catalog) == 0
    # This process is not its parent's parent: a PID that is nobody's stands for a parent that has died.
    ended = run_worker(catalog.settings.home, "--name", "orphan", "--parent", "999999999")
    assert ended.returncode == 0, ended.stderr
    worker = subprocess.Popen(
        [sys.executable, "-m", "workers.main", "--name", "w", "--parent", str(os.getpid())],
        env=os.environ | settings_in_environment(catalog),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(600):
            if num_workers_alive(catalog):
                break
            worker.poll()
            subprocess.run(["sleep", "0.1"], check=True)
        assert num_workers_alive(catalog) == 1
    finally:
        worker.terminate()
        worker.wait(60)
    assert worker.returncode == 0
    assert num_workers_alive(catalog) == 0
    catalog.close()
