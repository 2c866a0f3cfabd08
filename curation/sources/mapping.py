"""Which columns are what, in a file: the same as the options of ``winnow ingest``, to be kept beside the data."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from catalog.errors import ConfigError, nearest
from catalog.yaml_keys import StrictLoader
from curation.sources import READERS, ReadOptions
from curation.sources.conversations import style_of


@dataclass(frozen=True, kw_only=True)
class Mapping:
    """Which columns of the source files are what.

    Parameters
    ----------
    text : column of the text, ``a.b.c`` of a nested one; ``text`` if neither it nor ``turns`` is given.
    label : column of the label, or None.
    source : column that says where a record came from, by which it is counted apart; it stays a field too.
    turns : style of conversations, instead of ``text``.
    encoding : of line-based files.
    format : a reader's name, where the suffix does not tell.
    """

    text: str | None = None
    label: str | None = None
    source: str | None = None
    turns: str | None = None
    encoding: str = "utf-8"
    format: str | None = None

    def __post_init__(self) -> None:
        """Refuse what is unknown, and what contradicts itself.

        Raises
        ------
        ConfigError : see above.
        """
        for one in fields(self):
            value = getattr(self, one.name)
            if value is not None and not isinstance(value, str):
                raise ConfigError(f"{one.name}={value!r} must be a name")
        if self.turns is not None and self.text is not None:
            raise ConfigError("turns say where the text is; leave out text, or the turns")
        if self.turns is not None:
            style_of(self.turns)
        if self.format is not None and self.format not in READERS.load():
            raise ConfigError(f"format={self.format!r} is unknown; {nearest(self.format, READERS)}")
        try:
            self.options()
        except ValueError as error:
            raise ConfigError(str(error)) from error

    @property
    def text_column(self) -> str:
        """What stands for the text of a dataset of such rows."""
        return style_of(self.turns).name if self.turns is not None else self.text or "text"

    def options(self, **bounds: Any) -> ReadOptions:
        """How to read files so. ``bounds`` are the further options of ``ReadOptions``."""
        return ReadOptions(
            text_column=self.text_column,
            label_column=self.label,
            turns=self.turns,
            encoding=self.encoding,
            format=self.format,
            **bounds,
        )


def load_mapping(path: str) -> Mapping:
    """Read a mapping from YAML.

    Raises
    ------
    ConfigError : no such file, not YAML, an unknown key (with the nearest), or a value that is refused.
    """
    try:
        given = yaml.load(Path(path).read_text("utf-8"), Loader=StrictLoader)  # noqa: S506 - a SafeLoader
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"mapping {path} cannot be read: {error}") from error
    known = [one.name for one in fields(Mapping)]
    if not isinstance(given, dict):
        raise ConfigError(f"mapping {path} must map {', '.join(known)} to names")
    for key in given:
        if key not in known:
            raise ConfigError(f"mapping {path}: unknown key {key!r}; {nearest(str(key), known)}")
    try:
        return Mapping(**given)
    except ConfigError as error:
        raise ConfigError(f"mapping {path}: {error}") from error
