"""What annotators are asked: the question, the labels they may give, and how the page shows them."""

import string
import unicodedata
from dataclasses import dataclass
from typing import Any

import yaml

from catalog.errors import ConfigError, DataError, nearest
from catalog.yaml_keys import UniqueKeys

TASKS = ("single_choice",)
RESERVED_HOTKEYS = frozenset("szg?")
"""Skip, undo, guidelines and help on the page."""
DEFAULT_HOTKEYS = "123456789" + "".join(letter for letter in string.ascii_lowercase if letter not in RESERVED_HOTKEYS)
MAX_SCHEMA_CHARS = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Label:
    """One label: its name, the key that gives it on the page, and what it means.

    Parameters
    ----------
    name : shown to people and stored as the answer; any script, in Unicode normal form C.
    hotkey : one character, or None when the page's keys are used up.
    description : one line of help.
    """

    name: str
    hotkey: str | None = None
    description: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelSchema:
    """The label schema of a queue.

    Parameters
    ----------
    labels : at least two, with distinct names and hotkeys, in the order the page shows them.
    task : what kind of answer is asked for; ``single_choice`` is exactly one label.
    question : the one line above the text.
    guidelines : longer help, shown as plain text.
    version : raised by whoever changes the schema.

    Raises
    ------
    ConfigError : fewer than two labels, a repeated name or hotkey, a reserved hotkey, an unknown task.
    """

    labels: tuple[Label, ...]
    task: str = "single_choice"
    question: str = "Which label fits?"
    guidelines: str = ""
    version: int = 1

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ConfigError(f"label schema: task={self.task!r} is unknown; {nearest(self.task, TASKS)}")
        if self.version < 1:
            raise ConfigError(f"label schema: version={self.version} must be a whole number from 1 up")
        _check_labels(self.labels)
        object.__setattr__(self, "labels", _with_default_hotkeys(self.labels))

    @property
    def names(self) -> tuple[str, ...]:
        """The label names, in schema order: the classes of the model."""
        return tuple(label.name for label in self.labels)

    def validate(self, value: object) -> str:
        """Return the answer as it is stored: a label's name in normal form C.

        Raises
        ------
        DataError : the value is no label of this schema; the message names the allowed ones.
        """
        name = unicodedata.normalize("NFC", value.strip()) if isinstance(value, str) else None
        if name is None or name not in self.names:
            shown = repr(value) if len(repr(value)) <= 200 else repr(value)[:200] + "…"
            raise DataError(f"answer {shown} is no label of this queue; allowed: {', '.join(self.names)}")
        return name

    def to_json(self) -> dict[str, Any]:
        """The schema as plain JSON values; ``from_json`` gives the same schema back."""
        labels = [{"name": one.name, "hotkey": one.hotkey, "description": one.description} for one in self.labels]
        return {
            "task": self.task,
            "question": self.question,
            "guidelines": self.guidelines,
            "version": self.version,
            "labels": labels,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "LabelSchema":
        """Build a schema from plain values, as strictly as ``parse_schema`` does.

        Raises
        ------
        ConfigError : an unknown key, a missing ``labels``, a value of the wrong kind, or what the schema refuses.
        """
        return _build(document)


def parse_schema(yaml_text: str) -> LabelSchema:
    """Read a label schema from YAML.

    Every scalar is read as text, so labels such as ``no``, ``on`` and ``1`` mean what they say.

    Raises
    ------
    ConfigError : the YAML does not parse or repeats a key; an unknown key (with the nearest known one); fewer than two
        labels; a repeated label or hotkey.

    Examples
    --------
    >>> schema = parse_schema("question: 기분은?\\nlabels: [긍정, 부정, no]")
    >>> [(label.name, label.hotkey) for label in schema.labels]
    [('긍정', '1'), ('부정', '2'), ('no', '3')]
    """
    if len(yaml_text) > MAX_SCHEMA_CHARS:
        raise ConfigError(f"label schema: {len(yaml_text)} characters; at most {MAX_SCHEMA_CHARS} are read")
    try:
        document = yaml.load(yaml_text, Loader=_TextLoader)  # noqa: S506 - a BaseLoader makes only str, list and dict
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"label schema does not parse as YAML: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"label schema: {error}") from error
    return _build(document)


class _TextLoader(UniqueKeys, yaml.BaseLoader):
    """Scalars stay text; a key given twice is refused instead of silently overwritten."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                shown = self.construct_object(key, deep=True)
                raise yaml.constructor.ConstructorError(None, None, f"key {shown!r} is not text", node.start_mark)
        return super().construct_mapping(node, deep=deep)


def _build(document: object) -> LabelSchema:
    known = ("task", "question", "guidelines", "version", "labels")
    fields = _mapping(document, known, "label schema")
    labels = fields.pop("labels", None)
    if not isinstance(labels, list):
        raise ConfigError(
            "label schema: 'labels' is missing; give a list of at least two, e.g. labels: [positive, negative]"
        )
    version = str(fields.pop("version", 1))
    if not version.isascii() or not version.isdigit():
        raise ConfigError(f"label schema: version={version!r} must be a whole number from 1 up")
    texts = {key: _text(value, f"label schema: {key}") for key, value in fields.items()}
    return LabelSchema(labels=tuple(_label(one) for one in labels), version=int(version), **texts)


def _label(item: object) -> Label:
    if isinstance(item, str):
        item = {"name": item}
    fields = _mapping(item, ("name", "hotkey", "description"), "label")
    if "name" not in fields:
        raise ConfigError(f"label {fields!r} has no 'name'")
    hotkey = fields.get("hotkey")
    return Label(
        name=_text(fields["name"], "label name"),
        hotkey=_text(hotkey, "hotkey").lower() if hotkey else None,
        description=_text(fields.get("description", ""), "label description"),
    )


def _mapping(document: object, known: tuple[str, ...], where: str) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise ConfigError(
            f"{where}: expected keys and values, got {type(document).__name__}; keys are {', '.join(known)}"
        )
    for key in document:
        if key not in known:
            raise ConfigError(f"{where}: unknown key {key!r}; {nearest(str(key), known)}")
    return dict(document)


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{where} must be text, got {value!r}; put it in quotes")
    if "\x00" in value or any("\ud800" <= char <= "\udfff" for char in value):
        raise ConfigError(f"{where} holds a NUL or half a surrogate pair, which databases refuse; remove it")
    return unicodedata.normalize("NFC", value).strip()


def _check_labels(labels: tuple[Label, ...]) -> None:
    if len(labels) < 2:
        raise ConfigError(f"label schema: {len(labels)} label(s); a choice needs at least two")
    seen: dict[str, str] = {}
    for label in labels:
        if not 1 <= len(label.name) <= 200:
            raise ConfigError(f"label name {label.name!r} must have 1 to 200 characters")
        if label.name in seen:
            raise ConfigError(f"label {label.name!r} is given twice")
        seen[label.name] = label.name
    hotkeys: dict[str, str] = {}
    for label in labels:
        if label.hotkey is None:
            continue
        if len(label.hotkey) != 1 or not label.hotkey.isprintable() or label.hotkey.isspace():
            raise ConfigError(f"label {label.name!r}: hotkey {label.hotkey!r} must be one printable character")
        if label.hotkey in RESERVED_HOTKEYS:
            raise ConfigError(
                f"label {label.name!r}: hotkey {label.hotkey!r} is taken by the page "
                "(s skips, z undoes, g shows the guidelines, ? helps); choose another"
            )
        if label.hotkey in hotkeys:
            raise ConfigError(f"hotkey {label.hotkey!r} is given to both {hotkeys[label.hotkey]!r} and {label.name!r}")
        hotkeys[label.hotkey] = label.name


def _with_default_hotkeys(labels: tuple[Label, ...]) -> tuple[Label, ...]:
    """Each label gets the key of its position; where another label has that, the first key nobody's position has."""
    taken = {label.hotkey for label in labels}
    places = DEFAULT_HOTKEYS[: len(labels)]
    own = {
        number: key
        for number, (label, key) in enumerate(zip(labels, places, strict=False))
        if label.hotkey is None and key not in taken
    }
    free = iter([key for key in DEFAULT_HOTKEYS if key not in taken and key not in own.values()])
    return tuple(
        label
        if label.hotkey is not None
        else Label(name=label.name, hotkey=own.get(number) or next(free, None), description=label.description)
        for number, label in enumerate(labels)
    )
