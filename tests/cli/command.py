"""The real ``winnow`` command in a process of its own, as a person or a program runs it.

Commands that run to their end are forked from one process that has imported them; those that are started are new.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.cli.forking import Forker

TIMEOUT_SECONDS = 240.0
"""Far above what any command takes: the machine may be busy."""


@dataclass(frozen=True, slots=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its one JSON document, with nothing else on stdout."""
        return json.loads(self.out)


@cache
def _forker() -> Forker:
    return Forker(Winnow(Path()).environment())


class Winnow:
    """Runs commands on one home folder.

    Parameters
    ----------
    home : need not exist.
    settings : further ``WINNOW_…`` variables, by setting name.
    """

    def __init__(self, home: Path, **settings: object) -> None:
        self.home = home
        self.settings = settings

    def environment(self, **settings: object) -> dict[str, str]:
        """The test's own environment without any setting but those given, and with Python's usual buffering."""
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("WINNOW_", "PYTHON", "COVERAGE"))
        }
        given = {"home": self.home, "sweep_seconds": 1} | self.settings | settings
        return kept | {f"WINNOW_{name.upper()}": str(value) for name, value in given.items()}

    def __call__(self, *arguments: str | Path, **settings: object) -> Done:
        """Run to the end. No command ends in a traceback, whatever it was given."""
        done = Done(*_forker().run([*map(str, arguments)], self.environment(**settings), TIMEOUT_SECONDS))
        assert "Traceback" not in done.err, done.err
        return done

    def ok(self, *arguments: str | Path, **settings: object) -> Any:
        """Run with ``--json``, to success; its answer. A program that reads is told nothing else."""
        done = self(*arguments, "--json", **settings)
        assert (done.code, done.err) == (0, ""), done.err
        return done.json

    def each(self, *commands: list[str]) -> list[Done]:
        """Run several commands, one after the other."""
        return [self(*command) for command in commands]

    def start(self, *arguments: str | Path, **settings: object) -> "subprocess.Popen[str]":
        """Start without waiting."""
        return subprocess.Popen(
            [sys.executable, "-m", "service.cli", *map(str, arguments)],
            env=self.environment(**settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
