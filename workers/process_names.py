"""Names of worker processes, by which others of their machine can tell whether they still live."""

import functools
import os
import socket
from pathlib import Path

import psutil


@functools.cache
def _pid_namespace() -> str:
    path = Path("/proc/self/ns/pid")
    return path.readlink().name if path.exists() else "host"


def this_process() -> str:
    """Name of this process that no later process can share: host, PID namespace, PID, start time."""
    return _own_name(os.getpid())


@functools.cache
def _own_name(pid: int) -> str:
    return name_of_process(pid)


def name_of_process(pid: int) -> str:
    """The same name of another process of this machine, which lives or has ended and not been asked how."""
    started, _ended = _start(pid)
    return f"{socket.gethostname()}/{_pid_namespace()}/{pid}/{started}"


def _start(pid: int) -> tuple[str, bool]:
    """When a process was started, by a clock that nobody sets, and whether it has ended since.

    By the time of day all processes would be others after every correction of the machine's clock.

    Raises
    ------
    psutil.NoSuchProcess : there is none.
    """
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        process = psutil.Process(pid)
        return f"{process.create_time():.2f}", process.status() == psutil.STATUS_ZOMBIE
    return fields[18], state == "Z"


def prefix_of_this_machine() -> str:
    """How the names of processes begin of which ``is_gone`` can tell."""
    return f"{socket.gethostname()}/{_pid_namespace()}/"


def is_gone(owner: str) -> bool:
    """Whether ``owner`` certainly lives no more: only ever True for a process of this machine."""
    host, namespace, pid, started = owner.rsplit("/", 3)
    if host != socket.gethostname() or namespace != _pid_namespace():
        return False
    try:
        return _start(int(pid)) != (started, False)
    except psutil.NoSuchProcess:
        return True
