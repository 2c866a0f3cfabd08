"""CoNLL: a token a line with its tag (IOB2), a blank line between texts."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

from catalog.errors import ConfigError
from labeling.exchange import FORMATS, Format, Given, Item, Problem, Written, read_text
from labeling.graphemes import words
from labeling.schema import LabelSchema

Span = tuple[int, int, str]
CUTS = ("split", "snap")


@dataclass(frozen=True, kw_only=True)
class Conll(Format):
    """Tokens by Unicode word boundaries, one tag each; the answers taken together, of spans that do not overlap.

    A span that ends inside a token (a Korean noun before its particle) either splits that token or is widened to it.
    Either is counted.

    Parameters
    ----------
    token, tag : columns of token and tag when reading, from 0; negative ones count from the last.
    cut : ``split`` the token at the span's edge, so that the span comes back as it was, or ``snap`` the span to whole
        tokens, so that tokens do not depend on the spans.
    comments : whether ``# id`` and ``# text`` stand before each text. Without them a reader must find the record by its
        tokens.
    annotator : whose answers these are when reading.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".conll", ".bio", ".iob", ".iob2")
    tasks: ClassVar[frozenset[str] | None] = frozenset({"spans"})
    every_answer: ClassVar[bool] = False

    token: int = 0
    tag: int = -1
    cut: str = "split"
    comments: bool = True
    annotator: str = "imported"

    def __post_init__(self) -> None:
        if self.cut not in CUTS:
            raise ConfigError(f"conll: cut={self.cut!r} must be one of {', '.join(CUTS)}")

    def write(self, path: Path, items: Iterable[Item], schema: LabelSchema) -> Written:  # noqa: ARG002 - one contract
        """Token, tab, tag."""
        written = Written()
        with path.open("w", encoding="utf-8", newline="\n") as file:
            for item in items:
                if not item.num_votes or item.text is None:
                    continue
                spans = [(one["start"], one["end"], one["label"]) for one in item.value]
                rows = self._rows(item.text, spans, written)
                if not rows:
                    written.changed["texts without a token left out"] += 1
                    continue
                if self.comments:
                    file.write(f"# id = {item.record_id}\n# text = {json.dumps(item.text, ensure_ascii=False)}\n")
                file.write("".join(f"{token}\t{tag}\n" for token, tag in rows) + "\n")
                written.num_items += 1
                written.num_answers += 1
        return written

    def _rows(self, text: str, spans: list[Span], written: Written) -> list[tuple[str, str]]:
        tokens = [part for one in words(text) for part in _without_space(text, *one)]
        apart = _apart(spans, written)
        if self.cut == "split":
            tokens = _split(text, tokens, apart, written)
        tags = ["O"] * len(tokens)
        for start, end, label in apart:
            inside = [at for at, (first, last) in enumerate(tokens) if first < end and last > start]
            if not inside or any(tags[at] != "O" for at in inside):
                written.changed["spans left out: their tokens belong to another"] += 1
                continue
            if (tokens[inside[0]][0], tokens[inside[-1]][1]) != (start, end):
                written.changed["spans moved to the edges of tokens"] += 1
            for at in inside:
                tags[at] = f"{'B' if at == inside[0] else 'I'}-{label}"
        return [(text[first:last], tag) for (first, last), tag in zip(tokens, tags, strict=True)]

    def read(self, path: Path, schema: LabelSchema) -> Iterator[Item | Problem]:  # noqa: ARG002 - one contract
        """IOB2, and IOB1 where an entity begins with ``I-``; ``-DOCSTART-`` lines are passed over."""
        block: list[str] = []
        begin = 1
        for number, line in enumerate([*read_text(path).split("\n"), ""], 1):
            # Only tabs and blanks are white space here: a token may be any other.
            if line.strip("\r\t "):
                block.append(line.rstrip("\r"))
                continue
            found = self._block(block, f"line {begin}")
            block, begin = [], number + 1
            if found is not None:
                yield found

    def _block(self, lines: list[str], where: str) -> Item | Problem | None:
        head: dict[str, str] = {}
        tokens: list[str] = []
        tags: list[str] = []
        for line in lines:
            comment = re.match(r"# (id|text) = (.*)", line) if not tokens else None
            cells = line.split("\t") if "\t" in line else line.split(" ")
            if comment:
                head[comment[1]] = comment[2]
            elif cells[0] == "-DOCSTART-":
                continue
            elif max(self.token, self.tag) >= len(cells) or min(self.token, self.tag) < -len(cells):
                reason = f"has {len(cells)} columns; token={self.token} and tag={self.tag} are wanted"
                return Problem(where=where, reason=reason, raw=lines)
            else:
                tokens.append(cells[self.token])
                tags.append(cells[self.tag])
        if not tokens:
            return None
        wrong = [tag for tag in tags if tag != "O" and not re.match(r"[BI]-.", tag)]
        if wrong:
            return Problem(where=where, reason=f"tag {wrong[0]!r} is not O, B-LABEL or I-LABEL", raw=lines)
        answer = Given(annotator=self.annotator, value=_entities(tags))
        text = _text_of(head)
        return Item(record_id=head.get("id"), text=text, tokens=tuple(tokens), answers=(answer,), where=where)


def _text_of(head: dict[str, str]) -> str | None:
    try:
        found: Any = json.loads(head["text"]) if "text" in head else None
    except ValueError:
        # Other tools write the text as it is.
        found = head["text"]
    return found if isinstance(found, str) else None


def _without_space(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """A token's parts between white space: an accent on a blank is a word of both to Unicode."""
    return [(start + one.start(), start + one.end()) for one in re.finditer(r"\S+", text[start:end])]


def _apart(spans: list[Span], written: Written) -> list[Span]:
    """Spans that do not overlap: of those that do, the longest, the first of equals."""
    chosen: list[Span] = []
    for one in sorted(spans, key=lambda span: (span[0] - span[1], span)):
        if all(one[1] <= other[0] or other[1] <= one[0] for other in chosen):
            chosen.append(one)
        else:
            written.changed["spans left out: they overlap another"] += 1
    return sorted(chosen)


def _split(text: str, tokens: list[tuple[int, int]], spans: list[Span], written: Written) -> list[tuple[int, int]]:
    edges = sorted({edge for start, end, _ in spans for edge in (start, end)})
    found = []
    for first, last in tokens:
        cuts = [edge for edge in edges if first < edge < last]
        if cuts:
            written.changed["tokens split at a span's edge"] += 1
        bounds = [first, *cuts, last]
        found += [pair for pair in pairwise(bounds) if not text[slice(*pair)].isspace()]
    return found


def _entities(tags: list[str]) -> list[dict[str, Any]]:
    """Spans over the numbers of tokens.

    >>> _entities(["B-A", "I-A", "I-B", "O", "I-A", "B-A"])[1:3]
    [{'start': 2, 'end': 3, 'label': 'B'}, {'start': 4, 'end': 5, 'label': 'A'}]
    """
    found: list[dict[str, Any]] = []
    open_label = None
    for at, tag in enumerate(tags):
        kind, _, label = tag.partition("-")
        if tag == "O":
            open_label = None
        elif kind == "I" and label == open_label:
            found[-1]["end"] = at + 1
        else:
            found.append({"start": at, "end": at + 1, "label": label})
            open_label = label
    return found


def aligned(tokens: tuple[str, ...], text: str) -> list[tuple[int, int]] | None:
    """Where each token stands in a text, None where they are not its tokens in order.

    >>> aligned(("서울", "에서", "!"), "서울에서 !")
    [(0, 2), (2, 4), (5, 6)]
    >>> aligned(("서울",), "서울에서") is None
    True
    """
    found = []
    at = 0
    for token in tokens:
        while at < len(text) and text[at].isspace() and not text.startswith(token, at):
            at += 1
        if not token or not text.startswith(token, at):
            return None
        found.append((at, at + len(token)))
        at += len(token)
    return found if not text[at:].strip() else None


FORMATS.register("conll", Conll)(Conll)
