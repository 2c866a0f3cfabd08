"""Log lines: for people on a terminal, one JSON object a line elsewhere; never with a token or a password in them.

What a line belongs to (run, unit, stage) is a context variable, so that whatever is logged inside a unit says so, by
whichever library.
"""

import json
import logging
import os
import re
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import TextIO

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from catalog.settings import SECRETS, Settings

log = logging.getLogger(__name__)
OURS = ("catalog", "curation", "labeling", "training", "workers", "service")
HIDDEN = "***"
SECRET_VARIABLES = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "PGPASSWORD")
MIN_SECRET_CHARS = 6
"""A shorter secret would hide half of every line."""
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_NAMED = r"(?i)(\b(?:password|passwd|secret|token|api_?key|pii_key)['\"]?\s*[=:]\s*['\"]?)(?!wnw_)[^\s'\"&,;]+"
_PATTERNS = (
    # Our own tokens: the public part stays, it is what `winnow` revokes by.
    re.compile(r"(wnw_[0-9a-f]{16}_)[A-Za-z0-9_-]+"),
    re.compile(r"(?i)(\bbearer\s+)(?!wnw_)[^\s'\",;]+"),
    re.compile(r"(://[^\s:/@]*:)[^\s/@]+(?=@)"),
    re.compile(_NAMED),
)
_CONTEXT: ContextVar[Mapping[str, str]] = ContextVar("winnow_log_context", default={})  # noqa: B039 - never changed


@contextmanager
def log_context(**fields: str) -> Iterator[None]:
    """Say what every line logged inside the body belongs to, e.g. ``run_id`` and ``unit_id``."""
    before = _CONTEXT.set({**_CONTEXT.get(), **fields})
    try:
        yield
    finally:
        _CONTEXT.reset(before)


def secrets_of(settings: Settings) -> list[str]:
    """What must never be logged: secret settings, passwords of URLs, credentials in the environment."""
    found = [os.environ.get(name, "") for name in SECRET_VARIABLES]
    for name in SECRETS:
        value = getattr(settings, name)
        found.append(value.get_secret_value() if value is not None else "")
    for url in (settings.database_url, *settings.broker_url.split(";"), settings.store_url):
        try:
            found.append(str(make_url(url).password or ""))
        except ArgumentError:
            continue
    return [one for one in found if len(one) >= MIN_SECRET_CHARS]


def redacted(text: str, secrets: Iterable[str] = ()) -> str:
    """Text without tokens, passwords in URLs, or any of the secrets.

    >>> redacted("redis://user:hunter2@queue:6379/0 refused wnw_0123456789abcdef_abc")
    'redis://user:***@queue:6379/0 refused wnw_0123456789abcdef_***'
    """
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    for pattern in _PATTERNS:
        text = pattern.sub(rf"\1{HIDDEN}", text)
    return text


class _Lines(logging.Formatter):
    """What both kinds of line share: context, redaction, UTC."""

    def __init__(self, *, secrets: Iterable[str], worker: str | None, narrow: bool) -> None:
        super().__init__()
        self._secrets = tuple(secrets)
        self._worker = {} if worker is None else {"worker": worker}
        self._narrow = narrow

    def fields(self, record: logging.LogRecord) -> dict[str, str]:
        """Everything that a line says, in order, redacted."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        found = {
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._worker,
            **_CONTEXT.get(),
        }
        if record.exc_info:
            found["exception"] = self.formatException(record.exc_info)
        return {name: redacted(value, self._secrets) for name, value in found.items()}


class JsonLines(_Lines):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return json.dumps(self.fields(record), ensure_ascii=self._narrow)


class HumanLines(_Lines):
    """A line for a terminal, which obeys no control character of a message; a traceback below it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        told = self.fields(record)
        where = " ".join(f"{name}={told[name]}" for name in ("worker", "run_id", "unit_id", "stage") if name in told)
        line = f"{told['time']} {told['level']:<8} {told['logger']}: {CONTROL.sub(chr(0xFFFD), told['message'])}"
        return line + (f"  [{where}]" if where else "") + (f"\n{told['exception']}" if "exception" in told else "")


def configure(settings: Settings, *, worker: str | None = None, stream: TextIO | None = None) -> None:
    """Send every log line, warning and uncaught exception of this process to one stream, by default stderr.

    Winnow's own lines from ``log_level`` on, those of libraries from warnings on.

    Parameters
    ----------
    worker : this process's name, said in every line.
    """
    stream = stream or sys.stderr
    kind = HumanLines if stream.isatty() else JsonLines
    narrow = (stream.encoding or "ascii").lower().replace("-", "") != "utf8"
    handler = logging.StreamHandler(stream)
    handler.setFormatter(kind(secrets=secrets_of(settings), worker=worker, narrow=narrow))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in OURS:
        logging.getLogger(name).setLevel(settings.log_level.upper())
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda ended: _log_uncaught(ended.exc_type, ended.exc_value, ended.exc_traceback)


def _log_uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if error is None or issubclass(kind, KeyboardInterrupt | SystemExit):
        return
    log.critical("uncaught: %s", error, exc_info=(kind, error, trace))


def readable(line: str) -> str:
    """A line of a log file as a person wants it in a message: what a JSON line says, any other line as it is.

    >>> readable('{"level": "error", "message": "no space left"}')
    'no space left'
    """
    try:
        told = json.loads(line)
    except ValueError:
        return line
    return str(told["message"]) if isinstance(told, dict) and "message" in told else line
