"""The one error tree: split by what the caller can do about it.

Every class has a stable ``code`` (it travels to clients as JSON) and an HTTP status; the command line maps
``ConfigError``, ``DataError``, ``NotFoundError`` and ``TakenError`` to exit code 2 and everything else to 1.
Messages name the value, the legal range and the remedy.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar


class ServiceError(Exception):
    """Root of everything Winnow raises on purpose."""

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1


class ConfigError(ServiceError):
    """A setting, recipe or option is wrong: the caller corrects it and calls again."""

    code = "config"
    status = 422
    exit_code = 2


class StaleVersionError(ConfigError):
    """What is to replace something does not come after it: read what is there now, then raise the version."""

    code = "conflict"
    status = 409


class DataError(ServiceError):
    """The data given cannot be used as asked: the caller supplies other data."""

    code = "data"
    status = 422
    exit_code = 2


class PoolExhaustedError(DataError):
    """Fewer candidates are left than were asked for."""

    code = "pool_exhausted"


class NotFoundError(ServiceError):
    """A named thing does not exist, or the caller may not see it."""

    code = "not_found"
    status = 404
    exit_code = 2


class AuthError(ServiceError):
    """The request carries no valid token. The message never hints at which part was wrong."""

    code = "unauthorized"
    status = 401


class ForbiddenError(ServiceError):
    """The token is valid but its role may not do this."""

    code = "forbidden"
    status = 403


class ConflictError(ServiceError):
    """The state changed underneath the caller, or forbids the change: read again, then decide."""

    code = "conflict"
    status = 409


class TakenError(ConflictError):
    """A name belongs to something that was made otherwise: the caller asks as it was made, or by another name."""

    exit_code = 2


class GoneError(ServiceError):
    """The thing existed and has ended: an expired lease, a closed queue."""

    code = "gone"
    status = 410


class CorruptionError(ServiceError):
    """Stored bytes do not match their checksum. Never retried: the file must be restored."""

    code = "corrupt"


class TransientError(ServiceError):
    """Passing trouble (a lock, a full disk, a broker away). The only class the engine retries at once."""

    code = "transient"
    status = 503


class StoreAwayError(TransientError):
    """The shard store does not answer at all. No unit is to blame, so none is charged with an attempt for it."""

    code = "store_away"


def nearest(value: str, known: Iterable[str]) -> str:
    """The tail of a not-found message: the nearest known name and the list of what exists.

    >>> nearest("web-txt", ["web-text", "pretraining"])
    "did you mean 'web-text'? Known: pretraining, web-text"
    >>> nearest("x", [])
    'none exist yet'
    """
    names = sorted(known)
    if not names:
        return "none exist yet"
    listed = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    close = get_close_matches(value, names, n=1, cutoff=0.5)
    return (f"did you mean {close[0]!r}? " if close else "") + f"Known: {listed}"
