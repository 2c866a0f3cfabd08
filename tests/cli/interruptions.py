"""Commands to interrupt, each in the foreground of a terminal of its own, and what the database says meanwhile."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import select

from catalog.database import Catalog
from catalog.settings import Settings
from catalog.store import Store, StoredFile
from catalog.tables.datasets import Version
from catalog.tables.engine import Run, Unit
from tests.cli.command import TIMEOUT_SECONDS, Done, Winnow
from workers import manifests

Units = dict[tuple[int, int], tuple[Any, ...]]
"""Finished units, by stage and position, with all that a second try would change."""


class Terminal:
    """One home folder, and the commands a person starts on it.

    Parameters
    ----------
    home : of this test alone: every process that was given it was started by this test.
    settings : further ``WINNOW_…`` variables, by setting name.
    """

    def __init__(self, home: Path, **settings: Any) -> None:
        self.winnow = Winnow(home, **settings)
        self.catalog = Catalog(Settings(home=home, **settings))
        self._started: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str | Path) -> "subprocess.Popen[str]":
        """Start without waiting, in a process group of its own, as a shell does."""
        process = subprocess.Popen(
            [sys.executable, "-m", "service.cli", *map(str, arguments)],
            env=self.winnow.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        self._started.append(process)
        return process

    def processes(self) -> list[psutil.Process]:
        """Everything that lives on this home: commands, services, workers, with or without a parent."""
        found = []
        for one in psutil.process_iter():
            try:
                if one.environ().get("WINNOW_HOME") == str(self.winnow.home) and one.status() != psutil.STATUS_ZOMBIE:
                    found.append(one)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def close(self) -> None:
        """Kill whatever is left, commands first: they would start others."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.communicate(timeout=TIMEOUT_SECONDS)
        for one in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        self.catalog.close()


def press_ctrl_c(process: "subprocess.Popen[str]") -> None:
    """What a terminal does: the signal goes to the whole group in the foreground."""
    os.killpg(process.pid, signal.SIGINT)


def end_of(process: "subprocess.Popen[str]") -> Done:
    """Wait for a command's end. None ends in a traceback."""
    out, err = process.communicate(timeout=TIMEOUT_SECONDS)
    assert "Traceback" not in err, err
    return Done(process.returncode, out, err)


def wait_until(holds: Callable[[], object]) -> None:
    """Wait until something holds, far longer than it should take."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"not within {TIMEOUT_SECONDS:.0f} s"
        time.sleep(0.02)


def done_units(catalog: Catalog, kind: str) -> Units:
    """The finished units of the home's one run of a kind."""
    query = (
        select(Unit.stage, Unit.position, Unit.epoch, Unit.attempts, Unit.owner, Unit.started_at, Unit.finished_at)
        .join(Run, Run.id == Unit.run_id)
        .where(Run.kind == kind, Unit.state == "done")
    )
    with catalog.read() as session:
        return {(row.stage, row.position): tuple(row) for row in session.execute(query)}


def strike_in_the_middle(catalog: Catalog, kind: str, at_least: int, strike: Callable[[], None]) -> Units:
    """Call ``strike`` when so many units are done; return those. It certainly lands before the end of the run.

    That is seen under the write lock, which is held until the blow has fallen: meanwhile no worker commits anything.
    """
    wait_until(lambda: len(done_units(catalog, kind)) >= at_least)
    with catalog.write() as session:
        state = session.scalars(select(Run.state).where(Run.kind == kind)).one()
        assert state == "running", "the run was over before it could be interrupted: give it more units"
        done = done_units(catalog, kind)
        strike()
    return done


def record_ids(catalog: Catalog) -> list[str]:
    """The id of every record of the home's one raw version, in the manifest's order."""
    store = Store.of(catalog.settings)
    with catalog.read() as session:
        version = session.scalars(select(Version).where(Version.kind == "raw")).one()
    shards = [StoredFile.from_json(entry["data"]) for entry in manifests.read(store, version)["shards"]]
    return [record for shard in shards for record in store.read_frame(shard, ["id"])["id"]]
