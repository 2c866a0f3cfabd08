"""What annotators are asked: the question, the labels they may give, and how the page shows them.

What an answer is, and which options a schema may set for it, is the task type's to say: ``labeling.tasks``.
"""

import string
import unicodedata
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, get_args

import yaml

from catalog.errors import ConfigError, DataError, nearest
from catalog.yaml_keys import UniqueKeys
from labeling.tasks import TASKS, TaskType, canonical

RESERVED_HOTKEYS = frozenset("szg?")
"""Skip, undo, guidelines and help on the page."""
DEFAULT_HOTKEYS = "123456789" + "".join(letter for letter in string.ascii_lowercase if letter not in RESERVED_HOTKEYS)
MAX_SCHEMA_CHARS = 1_000_000
MAX_VALUE_BYTES = 2**18
"""Of an answer as JSON."""
MAX_EXAMPLES = 100
COMMON = ("task", "question", "guidelines", "version", "labels", "examples")
"""Keys of every schema; the others are options of its task."""
EARLIER = "earlier"
"""Where a queue keeps the schemas that it had before, oldest first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Label:
    """One label: its name, the key that gives it on the page, and what it means.

    Parameters
    ----------
    name : shown to people and stored as the answer; any script, in Unicode normal form C.
    hotkey : one character, or None when the page's keys are used up.
    description : one line of help.
    was : its name in the version before, where it was renamed.
    """

    name: str
    hotkey: str | None = None
    description: str = ""
    was: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """A text and its right answer, shown with the guidelines.

    Parameters
    ----------
    text : exactly as spans count it.
    answer : as ``LabelSchema.validate`` gives it back.
    note : why that is the answer.
    a, b : the two texts of a pairwise example, whose ``text`` is what stands above both, or nothing.
    """

    text: str
    answer: Any
    note: str = ""
    a: str | None = None
    b: str | None = None

    def to_json(self) -> dict[str, Any]:
        """What was given."""
        return {key: value for key, value in asdict(self).items() if value is not None and (key, value) != ("note", "")}


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelSchema:
    """The label schema of a queue.

    Parameters
    ----------
    labels : with distinct names and hotkeys, in the order the page shows them; none where the task has none.
    task : what kind of answer is asked for, a name in ``TASKS``.
    question : the one line above the text; by default the task's.
    guidelines : longer help, shown as plain text.
    version : raised by whoever changes the schema.
    examples : at most 100, their answers such as this schema allows.
    options : of the task; by default the task's defaults.

    Raises
    ------
    ConfigError : too few labels or labels where there are none, a repeated name or hotkey, a reserved hotkey, an
        unknown task, options that do not go together, an example with an answer that is not allowed.
    """

    labels: tuple[Label, ...] = ()
    task: str = "single_choice"
    question: str = ""
    guidelines: str = ""
    version: int = 1
    examples: tuple[Example, ...] = ()
    options: TaskType | None = None

    def __post_init__(self) -> None:
        known = TASKS.load()
        if self.task not in known:
            raise ConfigError(f"label schema: task={self.task!r} is unknown; {nearest(self.task, known)}")
        if self.version < 1:
            raise ConfigError(f"label schema: version={self.version} must be a whole number from 1 up")
        if self.options is None:
            object.__setattr__(self, "options", known[self.task].member())
        _check_labels(self.labels, self.task, self.kind.min_names)
        object.__setattr__(self, "labels", _with_default_hotkeys(self.labels))
        object.__setattr__(self, "question", self.question or self.kind.question)
        self.kind.check(self.names)
        object.__setattr__(self, "examples", _checked_examples(self))

    @property
    def kind(self) -> TaskType:
        """The task with its options."""
        assert self.options is not None
        return self.options

    @property
    def names(self) -> tuple[str, ...]:
        """The label names, in schema order."""
        return tuple(label.name for label in self.labels)

    @property
    def classes(self) -> tuple[str, ...]:
        """What a classifier chooses from, in schema order; nothing where an answer is not one of some classes."""
        return self.kind.classes(self.names)

    def class_of(self, value: Any) -> str | None:
        """The class of a stored answer, None where the task has no classes."""
        return self.kind.class_of(value)

    def validate(self, value: object, text: str = "") -> Any:
        """Return the answer as it is stored: plain JSON in one normal form, so that equal answers are equal.

        Parameters
        ----------
        value : what was sent.
        text : of the task exactly as it was served; spans are judged by it.

        Raises
        ------
        DataError : the schema does not allow it; the message names the value, what is allowed and the remedy.
        """
        answer = self.kind.validate(self.names, value, text)
        size = len(canonical(answer).encode())
        if size > MAX_VALUE_BYTES:
            raise DataError(f"answer of {size} bytes as JSON; at most {MAX_VALUE_BYTES} are stored: say less")
        return answer

    def to_json(self) -> dict[str, Any]:
        """The schema as plain JSON values; ``from_json`` gives the same schema back."""
        labels = [
            {"name": one.name, "hotkey": one.hotkey, "description": one.description}
            | ({} if one.was is None else {"was": one.was})
            for one in self.labels
        ]
        document = {
            "task": self.task,
            "question": self.question,
            "guidelines": self.guidelines,
            "version": self.version,
            "labels": labels,
        }
        if self.examples:
            document["examples"] = [one.to_json() for one in self.examples]
        return document | {key: value for key, value in asdict(self.kind).items() if value is not None}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "LabelSchema":
        """Build a schema from plain values, as strictly as ``parse_schema``; what a queue had before is passed over.

        Raises
        ------
        ConfigError : an unknown key, a missing ``labels``, a value of the wrong kind, or what the schema refuses.
        """
        return _build({key: value for key, value in document.items() if key != EARLIER})


def parse_schema(yaml_text: str) -> LabelSchema:
    """Read a label schema from YAML.

    Every scalar is read as text, so labels such as ``no``, ``on`` and ``1`` mean what they say.

    Raises
    ------
    ConfigError : the YAML does not parse or repeats a key; an unknown key (with the nearest known one); too few
        labels; a repeated label or hotkey; whatever else the schema refuses.

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
    task = document.get("task", "single_choice") if isinstance(document, dict) else "single_choice"
    known = TASKS.load()
    task = _text(task, "label schema: task")
    if task not in known:
        raise ConfigError(f"label schema: task={task!r} is unknown; {nearest(task, known)}")
    kind = known[task].member
    options = {field.name: field.type for field in fields(kind)}
    given = _mapping(document, (*COMMON, *options), "label schema", f" (task {task})")
    labels = given.pop("labels", None)
    if not isinstance(labels, list) and (kind.min_names is not None or labels is not None):
        raise ConfigError(
            f"label schema: 'labels' is missing; give a list of at least {kind.min_names or 2}, "
            "e.g. labels: [positive, negative]"
        )
    examples = given.pop("examples", None) or []
    if not isinstance(examples, list):
        raise ConfigError("label schema: 'examples' must be a list of texts with their answers")
    version = str(given.pop("version", 1))
    if not version.isascii() or not version.isdigit():
        raise ConfigError(f"label schema: version={version!r} must be a whole number from 1 up")
    chosen = {
        key: option_value(f"label schema: {key}", given.pop(key), wanted)
        for key, wanted in options.items()
        if key in given
    }
    texts = {key: _text(value, f"label schema: {key}") for key, value in given.items()}
    return LabelSchema(
        labels=tuple(_label(one) for one in labels or []),
        version=int(version),
        examples=tuple(_example(one, number) for number, one in enumerate(examples, 1)),
        options=kind(**chosen),
        **texts,
    )


def option_value(where: str, value: Any, wanted: Any) -> Any:
    """An option as its field has it: YAML and the command line leave numbers and truth as text, JSON does not.

    Parameters
    ----------
    where : what it is called in messages.
    wanted : type of the field: one of bool, int, float and str, or that or None.

    Raises
    ------
    ConfigError : it is none of that type.
    """
    kinds = get_args(wanted) or (wanted,)
    if value is None and type(None) in kinds:
        return None
    if bool in kinds:
        truth = {"true": True, "false": False}.get(str(value).lower())
        if truth is None:
            raise ConfigError(f"{where}={value!r} must be true or false")
        return truth
    if str in kinds:
        return _text(value, where)
    number = int if int in kinds else float
    try:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError
        return number(value) if isinstance(value, str) else number(str(value))
    except ValueError:
        kind = "a whole number" if number is int else "a number"
        raise ConfigError(f"{where}={value!r} must be {kind}") from None


def _label(item: object) -> Label:
    if isinstance(item, str):
        item = {"name": item}
    given = _mapping(item, ("name", "hotkey", "description", "was"), "label")
    if "name" not in given:
        raise ConfigError(f"label {given!r} has no 'name'")
    hotkey, was = given.get("hotkey"), given.get("was")
    return Label(
        name=_text(given["name"], "label name"),
        hotkey=_text(hotkey, "hotkey").lower() if hotkey else None,
        description=_text(given.get("description", ""), "label description"),
        was=_text(was, "label was") if was else None,
    )


def _example(item: object, number: int) -> Example:
    where = f"label schema: example {number}"
    given = _mapping(item, tuple(field.name for field in fields(Example)), where)
    if "answer" not in given:
        raise ConfigError(f"{where} has no 'answer'")
    texts = {key: _storable(given[key], f"{where}: {key}") for key in ("text", "a", "b") if given.get(key) is not None}
    return Example(
        text=texts.pop("text", ""), answer=given["answer"], note=_text(given.get("note", ""), f"{where}: note"), **texts
    )


def _checked_examples(schema: LabelSchema) -> tuple[Example, ...]:
    if len(schema.examples) > MAX_EXAMPLES:
        raise ConfigError(f"label schema: {len(schema.examples)} examples; at most {MAX_EXAMPLES} are shown")
    checked = []
    for number, one in enumerate(schema.examples, 1):
        where = f"label schema: example {number}"
        if schema.task == "pairwise":
            if one.a is None or one.b is None:
                raise ConfigError(f"{where} has no 'a' and 'b', the two texts that are compared")
        elif one.a is not None or one.b is not None or not one.text:
            raise ConfigError(f"{where} must have a 'text', and 'a' and 'b' only for pairwise tasks")
        try:
            answer = schema.validate(schema.kind.from_words(one.answer, one.text), one.text)
        except DataError as error:
            raise ConfigError(f"{where}: {error}") from error
        checked.append(replace(one, answer=answer))
    return tuple(checked)


def _mapping(document: object, known: tuple[str, ...], where: str, of: str = "") -> dict[str, Any]:
    if not isinstance(document, dict):
        raise ConfigError(
            f"{where}: expected keys and values, got {'nothing' if document is None else type(document).__name__}; "
            f"keys are {', '.join(known)}"
        )
    for key in document:
        if key not in known:
            raise ConfigError(f"{where}: unknown key {key!r}; {nearest(str(key), known)}{of}")
    return dict(document)


def _text(value: object, where: str) -> str:
    return unicodedata.normalize("NFC", _storable(value, where)).strip()


def _storable(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{where} must be text, got {value!r}; put it in quotes")
    if "\x00" in value or any("\ud800" <= char <= "\udfff" for char in value):
        raise ConfigError(f"{where} holds a NUL or half a surrogate pair, which databases refuse; remove it")
    return value


def _check_labels(labels: tuple[Label, ...], task: str, min_names: int | None) -> None:
    if min_names is None and labels:
        raise ConfigError(f"label schema: a {task} task has no labels; remove 'labels', or choose another task")
    if min_names is not None and len(labels) < min_names:
        least = {1: "one label", 2: "two labels"}[min_names]
        raise ConfigError(f"label schema: {len(labels)} label(s); a {task} task needs at least {least}")
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
    renamed: dict[str, str] = {}
    for label in labels:
        if label.was in renamed:
            raise ConfigError(f"labels {renamed[label.was]!r} and {label.name!r} both were {label.was!r}; one can be")
        if label.was is not None:
            renamed[label.was] = label.name


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
        label if label.hotkey is not None else replace(label, hotkey=own.get(number) or next(free, None))
        for number, label in enumerate(labels)
    )
