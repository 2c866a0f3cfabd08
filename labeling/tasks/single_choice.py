# ruff: noqa: ARG002 - every task type is asked in the same words
"""Exactly one label."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from labeling.tasks import TASKS, TaskType, label_name


@dataclass(frozen=True, kw_only=True)
class SingleChoice(TaskType):
    """Exactly one label of at least two: its name."""

    min_names: ClassVar[int | None] = 2

    def validate(self, names: Sequence[str], value: object, text: str) -> str:
        """The label's name."""
        return label_name(names, value)

    def labels_in(self, value: Any) -> tuple[str, ...]:
        """The label."""
        return (str(value),)

    def renamed(self, value: Any, names: Mapping[str, str]) -> Any:
        """The label's new name."""
        return names.get(value, value)

    def classes(self, names: Sequence[str]) -> tuple[str, ...]:
        """The labels."""
        return tuple(names)

    def class_of(self, value: Any) -> str | None:
        """The label."""
        return str(value)


TASKS.register("single_choice", SingleChoice)(SingleChoice)
