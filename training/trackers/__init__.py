"""Trackers: where a training's numbers are followed besides Winnow's own page."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from catalog.errors import ConfigError
from catalog.registry import Registry


class Tracker(Protocol):
    """Takes numbers by name and step."""

    def log(self, step: int, values: dict[str, float]) -> None:
        """Note numbers of an update, counted from 1."""
        ...

    def close(self) -> None:
        """Write out what is left."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Tracked:
    """What is followed.

    Parameters
    ----------
    folder : for what the tracker keeps; made by it.
    name : of the training.
    settings : the arm's settings, flat or nested, as JSON values.
    start_step : updates that were done before; what an earlier attempt noted of later ones is repeated.
    """

    folder: Path
    name: str
    settings: dict[str, Any]
    start_step: int = 0


TRACKERS: Registry[Callable[[Tracked], Tracker]] = Registry("tracker", "training.trackers")
"""Contract: ``(tracked) -> Tracker``. Its package is imported when it is called, never before. It only watches: a run
with and without it has the same bits."""


def needed(module: str, tracker: str) -> Any:
    """Import a tracker's package.

    Raises
    ------
    ConfigError : it is not installed; the message names the extra that brings it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"tracker {tracker!r} needs a package that is not installed ({error}); run pip install "
            f"'winnow[{tracker}]', or leave the tracker out"
        ) from error


def flat(settings: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Nested settings by dotted names."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= flat(value, f"{before}{name}.") if isinstance(value, dict) else {f"{before}{name}": value}
    return found
