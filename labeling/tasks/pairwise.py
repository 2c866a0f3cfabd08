# ruff: noqa: ARG002 - every task type is asked in the same words
"""Which of two: a preference between two answers, or two texts."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from catalog.errors import ConfigError, DataError
from labeling.tasks import TASKS, TaskType, canonical, shown

SIDES = ("a", "b")
TIE = "tie"


@dataclass(frozen=True, kw_only=True)
class Pairwise(TaskType):
    """Which of two is better: ``"a"``, ``"b"``, or ``"tie"`` where ties are allowed.

    A and B are columns of the record, whichever side of the page shows them. A task's text is ``pair_text`` of them.

    Parameters
    ----------
    a, b : columns that hold the two; either may be the dataset's text column, else that column is shown above both.
    ties : whether neither may be better.
    """

    question: ClassVar[str] = "Which one is better?"

    a: str = "a"
    b: str = "b"
    ties: bool = False

    def check(self, names: Sequence[str]) -> None:
        """Two columns are needed."""
        if not self.a or not self.b or self.a == self.b:
            raise ConfigError(f"label schema: a={self.a!r} and b={self.b!r} must name two different columns")

    def validate(self, names: Sequence[str], value: object, text: str) -> str:
        """The side."""
        if not isinstance(value, str) or value not in self.choices:
            raise DataError(f"answer {shown(value)} is no choice of this queue; allowed: {', '.join(self.choices)}")
        return value

    @property
    def choices(self) -> tuple[str, ...]:
        """What may be answered."""
        return (*SIDES, TIE) if self.ties else SIDES

    def counted(self, value: Any) -> tuple[str, ...]:
        """The side."""
        return (str(value),)


def pair_text(a: str, b: str, prompt: str | None = None) -> str:
    """The text of a task that shows two texts: canonical JSON, so that a task stays one text everywhere.

    >>> split_pair(pair_text("예", "아니요", "갈까?"))
    {'a': '예', 'b': '아니요', 'prompt': '갈까?'}
    """
    return canonical({"a": a, "b": b} | ({} if prompt is None else {"prompt": prompt}))


def split_pair(text: str) -> dict[str, str | None]:
    """``a``, ``b`` and ``prompt`` (None without one) of a pair's text.

    Raises
    ------
    DataError : it is no pair.
    """
    try:
        found = json.loads(text)
        pair = {"a": str(found["a"]), "b": str(found["b"]), "prompt": found.get("prompt")}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DataError(f"text {shown(text)} is no pair of texts; tasks of pairwise queues hold a and b") from error
    return pair


TASKS.register("pairwise", Pairwise)(Pairwise)
