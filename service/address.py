"""Where the web service of this home folder answers, and by which names it may be called."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from catalog.errors import ConfigError
from catalog.settings import Settings
from workers import process_names

RECORD = "service.json"
ANY_ADDRESS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - recognised, not bound


def local_url(host: str, port: int) -> str:
    """The URL by which this machine reaches what listens on ``host``; on every address means on loopback too.

    Examples
    --------
    >>> local_url("0.0.0.0", 8765), local_url("::1", 8765), local_url("10.0.0.7", 8765)
    ('http://127.0.0.1:8765', 'http://[::1]:8765', 'http://10.0.0.7:8765')
    """
    reached = ANY_ADDRESS.get(host, host)
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"


def host_names(settings: Settings) -> list[str]:
    """The Host headers that are answered.

    Raises
    ------
    ConfigError : there is none, so nobody would be answered.
    """
    names = [host.strip().lower() for host in settings.allowed_hosts.split(",") if host.strip()]
    if not names:
        raise ConfigError(f"allowed_hosts={settings.allowed_hosts!r} names no host; nobody would be answered")
    return names


def service_url(settings: Settings) -> str:
    """Where the running service answers, else where the next one will: ``winnow up --port`` may differ from the port
    setting."""
    return _recorded(settings) or local_url(settings.host, settings.port)


@contextmanager
def recorded(settings: Settings, url: str) -> Iterator[None]:
    """Leave the service's URL in the home folder for other commands, as long as the body runs."""
    path = settings.home / RECORD
    mine = json.dumps({"url": url, "process": process_names.this_process()})
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    aside.write_text(mine, encoding="utf-8")
    aside.replace(path)
    try:
        yield
    finally:
        # A second service of this home may have recorded itself since.
        if path.exists() and path.read_text(encoding="utf-8") == mine:
            path.unlink()


def _recorded(settings: Settings) -> str | None:
    try:
        found = json.loads(Path(settings.home / RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    # Whoever was killed could not take its record away.
    return None if process_names.is_gone(found["process"]) else str(found["url"])
