"""Runs commands, each in a process forked from one that has imported them: importing is most of their time.

As a program it listens on a Unix socket, and ends with its standard input. A request is a line of JSON with
``arguments``, ``environment`` and ``folder``; its reply is ``[exit status, stdout, stderr]``. Any number of commands
run at once.
"""

import atexit
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import Any

from curation.difficulty import DIFFICULTY
from curation.encoders import ENCODERS
from curation.rules import RULES
from curation.sources import READERS
from labeling.strategies import STRATEGIES
from labeling.tasks import TASKS
from service.cli import main
from tests.forks import check_forkable
from workers.pipelines import PIPELINES

PRELOADED = (
    "alembic.command",
    "celery.app.task",
    "kombu.messaging",
    "ftfy",
    "polars",
    "pyarrow.parquet",
    "service.cli.app",
    "sqlalchemy.dialects.sqlite",
    "workers.app",
)
"""What most commands import besides, each when it needs it."""
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Else libraries start threads when they are imported, and a fork copies none."""


class Forker:
    """The program, as its client sees it: started with the first command, gone with this process."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="winnow-fork-")
        self._address = str(Path(self._folder.name) / "socket")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.cli.forking", self._address],
            env=environment | ONE_THREAD,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"
        atexit.register(self._close)

    def run(self, arguments: list[str], environment: dict[str, str], seconds: float) -> tuple[int, str, str]:
        """One command to its end.

        Raises
        ------
        TimeoutError : it took longer.
        """
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(seconds)
            connection.connect(self._address)
            request = {"arguments": arguments, "environment": environment, "folder": str(Path.cwd())}
            with connection.makefile("rw", encoding="utf-8") as stream:
                stream.write(json.dumps(request) + "\n")
                stream.flush()
                code, out, err = json.loads(stream.readline())
                return code, out, err

    def _close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._folder.cleanup()


def serve(address: str) -> None:
    """Answer until standard input ends."""
    for module in PRELOADED:
        importlib.import_module(module)
    for registry in (DIFFICULTY, ENCODERS, PIPELINES, READERS, RULES, STRATEGIES, TASKS):
        registry.load()
    check_forkable()
    # Else each fork's first collection writes to, and thereby copies, all that has been imported.
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(64)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            readable, _, _ = select.select([listener, sys.stdin], [], [])
            if sys.stdin in readable:
                return
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _answer(connection)
                os._exit(0)
            connection.close()


def _answer(connection: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with connection, connection.makefile("rw", encoding="utf-8") as stream:
        reply = _run(json.loads(stream.readline()))
        stream.write(json.dumps(reply) + "\n")


def _run(request: dict[str, Any]) -> tuple[int, str, str]:
    """One command, with files instead of terminals."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            nothing = os.open(os.devnull, os.O_RDONLY)
            for mine, its in ((nothing, sys.stdin), (out.fileno(), sys.stdout), (err.fileno(), sys.stderr)):
                os.dup2(mine, its.fileno())
            # All that this process has open besides was opened for others.
            os.closerange(3, 256)
            os.environ.clear()
            os.environ.update(request["environment"])
            os.chdir(request["folder"])
            os._exit(_status(request["arguments"]))
        _, status = os.waitpid(child, 0)
        out.seek(0)
        err.seek(0)
        return os.waitstatus_to_exitcode(status), out.read().decode(), err.read().decode(errors="backslashreplace")


def _status(arguments: list[str]) -> int:
    sys.argv = ["winnow", *arguments]
    status = 1
    try:
        main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0
    except BaseException:  # noqa: BLE001 - whatever it is, it is told as a process would tell it
        traceback.print_exc()
    # As the interpreter does at its end.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return status


if __name__ == "__main__":
    serve(sys.argv[1])
