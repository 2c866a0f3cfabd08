"""Registries: a behaviour is a registered member, found by walking a package, chosen by name.

A registry names the package whose modules hold its members. The first look-up imports every module of that package,
so adding a member is one new file. Names are permanent: stored runs refer to them.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, Generic, TypeVar

from catalog.errors import ConfigError, NotFoundError, nearest

M = TypeVar("M")


@dataclass(frozen=True)
class NoConfig:
    """The config of a member that takes no options."""


@dataclass(frozen=True)
class Member(Generic[M]):
    """One registered behaviour: its permanent name, what it does, and the dataclass of its options."""

    name: str
    member: M
    config: type[Any]
    version: int

    def configured(self, options: dict[str, Any] | None = None) -> Any:
        """Build the config from plain options, refusing unknown keys with the nearest known one.

        Raises
        ------
        ConfigError : an option is unknown, or its value is refused by the config itself.
        """
        known = {field.name for field in fields(self.config)}
        given = dict(options or {})
        for key in given:
            if key not in known:
                raise ConfigError(f"{self.name}: unknown option {key!r}; {nearest(key, known)}")
        try:
            return self.config(**given)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{self.name}: {error}") from error


class Registry(Generic[M]):
    """A named family of behaviours (``FILTERS``, ``STRATEGIES``, ``ATTENTION``, …).

    Parameters
    ----------
    kind : what a member is called in messages, e.g. ``"query strategy"``.
    package : dotted name of the package whose modules register the members.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._members: dict[str, Member[M]] = {}
        self._loaded = False

    def register(self, name: str, config: type[Any] = NoConfig, *, version: int = 1) -> Callable[[M], M]:
        """Decorate a function or class to make it the member called ``name``.

        ``version`` is stored beside every value the member produces; raise it when the same input gives a new output.

        Raises
        ------
        ValueError : the name is taken (two files would otherwise silently shadow each other).
        """

        def add(member: M) -> M:
            if name in self._members and self._members[name].member is not member:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._members[name] = Member(name, member, config, version)
            return member

        return add

    def load(self) -> dict[str, Member[M]]:
        """Import every module of the package once; return all members by name."""
        if not self._loaded:
            package = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(package.__path__, prefix=f"{self.package}."):
                # Modules of compiled loops hold no members, and their compiler takes half a second to import.
                if not module.name.endswith("kernels"):
                    importlib.import_module(module.name)
            self._loaded = True
        return dict(sorted(self._members.items()))

    def __getitem__(self, name: str) -> Member[M]:
        members = self.load()
        if name not in members:
            raise NotFoundError(f"no {self.kind} named {name!r}; {nearest(name, members)}")
        return members[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.load())

    def closest(self, name: str) -> str | None:
        """The nearest registered name, or None."""
        return next(iter(get_close_matches(name, self.load(), n=1)), None)
