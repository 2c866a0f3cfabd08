# ruff: noqa: ARG002 - every task type is asked in the same words
"""A written answer."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from catalog.errors import ConfigError, DataError
from labeling.tasks import TASKS, TaskType, shown, whole_number

WRITTEN = "(text)"
MAX_CHARS = 50_000


@dataclass(frozen=True, kw_only=True)
class FreeText(TaskType):
    """A written answer: text in normal form C, lines ended by a line feed, without white space around it.

    Parameters
    ----------
    min_chars, max_chars : bounds of its length, in Unicode code points after that; 0 allows an empty answer.
    """

    question: ClassVar[str] = "What is your answer?"

    min_chars: int = 1
    max_chars: int = 10_000

    def check(self, names: Sequence[str]) -> None:
        """Bounds must leave an answer possible."""
        whole_number("min_chars", self.min_chars, 0)
        if not max(1, self.min_chars) <= self.max_chars <= MAX_CHARS:
            raise ConfigError(
                f"label schema: max_chars={self.max_chars} must lie in [{max(1, self.min_chars)}, {MAX_CHARS}]"
            )

    def validate(self, names: Sequence[str], value: object, text: str) -> str:
        """The text, normalised."""
        if not isinstance(value, str):
            raise DataError(f"answer {shown(value)} must be text")
        if "\x00" in value or any("\ud800" <= char <= "\udfff" for char in value):
            raise DataError("the answer holds a NUL or half a surrogate pair, which databases refuse; remove it")
        written = unicodedata.normalize("NFC", value.replace("\r\n", "\n").replace("\r", "\n")).strip()
        if not self.min_chars <= len(written) <= self.max_chars:
            raise DataError(
                f"answer of {len(written)} characters; this queue takes {self.min_chars} to {self.max_chars}"
            )
        return written

    def counted(self, value: Any) -> tuple[str, ...]:
        """Texts are not told apart where answers are counted."""
        return (WRITTEN if value else "(empty)",)

    def in_words(self, value: Any, text: str = "") -> str:
        """Its beginning."""
        return shown(value)


TASKS.register("free_text", FreeText)(FreeText)
