"""The processes behind ``winnow up``: workers and the web service, started, watched, restarted, stopped."""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from catalog.database import Catalog
from catalog.errors import ConfigError, ServiceError, TransientError
from catalog.logs import readable
from catalog.settings import Settings
from service.address import host_names, local_url, service_url
from workers import engine, process_names
from workers.runs import num_workers_alive

STOP_SECONDS = 20.0
START_SECONDS = 60.0
ALONE_SECONDS = 10.0
"""So long must no worker be alive before a waiting command starts some: others may just be restarting theirs."""
RESTARTS_PER_MINUTE = 5

log = logging.getLogger(__name__)


@dataclass
class Process:
    """One child: how to start it, and what became of it."""

    name: str
    arguments: list[str]
    log: Path
    environment: dict[str, str]
    pass_fds: tuple[int, ...] = ()
    popen: "subprocess.Popen[bytes] | None" = None
    started: list[float] = field(default_factory=list)

    def start(self) -> None:
        """Start in a session of its own, so that Ctrl-C reaches only the supervisor, which stops it in order."""
        self.started.append(time.monotonic())
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(  # noqa: S603 - our own modules, no shell
                [sys.executable, *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                start_new_session=True,
                pass_fds=self.pass_fds,
            )

    def ended(self) -> int | None:
        """Exit status, or None while it runs."""
        return self.popen.poll() if self.popen is not None else None

    def last_words(self) -> str:
        """The end of its log, for an error message."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return " | ".join(readable(line) for line in lines[-3:]) or "it left no message"


class Supervisor:
    """Starts children, restarts the ones that die, stops all of them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.children: list[Process] = []
        self._logs = settings.home / "logs"
        self._logs.mkdir(parents=True, exist_ok=True)

    def _environment(self) -> dict[str, str]:
        """The settings in force, so that a child sees what its parent was given on the command line."""
        given = {
            f"WINNOW_{name.upper()}": str(value)
            for name, value in self.settings.model_dump().items()
            if value != "" and not isinstance(value, bool)
        }
        flags = {
            f"WINNOW_{name.upper()}": str(value).lower()
            for name, value in self.settings.model_dump().items()
            if isinstance(value, bool)
        }
        key = self.settings.pii_key
        secrets = {} if key is None else {"WINNOW_PII_KEY": key.get_secret_value()}
        return {**os.environ, **given, **flags, **secrets}

    def add_workers(self, count: int) -> None:
        """Start worker processes."""
        for number in range(1, count + 1):
            name = f"worker-{number}"
            arguments = ["-m", "workers.main", "--name", f"w{number}", "--parent", str(os.getpid())]
            self._add(Process(name, arguments, self._logs / f"{name}.log", self._environment()))

    def add_service(self, listener: socket.socket) -> None:
        """Start the web service on a socket that is already bound, so that its port is certain."""
        arguments = ["-m", "service.serve", "--fd", str(listener.fileno()), "--parent", str(os.getpid())]
        self._add(Process("service", arguments, self._logs / "service.log", self._environment(), (listener.fileno(),)))

    def _add(self, process: Process) -> None:
        self.children.append(process)
        process.start()

    def tend(self) -> list[str]:
        """Restart what died; return what happened, in words.

        Raises
        ------
        TransientError : a child dies again and again; the message ends with its last words.
        """
        happened = []
        for child in self.children:
            status = child.ended()
            if status is None:
                continue
            recent = [moment for moment in child.started if time.monotonic() - moment < 60]
            if len(recent) >= RESTARTS_PER_MINUTE:
                raise TransientError(f"{child.name} died {len(recent)} times in a minute; {child.last_words()}")
            happened.append(f"{child.name} ended with status {status}; started again")
            child.start()
        return happened

    def stop(self) -> None:
        """Ask every child to stop; running units go back unharmed. Kill what has not obeyed after a while."""
        living = [child for child in self.children if child.ended() is None]
        for child in living:
            assert child.popen is not None
            child.popen.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        for child in living:
            assert child.popen is not None
            try:
                child.popen.wait(timeout=max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                owner = process_names.name_of_process(child.popen.pid)
                child.popen.kill()
                child.popen.wait()
                self._take_back(owner)
        self.children.clear()

    def _take_back(self, owner: str) -> None:
        """The unit that could not stop in time is not to blame for our kill: three Ctrl-C would poison it."""
        catalog = Catalog(self.settings)
        try:
            engine.take_back(catalog, owner)
        except ServiceError as error:
            log.warning("units of %s stay charged with an attempt: %s", owner, error)
        finally:
            catalog.close()


def bind(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises
    ------
    ConfigError : the port is in use or not allowed, with what to do.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"port {port} on {host} cannot be used ({error.strerror}); "
            "stop what listens there, or choose another with --port or WINNOW_PORT"
        ) from error
    listener.listen(128)
    listener.set_inheritable(True)
    return listener


class TemporaryWorkers:
    """Sees to it that somebody works as long as a command waits: with workers of its own once nobody else does."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._own: Supervisor | None = None
        self._alone_since: float | None = None

    def start(self) -> str:
        """Start workers and wait until they are alive; what happened, in words.

        Raises
        ------
        TransientError : they ended at once or did not come up; the message has their last words.
        """
        self._own = Supervisor(self._catalog.settings)
        self._own.add_workers(self._catalog.settings.num_workers)
        _wait_until_alive(self._own, self._catalog)
        return f"no worker is running: {self._catalog.settings.num_workers} started for this command"

    def tend(self) -> list[str]:
        """Restart own workers that died; start some when the others have gone. What happened, in words.

        Raises
        ------
        TransientError : own workers die again and again, or do not come up.
        """
        if self._own is not None:
            return self._own.tend()
        if num_workers_alive(self._catalog) > 0:
            self._alone_since = None
            return []
        self._alone_since = self._alone_since or time.monotonic()
        return [self.start()] if time.monotonic() - self._alone_since >= ALONE_SECONDS else []

    @property
    def are_own(self) -> bool:
        """Whether the command started workers itself, which end with it."""
        return self._own is not None

    def stop(self) -> None:
        """Stop own workers; what they were at goes back unharmed."""
        if self._own is not None:
            self._own.stop()


@contextlib.contextmanager
def workers_for(catalog: Catalog, say: Callable[[str], None]) -> Iterator[TemporaryWorkers]:
    """Make sure somebody works: when no worker is alive, start some for the length of the body.

    Yields
    ------
    what the body must ``tend`` while it waits, since workers of others may leave at any time.
    """
    workers = TemporaryWorkers(catalog)
    try:
        if num_workers_alive(catalog) == 0:
            say(workers.start())
        yield workers
    finally:
        workers.stop()


def _wait_until_alive(supervisor: Supervisor, catalog: Catalog) -> None:
    deadline = time.monotonic() + START_SECONDS
    while num_workers_alive(catalog) == 0:
        for child in supervisor.children:
            if child.ended() is not None:
                raise TransientError(f"{child.name} ended at once; {child.last_words()}")
        if time.monotonic() > deadline:
            raise TransientError(f"no worker came up within {START_SECONDS:.0f} s; see {supervisor.children[0].log}")
        time.sleep(0.05)


@contextlib.contextmanager
def service_for(settings: Settings, token: str) -> Iterator[str]:
    """Make sure the web service answers with our database behind it; yield its base URL.

    A service on the configured port that does not know ``token`` is somebody else's, and is left alone.
    """
    if _answers(service_url(settings), token):
        yield service_url(settings)
        return
    listener = bind("127.0.0.1", 0)
    url = local_url("127.0.0.1", listener.getsockname()[1])
    # Behind a proxy only the proxy's name may be answered.
    supervisor = Supervisor(settings.model_copy(update={"allowed_hosts": f"127.0.0.1,{settings.allowed_hosts}"}))
    supervisor.add_service(listener)
    try:
        wait_until_healthy(supervisor, url)
        yield url
    finally:
        supervisor.stop()
        listener.close()


def _answers(url: str, token: str) -> bool:
    try:
        answer = httpx.get(f"{url}/api/v1/datasets", headers={"Authorization": f"Bearer {token}"}, timeout=2.0)
    except httpx.HTTPError:
        return False
    return answer.status_code == httpx.codes.OK


def wait_until_healthy(supervisor: Supervisor, url: str) -> None:
    """Wait for ``/health``.

    Raises
    ------
    TransientError : the service ended or did not answer in time; the message has its last words.
    """
    # By an allowed name: the address that we reach it at need not be one.
    headers = {"Host": host_names(supervisor.settings)[0]}
    answered = ""
    deadline = time.monotonic() + START_SECONDS
    (child,) = [one for one in supervisor.children if one.name == "service"]
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            answer = httpx.get(f"{url}/health", headers=headers, timeout=2.0)
            if answer.status_code == httpx.codes.OK:
                return
            answered = f"; last it answered {answer.status_code} to Host: {headers['Host']}"
        if child.ended() is not None:
            raise TransientError(f"the web service ended at once; {child.last_words()}")
        time.sleep(0.1)
    raise TransientError(
        f"the web service at {url} is not well after {START_SECONDS:.0f} s{answered}; {child.last_words()}"
    )
