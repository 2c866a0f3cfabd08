"""A registry finds its members by walking a package, and says what it knows."""

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from catalog.errors import ConfigError, NotFoundError
from catalog.registry import Registry


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A config with one checked option."""

    at_most: int = 3

    def __post_init__(self) -> None:
        if self.at_most < 0:
            raise ValueError(f"at_most={self.at_most} must be at least 0")


def test_members_are_found_by_walking_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "animals_for_test"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from catalog.registry import Registry\nANIMALS = Registry('animal', 'animals_for_test')\n"
    )
    for name in ("cat", "dog"):
        (package / f"{name}.py").write_text(
            f"from animals_for_test import ANIMALS\n@ANIMALS.register({name!r})\ndef {name}():\n    return {name!r}\n"
        )
    monkeypatch.syspath_prepend(tmp_path)
    from animals_for_test import ANIMALS  # type: ignore[import-not-found]

    try:
        assert list(ANIMALS) == ["cat", "dog"]
        assert ANIMALS["dog"].member() == "dog"
        with pytest.raises(NotFoundError, match=r"no animal named 'dgo'; did you mean 'dog'\? Known: cat, dog"):
            ANIMALS["dgo"]
    finally:
        for name in [name for name in sys.modules if name.startswith("animals_for_test")]:
            del sys.modules[name]


def test_registering_a_name_twice_raises() -> None:
    registry: Registry[object] = Registry("thing", "catalog")
    registry.register("one")(object())
    with pytest.raises(ValueError, match="'one' is registered twice"):
        registry.register("one")(object())


def test_options_become_the_config_or_a_clear_error() -> None:
    registry: Registry[object] = Registry("thing", "catalog")
    registry.register("limited", Limit, version=2)(object())
    member = registry.load()["limited"]
    assert member.version == 2
    assert member.configured({"at_most": 5}) == Limit(at_most=5)
    assert member.configured() == Limit()
    with pytest.raises(ConfigError, match=r"limited: unknown option 'atmost'; did you mean 'at_most'\?"):
        member.configured({"atmost": 5})
    with pytest.raises(ConfigError, match="limited: at_most=-1 must be at least 0"):
        member.configured({"at_most": -1})
