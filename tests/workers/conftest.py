"""Real brokers: the embedded one, Redis from a wheel, RabbitMQ from the system."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import RedisServer, free_port, wait_for_port


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis server of this test process."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


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
