# ruff: noqa: ARG002 - every task type is asked in the same words
"""Any number of labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from catalog.errors import ConfigError, DataError
from labeling.tasks import TASKS, TaskType, label_name, shown, whole_number


@dataclass(frozen=True, kw_only=True)
class MultiLabel(TaskType):
    """Any number of labels within bounds: a sorted list of their names, each once.

    Parameters
    ----------
    min_labels : fewest labels of an answer; 0 allows the empty list, which says that nothing fits.
    max_labels : most labels of an answer; None is as many as there are.
    """

    min_names: ClassVar[int | None] = 1
    question: ClassVar[str] = "Which labels fit?"

    min_labels: int = 1
    max_labels: int | None = None

    def check(self, names: Sequence[str]) -> None:
        """Bounds must leave an answer possible."""
        whole_number("min_labels", self.min_labels, 0)
        whole_number("max_labels", self.max_labels, 1)
        most = len(names) if self.max_labels is None else self.max_labels
        if most > len(names):
            raise ConfigError(f"label schema: max_labels={most} must be at most the {len(names)} labels that there are")
        if self.min_labels > most:
            raise ConfigError(f"label schema: min_labels={self.min_labels} must be at most {most}")

    def validate(self, names: Sequence[str], value: object, text: str) -> list[str]:
        """The labels' names, sorted, each once."""
        if not isinstance(value, list):
            raise DataError(f'answer {shown(value)} must be a list of labels, e.g. ["{names[0]}"]')
        chosen = sorted({label_name(names, one) for one in value})
        most = len(names) if self.max_labels is None else self.max_labels
        if not self.min_labels <= len(chosen) <= most:
            raise DataError(f"answer with {len(chosen)} labels; this queue takes {self.min_labels} to {most} of them")
        return chosen

    def labels_in(self, value: Any) -> tuple[str, ...]:
        """All of them."""
        return tuple(value)

    def renamed(self, value: Any, names: Mapping[str, str]) -> Any:
        """Their new names, sorted again."""
        return sorted({names.get(one, one) for one in value})


TASKS.register("multi_label", MultiLabel)(MultiLabel)
