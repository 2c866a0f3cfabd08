"""Conversations as texts: which strings of a row are its turns, the text they are judged as, and the way back.

A row keeps its turns as they came, roles and tool calls included. What is judged, compared and embedded is what was
said: the turns' contents, a blank line between two. Names of roles are left out, since rules would count them as words
and near-duplicates would share them.
"""

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from catalog.errors import ConfigError, nearest

SEPARATOR = "\n\n"
Place = tuple[str | int, ...]
"""Where a turn's content stands in a row: keys and list positions."""
_TOKEN = re.compile(r"(?:\w+|[^\w\s])\s*|\s+")


class TurnsError(ValueError):
    """A row's turns cannot be read; ``reason`` is its stable code."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class Style:
    """How a conversation is written.

    Parameters
    ----------
    columns : that hold it, in the order of speaking: lists of turns, or strings.
    optional : those of them that may be missing.
    role, content : keys of a turn in a list.
    """

    columns: tuple[str, ...]
    optional: tuple[str, ...] = ()
    role: str = "role"
    content: str = "content"

    @property
    def name(self) -> str:
        """What stands for the text column of a dataset of such rows."""
        return "+".join(self.columns)


STYLES = {
    "alpaca": Style(columns=("instruction", "input", "output"), optional=("input",)),
    "openai": Style(columns=("messages",)),
    "prompt_completion": Style(columns=("prompt", "completion")),
    "sharegpt": Style(columns=("conversations",), role="from", content="value"),
}
"""Alpaca (Taori et al. 2023), OpenAI chat, prompt and completion (strings or messages, as TRL reads them), ShareGPT."""


def style_of(name: str) -> Style:
    """A style by its name.

    Raises
    ------
    ConfigError : there is none, with the nearest.
    """
    if name not in STYLES:
        raise ConfigError(f"turns={name!r} is no known style; {nearest(name, STYLES)}")
    return STYLES[name]


def places(row: dict[str, Any], style: Style) -> list[Place]:
    """Where the contents of the turns stand, in the order of speaking. A turn that only calls a tool has none.

    Raises
    ------
    TurnsError : a column is missing (``missing_text``), or no list or string (``turns_not_list``), or a turn has no
        role or content (``invalid_turn``).
    """
    return [place for column in style.columns for place in _of_column(row, column, style)]


def _of_column(row: dict[str, Any], column: str, style: Style) -> Iterator[Place]:
    value = row.get(column)
    if value is None:
        if column not in style.optional:
            raise TurnsError("missing_text", f"no value for {column!r}")
    elif isinstance(value, str) and len(style.columns) > 1:
        yield (column,)
    elif isinstance(value, list):
        for index, turn in enumerate(value):
            yield from _of_turn(turn, (column, index), style)
    else:
        raise TurnsError("turns_not_list", f"{column!r} is of type {type(value).__name__}")


def _of_turn(turn: Any, place: Place, style: Style) -> Iterator[Place]:
    number = int(place[-1]) + 1
    if not isinstance(turn, dict) or not isinstance(turn.get(style.role), str):
        raise TurnsError("invalid_turn", f"turn {number} has no {style.role!r}")
    content = turn.get(style.content)
    if isinstance(content, str):
        yield (*place, style.content)
    elif isinstance(content, list):
        # Parts of several kinds, images among them: only the text is text.
        for index, part in enumerate(content):
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                yield (*place, style.content, index, "text")
    elif content is not None or style.content not in turn:
        raise TurnsError("invalid_turn", f"turn {number} has no {style.content!r} that is text")


def _get(row: Any, place: Place) -> Any:
    for key in place:
        row = row[key]
    return row


def contents(row: dict[str, Any], style: Style) -> list[str]:
    """What was said, turn by turn.

    Raises
    ------
    TurnsError : see ``places``.
    """
    return [str(_get(row, place)) for place in places(row, style)]


def rendered(said: Sequence[str]) -> str:
    """The text that a conversation is judged as.

    >>> rendered(["안녕?", "", "Hello."])
    '안녕?\\n\\nHello.'
    """
    return SEPARATOR.join(one for one in said if one.strip())


def restored(row: dict[str, Any], style: Style, text: str) -> dict[str, Any]:
    """The row with its turns as they are in a text that was changed since: cut, masked.

    Where nothing was changed it is the row itself. Otherwise the text is aligned with what was said, token by token;
    what stands in place of a token belongs to the turn of that token, and what is gone is gone.

    Parameters
    ----------
    row : with its turns as they came; they are changed in place.
    text : ``rendered`` of it, after changes.
    """
    where = [place for place in places(row, style) if str(_get(row, place)).strip()]
    said = [str(_get(row, place)) for place in where]
    if rendered(said) == text:
        return row
    for place, content in zip(where, aligned(said, text), strict=True):
        _get(row, place[:-1])[place[-1]] = content
    return row


def aligned(said: Sequence[str], text: str) -> list[str]:
    """What each turn says in a changed text.

    >>> aligned(["my mail is a@b.io", "thanks, noted"], "my mail is <EMAIL>\\n\\nthanks, noted")
    ['my mail is <EMAIL>', 'thanks, noted']
    """
    original = rendered(said)
    before, after = _TOKEN.findall(original), _TOKEN.findall(text)
    starts = [0, *accumulate(len(token) for token in before)]
    ends = list(accumulate(len(one) + len(SEPARATOR) for one in said))
    # The turn of each token; the separator belongs to the turn before it, and is taken off at the end.
    turn_of, turn = [], 0
    for start in starts[:-1]:
        while turn < len(ends) - 1 and start >= ends[turn]:
            turn += 1
        turn_of.append(turn)
    parts: list[list[str]] = [[] for _ in said]
    matcher = difflib.SequenceMatcher(None, before, after)
    for _, first, last, new_first, new_last in matcher.get_opcodes():
        if last - first == new_last - new_first:
            for offset in range(last - first):
                parts[turn_of[first + offset]].append(after[new_first + offset])
        elif new_last > new_first:
            owner = turn_of[min(first, len(turn_of) - 1)] if turn_of else 0
            parts[owner].extend(after[new_first:new_last])
    return ["".join(part).strip() for part in parts]
