# ruff: noqa: ARG002 - every task type is asked in the same words
"""Task types: the kinds of answer a queue may ask for.

A member is a frozen dataclass: its fields are the options that a schema of that task may set, its methods say what an
answer is. Values are plain JSON, and equal answers have equal canonical JSON.
"""

import json
import reprlib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, ClassVar

from catalog.errors import ConfigError, DataError
from catalog.registry import Registry

SHOWN_CHARS = 200
NOTHING = "(none)"
"""What an answer without any label is counted as."""


@dataclass(frozen=True, kw_only=True)
class TaskType:
    """One kind of answer; the fields of a subclass are its options.

    ``min_names`` is the fewest labels that a schema of this task must name; None where it names none. ``question`` is
    asked where the schema asks nothing else. ``reads_text`` says whether an answer can be judged only with its text.
    """

    min_names: ClassVar[int | None] = None
    question: ClassVar[str] = "Which label fits?"
    reads_text: ClassVar[bool] = False

    def check(self, names: Sequence[str]) -> None:
        """Refuse options that do not go together.

        Raises
        ------
        ConfigError : with the option, its range and what to give instead.
        """

    def validate(self, names: Sequence[str], value: object, text: str) -> Any:
        """The answer as it is stored: normal form C, sorted where order says nothing.

        Parameters
        ----------
        names : labels of the schema.
        value : what was sent, any JSON.
        text : of the task, exactly as it was served.

        Raises
        ------
        DataError : the schema does not allow it; the message names the value, the limit and the remedy.
        """
        raise NotImplementedError

    def from_words(self, answer: object, text: str) -> object:
        """The answer of an example, in which YAML left numbers as text, as JSON for ``validate``."""
        return answer

    def labels_in(self, value: Any) -> tuple[str, ...]:
        """Names of the labels that a stored answer gives, each once."""
        return ()

    def renamed(self, value: Any, names: Mapping[str, str]) -> Any:
        """A stored answer with other names for its labels; those that are not in ``names`` stay."""
        return value

    def counted(self, value: Any) -> tuple[str, ...]:
        """What an answer counts as when answers are counted, at least one word."""
        return self.labels_in(value) or (NOTHING,)

    def in_words(self, value: Any, text: str = "") -> str:
        """One line for people."""
        return ", ".join(self.counted(value))

    def classes(self, names: Sequence[str]) -> tuple[str, ...]:
        """What a classifier chooses from when exactly one class is an answer; nothing where that does not hold."""
        return ()

    def class_of(self, value: Any) -> str | None:
        """The class of a stored answer, None where there are no classes."""
        return None


TASKS: Registry[type[TaskType]] = Registry("task type", "labeling.tasks")


def shown(value: object) -> str:
    """A value in a message: cut short, however large or deep it is."""
    brief = reprlib.Repr()
    brief.maxlevel, brief.maxstring, brief.maxother = 3, SHOWN_CHARS, SHOWN_CHARS
    text = brief.repr(value)
    return text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "…"


def label_name(names: Sequence[str], value: object) -> str:
    """A label's name in normal form C.

    Raises
    ------
    DataError : it is none of the names; the message has the nearest.
    """
    name = unicodedata.normalize("NFC", value.strip()) if isinstance(value, str) else None
    if name is None or name not in names:
        close = get_close_matches(name[:SHOWN_CHARS], names, n=1) if name else []
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise DataError(f"answer {shown(value)} is no label of this queue; allowed: {_listed(names)}{hint}")
    return name


def _listed(names: Sequence[str]) -> str:
    listed = ", ".join(names[:20])
    return f"{listed} and {len(names) - 20} more" if len(names) > 20 else listed


def canonical(value: Any) -> str:
    """The one JSON text of an answer: equal answers have equal texts.

    >>> canonical([{"label": "도시", "end": 2, "start": 0}])
    '[{"end":2,"label":"도시","start":0}]'
    """
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)


def whole_number(name: str, value: int | None, at_least: int) -> None:
    """Refuse a count below its least.

    Raises
    ------
    ConfigError : with the least.
    """
    if value is not None and value < at_least:
        raise ConfigError(f"label schema: {name}={value} must be at least {at_least}")
