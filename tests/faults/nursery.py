"""Forks programs of ours from one process that has imported them all: importing is most of a short program's time.

Reads orders, a JSON object a line, from stdin and tells what ended on stdout, likewise. Whatever still lives when stdin
ends is killed.

    {"start": NAME, "program": PROGRAM, "arguments": […], "environment": {…}, "log": PATH, "keep": true}
    {"signal": NAME, "number": N}          to the process that bears the name now
    {"stop": NAME, "number": N}            SIGKILL or another signal, and it is started no more

A program that is to be kept is started again whenever it ends, as ``winnow up`` does.
"""

import gc
import importlib
import json
import os
import select
import signal
import sys
import traceback
from dataclasses import dataclass, field
from typing import Any

# Before anything is imported that would start threads by itself: a fork copies none of them.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS"):
    os.environ[variable] = "1"

PROGRAMS = {
    "worker": "workers.main:main",
    "winnow": "service.cli.app:main",
    "serve": "tests.faults.acts:serve",
    "migrate": "tests.faults.acts:migrate",
    "cut_worker": "tests.faults.acts:cut_worker",
    "deaf_worker": "tests.faults.acts:deaf_worker",
    "take_back": "tests.faults.acts:take_back",
}
PRELOADED = (
    "adbc_driver_postgresql.dbapi", "alembic.command", "billiard.pool", "celery.app.amqp", "celery.app.control",
    "celery.app.events", "celery.app.log", "celery.app.routes", "celery.apps.worker", "celery.backends.base",
    "celery.bin.celery", "celery.bin.worker", "celery.concurrency.solo", "celery.events.receiver",
    "celery.fixups.django", "celery.worker.autoscale", "celery.worker.components", "celery.worker.consumer",
    "celery.worker.consumer.delayed_delivery", "celery.worker.strategy", "kombu.matcher", "kombu.pidbox",
    "kombu.transport.redis", "numpy", "polars", "psycopg", "pyarrow.parquet", "service.serve",
    "sqlalchemy.dialects.postgresql.psycopg", "sqlalchemy.dialects.sqlite", "tests.faults.judging",
    "uvicorn.lifespan.on", "uvicorn.protocols.http.h11_impl", "workers.execution", "workers.numbering",
)  # fmt: skip
CLEANING = (
    "curation.encoders.hashing", "curation.toxicity.model", "datasketch", "ftfy", "sklearn.feature_extraction.text",
)  # fmt: skip
"""What the units of a cleaning import besides; with the argument ``cleaning``."""
TICK_SECONDS = 0.005


@dataclass
class Child:
    """A program, and what has become of its processes."""

    order: dict[str, Any]
    pid: int
    keep: bool
    ends: list[int] = field(default_factory=list)


def fork(order: dict[str, Any]) -> int:
    """Start a program; its process id."""
    pid = os.fork()
    if pid:
        return pid
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(order["environment"])
    sys.argv = [order["program"], *order["arguments"]]
    module, _, function = PROGRAMS[order["program"]].partition(":")
    status = 1
    try:
        getattr(importlib.import_module(module), function)()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - whatever it is, it is told as a process would tell it
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


class Nursery:
    """All children by name."""

    def __init__(self) -> None:
        self.children: dict[str, Child] = {}

    def obey(self, order: dict[str, Any]) -> None:
        """Do one order."""
        if "start" in order:
            self.children[order["start"]] = Child(order, fork(order), order.get("keep", False))
        elif "signal" in order:
            os.kill(self.children[order["signal"]].pid, order["number"])
        else:
            child = self.children[order["stop"]]
            child.keep = False
            os.kill(child.pid, order.get("number", signal.SIGKILL))

    def reap(self) -> None:
        """See who has ended, and start again what is to be kept."""
        for name, child in list(self.children.items()):
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if not pid:
                continue
            child.ends.append(os.waitstatus_to_exitcode(status))
            if child.keep:
                child.pid = fork(child.order)
                continue
            del self.children[name]
            sys.stdout.write(json.dumps({"ended": name, "ends": child.ends}) + "\n")
            sys.stdout.flush()

    def close(self) -> None:
        """Kill whoever is left."""
        for child in self.children.values():
            os.kill(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)


def warm_up() -> None:
    """What a process that cleans loads and compiles at its first text; not polars: a fork does not copy its threads."""
    import numpy as np
    import polars as pl

    from curation import language
    from curation.dedup.rows import utf8
    from curation.difficulty import DIFFICULTY
    from curation.edits import EDITS
    from curation.language_kernels import score_rows
    from curation.rules import RULES
    from curation.rules.c4_kernels import c4_rows
    from curation.rules.columns import GROUPS
    from curation.rules.kernels import profile_rows
    from curation.rules.profile import KERNEL_GROUPS

    for registry in (RULES, EDITS, DIFFICULTY):
        registry.load()
    model, rows = language._model(), utf8(pl.Series(["A text."]))
    classes = np.zeros(sys.maxunicode + 1, np.uint16)
    classes.flags.writeable = False
    arrays = [np.empty((1, len(GROUPS[name]))) for name in KERNEL_GROUPS]
    profile_rows(rows.data, rows.offsets, 0, 1, classes, *arrays[:3])
    c4_rows(rows.data, rows.offsets, 0, 1, classes, arrays[3])
    score_rows(
        rows.data, rows.offsets, 0, 1, model.moves, model.bases, model.features, model.weights,
        language.UNIT, model.priors, model.aliases, np.zeros(1, np.int32), np.zeros(1),
    )  # fmt: skip


def main() -> None:
    """Obey until stdin ends."""
    cleaning = "cleaning" in sys.argv[1:]
    for module in (*(one.partition(":")[0] for one in PROGRAMS.values()), *PRELOADED, *(CLEANING if cleaning else ())):
        importlib.import_module(module)
    from curation.sources import READERS
    from tests.faults.judging import register
    from tests.forks import check_forkable
    from workers.pipelines import PIPELINES

    READERS.load()
    PIPELINES.load()
    register()
    if cleaning:
        warm_up()
    check_forkable()
    # Else each fork's first collection writes to, and thereby copies, all that has been imported.
    gc.freeze()
    sys.stdout.write(json.dumps({"ready": os.getpid()}) + "\n")
    sys.stdout.flush()
    nursery = Nursery()
    waiting = b""
    try:
        while True:
            readable, _, _ = select.select([0], [], [], TICK_SECONDS)
            if readable:
                read = os.read(0, 65_536)
                if not read:
                    return
                *lines, waiting = (waiting + read).split(b"\n")
                for line in lines:
                    nursery.obey(json.loads(line))
            nursery.reap()
    finally:
        nursery.close()


if __name__ == "__main__":
    main()
