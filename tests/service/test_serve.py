"""The web service as a program of its own, as a container starts it."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx

from tests.servers import free_port

START_SECONDS = 60.0


def test_service_serves_on_the_configured_port_and_ends_when_told(tmp_path: Path) -> None:
    port = free_port()
    environment = os.environ | {"WINNOW_HOME": str(tmp_path), "WINNOW_PORT": str(port)}
    with subprocess.Popen([sys.executable, "-m", "service.serve"], env=environment) as server:
        try:
            deadline = time.monotonic() + START_SECONDS
            while True:
                try:
                    answer = httpx.get(f"http://127.0.0.1:{port}/health", timeout=2.0)
                except httpx.ConnectError:
                    assert server.poll() is None
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
                else:
                    break
            # Nobody made a database there, and it says so rather than serve.
            assert answer.status_code in (httpx.codes.OK, httpx.codes.SERVICE_UNAVAILABLE)
        finally:
            server.terminate()
        # In order: every answer was given, every trace sent.
        assert server.wait(20) == 0


def test_port_in_use_is_said_and_misused(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        environment = os.environ | {"WINNOW_HOME": str(tmp_path), "WINNOW_PORT": str(taken.getsockname()[1])}
        ran = subprocess.run(
            [sys.executable, "-m", "service.serve"], env=environment, capture_output=True, text=True, check=False
        )
    assert ran.returncode == 2
    assert "cannot be used (Address already in use); stop what listens there" in ran.stderr
