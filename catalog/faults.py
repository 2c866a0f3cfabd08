"""Named places where a crash is rehearsed. Switched off, as they always are, each costs one look at a global.

Tests switch them on by the environment of a process, so that it kills itself, fails or stalls the n-th time that it
comes by. That is no setting on purpose: neither a file nor an option can do it, and whoever does is told at the start.
"""

import errno
import os
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from catalog.errors import ConfigError, nearest

SPEC = "FAULT_SPEC"
"""Environment variable: ``POINT=KIND@N``, comma separated: ``store.before_rename=kill@3,work.before=stall:0.5@1``."""
FOLDER = "FAULT_FOLDER"
"""Environment variable: a folder shared by processes, in which each fault that has struck leaves a file and rests."""

POINTS: Mapping[str, str] = {
    "submit.before_commit": "a new run, its first units and their messages are written, not committed",
    "submit.after_commit": "a run is asked for; its messages are in the outbox and not sent",
    "resume.before_commit": "an ended run is set going again, not committed",
    "cancel.before_commit": "a running run is ended, not committed",
    "outbox.before_send": "a committed message is about to be handed to the broker",
    "outbox.after_send": "the broker has a message that the outbox still holds",
    "outbox.after_mark": "a message that the broker has is gone from the outbox",
    "message.taken": "the broker has forgotten a message that nobody has acted on",
    "claim.before_commit": "a unit is claimed, not committed",
    "claim.after_commit": "a unit is ours, and nothing is done",
    "work.before": "a unit's heart beats, and its work has not begun",
    "work.after": "a unit's work is done, and nothing of it is committed",
    "heartbeat.before": "a lease is about to be renewed",
    "heartbeat.after": "a lease was renewed",
    "store.before_write": "a file's bytes are ready, and nothing is on disk",
    "store.half_written": "half of a file's bytes lie aside",
    "store.before_rename": "a file lies aside, whole and flushed",
    "store.after_rename": "a file has its name, and the folder is not flushed",
    "store.after_write": "a file is in the store, and nobody knows of it",
    "publish.before_manifest": "a version's shards are in the store, its manifest is not",
    "publish.after_manifest": "a version's manifest is in the store, its row is not written",
    "publish.before_row": "a version is about to become visible, in the transaction that ends its run",
    "publish.after_row": "a version's row is written, not committed",
    "commit.before": "a unit's results are about to be committed",
    "commit.inside": "a unit is done and its results are written, and what follows is not planned",
    "commit.before_end": "all that a unit's end brings is written, not committed",
    "commit.after": "a unit's end is committed, and no message of it is sent",
    "advance.before_plan": "a run has a new stage without units",
    "advance.after_plan": "the units of a new stage and their messages are written",
    "advance.end": "a run's last stage is done, and its end is not committed",
    "fail.before_commit": "a unit's failure is written, not committed",
    "poison.before_commit": "a unit has failed for good and its run with it, not committed",
    "take_back.before_commit": "what a killed worker held is given back by who killed it, not committed",
    "give_back.before_commit": "a unit is given back because its worker must stop, not committed",
    "sweep.before": "a sweep is about to look for what crashes left",
    "sweep.inside": "what a sweep repairs is written, not committed",
    "sweep.after": "what a sweep has repaired is committed, and its messages are not sent",
    "fire.before_commit": "a time of a schedule is written down, not committed",
    "fire.before_record": "a schedule's job is asked for, and its history does not say so",
    "request.before_record": "a job that waited is asked for, and its request does not say so",
    "webhook.after_send": "a webhook was received, and nobody has noted it",
    "migrate.before": "the schema is locked, and no revision has run",
    "migrate.revision": "a revision has run, and nothing is committed; once for each",
    "migrate.before_commit": "every revision has run, and nothing is committed",
    "migrate.after_commit": "the schema is the newest, and the command has not said so",
    "annotation.before_commit": "an answer is written, not committed",
    "annotation.after_commit": "an answer is kept, and the annotator has not heard of it",
}
"""Every point and what is true there. Names are looked for in the code and in the tests; both must have each."""

KINDS = ("kill", "raise", "enospc", "stall")
_SPEC = re.compile(r"(?P<point>[a-z_.]+)=(?P<kind>[a-z]+)(:(?P<seconds>\d+(\.\d+)?))?(@(?P<nth>[1-9]\d*))?")


class InjectedError(Exception):
    """A failure that nobody foresaw, made on purpose."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """What happens at a point.

    Parameters
    ----------
    point : a name of ``POINTS``.
    kind : ``kill`` (SIGKILL to this process), ``raise``, ``enospc`` (the disk is full), ``stall``.
    nth : at which time that one process comes by, from 1.
    seconds : how long it stalls.
    """

    point: str
    kind: str
    nth: int = 1
    seconds: float = 0.0

    @property
    def token(self) -> str:
        """Name of the file that it leaves."""
        return f"{self.point}={self.kind}@{self.nth}"


class Armed:
    """The faults of this process, and how often each point was reached.

    Parameters
    ----------
    folder : shared with other processes: each fault strikes in one of them alone. None: in each.
    """

    def __init__(self, faults: Sequence[Fault], folder: Path | None) -> None:
        self._faults = faults
        self._folder = folder
        self._reached: Counter[str] = Counter()
        self._lock = threading.Lock()

    def reach(self, point: str) -> None:
        """Count, and strike if it is time."""
        assert point in POINTS, point
        with self._lock:
            self._reached[point] += 1
            due = [one for one in self._faults if (one.point, one.nth) == (point, self._reached[point])]
        for fault in due:
            if self._is_first(fault):
                strike(fault)

    def _is_first(self, fault: Fault) -> bool:
        if self._folder is None:
            return True
        try:
            with (self._folder / fault.token).open("x") as file:
                file.write(str(os.getpid()))
        except FileExistsError:
            return False
        return True


_armed: Armed | None = None


def fault(point: str) -> None:
    """Pass a named point."""
    if _armed is not None:
        _armed.reach(point)


def strike(fault: Fault) -> None:
    """Do what a fault does.

    Raises
    ------
    InjectedError, OSError : that is what it does.
    """
    if fault.kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault.kind == "raise":
        raise InjectedError(f"injected at {fault.point}")
    elif fault.kind == "enospc":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    else:
        time.sleep(fault.seconds)


def parse(spec: str) -> list[Fault]:
    """Faults from their short form.

    Raises
    ------
    ConfigError : it has another form, or names no point or kind.

    >>> parse("store.before_rename=kill@3")
    [Fault(point='store.before_rename', kind='kill', nth=3, seconds=0.0)]
    """
    faults = []
    for part in spec.split(","):
        found = _SPEC.fullmatch(part.strip())
        if found is None:
            raise ConfigError(f"{SPEC}: {part!r} must be POINT=KIND@N, e.g. store.before_rename=kill@3")
        point, kind = found["point"], found["kind"]
        if point not in POINTS:
            raise ConfigError(f"{SPEC}: there is no point {point!r}; {nearest(point, POINTS)}")
        if kind not in KINDS:
            raise ConfigError(f"{SPEC}: there is no kind {kind!r}; {nearest(kind, KINDS)}")
        if (kind == "stall") != (found["seconds"] is not None):
            raise ConfigError(f"{SPEC}: {part!r}: stall, and nothing else, needs seconds: stall:0.5@1")
        faults.append(Fault(point=point, kind=kind, nth=int(found["nth"] or 1), seconds=float(found["seconds"] or 0.0)))
    return faults


def arm(faults: Sequence[Fault], folder: Path | None = None) -> None:
    """Switch faults on in this process; none switches all off."""
    global _armed
    _armed = Armed(faults, folder) if faults else None


def arm_from_environment() -> None:
    """Switch on what the environment asks for; the first act of every program of ours.

    Raises
    ------
    ConfigError : the specification cannot be understood.
    """
    spec = os.environ.get(SPEC)
    if not spec:
        return
    folder = os.environ.get(FOLDER)
    sys.stderr.write(f"faults are injected into this process: {spec}\n")
    arm(parse(spec), Path(folder) if folder else None)
