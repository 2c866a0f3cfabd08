"""Marked parts of the text, each with a label: named entities and the like."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

from catalog.errors import DataError
from labeling.graphemes import is_boundary, snapped
from labeling.tasks import NOTHING, TASKS, TaskType, label_name, shown

MAX_SPANS = 10_000
KEYS = ("start", "end", "label")
Span = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Spans(TaskType):
    """Parts of the text: ``[{"start", "end", "label"}]``, sorted, each once; the empty list says that nothing is there.

    Offsets count Unicode code points of the text as it was served, from 0, half open, so that ``text[start:end]`` is
    the part in any language whose strings are code points. They are neither UTF-16 units nor bytes. A span that cuts a
    character as readers see it is refused with the offsets that do not.

    Parameters
    ----------
    overlapping : whether spans may share characters. Without it, spans may touch.
    """

    min_names: ClassVar[int | None] = 1
    question: ClassVar[str] = "Which parts of the text are what?"
    reads_text: ClassVar[bool] = True

    overlapping: bool = False

    def validate(self, names: Sequence[str], value: object, text: str) -> list[Span]:
        """The spans by start, end and label; the same span twice is one."""
        if not isinstance(value, list):
            raise DataError(f'answer {shown(value)} must be a list of spans: [{{"start": 0, "end": 2, "label": "…"}}]')
        if len(value) > MAX_SPANS:
            raise DataError(f"answer with {len(value)} spans; at most {MAX_SPANS} are taken")
        found = sorted({_span(names, one, text) for one in value})
        if not self.overlapping:
            _refuse_overlap(found, text)
        return [{"start": start, "end": end, "label": label} for start, end, label in found]

    def from_words(self, answer: object, text: str) -> object:
        """Offsets may be written as text, or left out for the ``quote`` itself where it occurs once."""
        if not isinstance(answer, list):
            return answer
        return [_from_words(one, text) if isinstance(one, dict) else one for one in answer]

    def labels_in(self, value: Any) -> tuple[str, ...]:
        """Labels that occur."""
        return tuple(dict.fromkeys(one["label"] for one in value))

    def renamed(self, value: Any, names: Mapping[str, str]) -> Any:
        """Spans under their new names, sorted again."""
        spans = {(one["start"], one["end"], names.get(one["label"], one["label"])) for one in value}
        return [{"start": start, "end": end, "label": label} for start, end, label in sorted(spans)]

    def counted(self, value: Any) -> tuple[str, ...]:
        """Every span counts as its label."""
        return tuple(one["label"] for one in value) or (NOTHING,)

    def in_words(self, value: Any, text: str = "") -> str:
        """Each span's label and what it marks."""
        return "; ".join(_in_words(one, text) for one in value) or NOTHING


def _span(names: Sequence[str], one: object, text: str) -> tuple[int, int, str]:
    if not isinstance(one, dict) or set(one) != set(KEYS):
        raise DataError(f"span {shown(one)} must have exactly the keys {', '.join(KEYS)}")
    start, end = one["start"], one["end"]
    for key in ("start", "end"):
        if isinstance(one[key], bool) or not isinstance(one[key], int):
            raise DataError(f"span {shown(one)}: {key} must be a whole number of characters (Unicode code points)")
    if not 0 <= start < end <= len(text):
        raise DataError(
            f"span {shown(one)}: start and end must lie in 0 <= start < end <= {len(text)}, "
            "the text's length in Unicode code points (not UTF-16 units, not bytes)"
        )
    label = label_name(names, one["label"])
    if not (is_boundary(text, start) and is_boundary(text, end)):
        first, last = snapped(text, start, end)
        raise DataError(
            f"span {shown(one)} cuts a character as readers see it (such as an emoji, a flag or a Hangul syllable); "
            f"use start={first}, end={last}, which is {shown(text[first:last])}"
        )
    if text[start:end].isspace():
        raise DataError(f"span {shown(one)} marks only white space; mark what is to be found there, or leave it out")
    return start, end, label


def _refuse_overlap(found: list[tuple[int, int, str]], text: str) -> None:
    for one, other in pairwise(found):
        if other[0] < one[1]:
            pair = " and ".join(f"{label!r} at [{start}, {end})" for start, end, label in (one, other))
            raise DataError(
                f"spans {pair} overlap in {shown(text[other[0] : min(one[1], other[1])])}; this queue takes spans that "
                "do not (its schema would say overlapping: true)"
            )


def _from_words(one: dict[str, Any], text: str) -> dict[str, Any]:
    given = dict(one)
    quote = given.pop("quote", None)
    if isinstance(quote, str) and not {"start", "end"} & set(given):
        if text.count(quote) != 1:
            raise DataError(f"quote {shown(quote)} occurs {text.count(quote)} times in the text; give start and end")
        given["start"] = text.index(quote)
        given["end"] = given["start"] + len(quote)
    elif quote is not None:
        raise DataError(f"span {shown(one)}: give either quote or start and end")
    for key in ("start", "end"):
        number = given.get(key)
        if isinstance(number, str) and number.isascii() and number.isdigit():
            given[key] = int(number)
    return given


def _in_words(one: Span, text: str) -> str:
    marked = f" {shown(text[one['start'] : one['end']])}" if text else ""
    return f"{one['label']}{marked} [{one['start']}, {one['end']})"


TASKS.register("spans", Spans)(Spans)
