"""``winnow up`` on every address that it may be given, and what it leaves for other commands while it is up."""

import contextlib
import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cli.command import TIMEOUT_SECONDS, Winnow

PROXIED = {"host": "0.0.0.0", "behind_proxy": "true"}


@contextmanager
def running(winnow: Winnow, **settings: object) -> Iterator[str]:
    """``winnow up`` on a free port; its URL. It stops with status 0 when asked to."""
    up = winnow.start("up", "--port", "0", "--workers", "1", "--json", **settings)
    try:
        assert up.stdout is not None
        line = up.stdout.readline()
        assert line, up.communicate(timeout=TIMEOUT_SECONDS)[1]
        yield json.loads(line)["url"]
    finally:
        up.send_signal(signal.SIGINT)
        try:
            up.communicate(timeout=TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            up.kill()
            raise
    assert up.returncode == 0


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


@pytest.mark.parametrize(
    ("settings", "begins", "host"),
    [
        (PROXIED, "http://127.0.0.1:", "127.0.0.1"),
        (PROXIED | {"allowed_hosts": "Winnow.example.org"}, "http://127.0.0.1:", "winnow.example.org"),
        pytest.param(
            {"host": "::1"},
            "http://[::1]:",
            "[::1]",
            marks=pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6"),
        ),
    ],
)
def test_service_comes_up_on_every_address_and_answers_by_the_allowed_names(
    fresh: Winnow, settings: dict[str, Any], begins: str, host: str
) -> None:
    fresh.ok("init")
    with running(fresh, **settings) as url:
        assert url.startswith(begins)
        answers = [httpx.get(f"{url}/health", headers={"Host": name}).status_code for name in (host, "elsewhere")]
        assert answers == [200, 400]


def test_no_allowed_host_is_refused(fresh: Winnow) -> None:
    fresh.ok("init")
    refused = fresh("up", "--port", "0", allowed_hosts=" , ")
    assert refused.code == 2
    assert "allowed_hosts=' , ' names no host" in refused.err


def test_address_is_left_in_the_home_folder_as_long_as_the_service_is_up(fresh: Winnow, tmp_path: Path) -> None:
    fresh.ok("init")
    record = fresh.home / "service.json"
    with running(fresh) as url:
        assert json.loads(record.read_text())["url"] == url
    assert not record.exists()
