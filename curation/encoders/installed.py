"""Which encoders can run here."""

import importlib.util
from dataclasses import dataclass

from catalog.errors import ConfigError
from curation.encoders import ENCODERS


@dataclass(frozen=True, kw_only=True)
class Requires:
    """Config of an encoder: the importable packages it needs beyond the service's own."""

    packages: tuple[str, ...] = ()


def missing_packages(packages: tuple[str, ...]) -> list[str]:
    """The packages that are not installed here."""
    return [package for package in packages if importlib.util.find_spec(package) is None]


def require_packages(encoder: str, packages: tuple[str, ...]) -> None:
    """Stop before an import fails.

    Raises
    ------
    ConfigError : a package is missing; says how to install it and which encoder needs none.
    """
    if missing := missing_packages(packages):
        raise ConfigError(
            f"encoder {encoder!r} needs {', '.join(missing)}: pip install 'winnow[models]', "
            "or choose the encoder 'hashing', which needs no model"
        )


def installed_encoders() -> list[str]:
    """Names of the encoders whose packages are all installed, sorted."""
    return [name for name, member in ENCODERS.load().items() if not missing_packages(member.config().packages)]
