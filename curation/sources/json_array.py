"""A JSON array of objects, one at a time."""

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from curation.sources import READERS
from curation.sources.batch import Parsed, ReadOptions, Rejected, Suffixes
from curation.sources.jsonl import parse_object, read_jsonl, undecodable_reason
from curation.sources.opening import OpenedSource
from curation.sources.refusal import SourceRefusedError

_READ_BYTES = 2**18
_BLANK = " \t\r\n\ufeff"
_BLANKS = re.compile(f"[{_BLANK}]*")
_DECODER = json.JSONDecoder(parse_constant=lambda _: None)
# A whole string at once, or what opens, closes or separates; a quote that stays alone opens a string that is cut off.
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"|[\[\]{},"]', re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class JsonSuffixes(Suffixes):
    """Suffixes of JSON."""

    suffixes: tuple[str, ...] = (".json",)


@READERS.register("json", JsonSuffixes)
def read_json(source: OpenedSource, options: ReadOptions) -> Iterator[Parsed | Rejected]:
    """Read the objects of one array in order; ``line`` is the element's number, from 1. Lines of JSON are read too.

    One element is held at a time; one that is longer than ``max_line_bytes``, or is no JSON, is passed over to the
    comma behind it. Where brackets do not match, the rest of the file is one rejected row.

    Raises
    ------
    SourceRefusedError : the file holds no array and no lines, but for example one object with an array in it.
    """
    head = source.stream.peek(2**16) if hasattr(source.stream, "peek") else b""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"{"):
        first, newline, _ = start.partition(b"\n")
        if newline and not first.rstrip().endswith((b"}", b"},")):
            raise SourceRefusedError(
                "not_an_array",
                f"{source.path} is one object, not an array of records; give the array alone: jq .KEY FILE > NEW_FILE",
            )
        yield from read_jsonl(source, options)
        return
    if not start.startswith(b"["):
        raise SourceRefusedError("not_an_array", f"{source.path} begins with no '['; give an array or lines of objects")
    elements = _Elements(source, options)
    for number, text in enumerate(elements, 1):
        if text is None:
            yield Rejected(number, "line_too_long", f"more than {options.max_line_bytes} bytes, which is what is read")
        else:
            try:
                # Lone surrogates stand for bytes outside the encoding; of an escape they would be plain ASCII here.
                text.encode()
                yield parse_object(number, text)
            except UnicodeEncodeError:
                yield Rejected(
                    number,
                    undecodable_reason(options.encoding),
                    f"an element holds bytes that are not {options.encoding}",
                )
    if elements.problem:
        yield Rejected(elements.number + 1, "invalid_json", elements.problem)


class _Elements:
    """The texts of an array's elements; None for one that is too long. ``problem``, if any, ended the reading."""

    def __init__(self, source: OpenedSource, options: ReadOptions) -> None:
        self._stream = source.stream
        self._limit = options.max_line_bytes
        # Bytes outside the encoding come back as lone surrogates, which no element may hold.
        self._decoder = codecs.getincrementaldecoder(options.encoding)("surrogateescape")
        self._buffer = ""
        self._at = 0
        self.number = 0
        self.problem = ""

    def __iter__(self) -> Iterator[str | None]:
        self._skip_blank()
        self._at += 1
        while True:
            if not self._skip_blank():
                self.problem = "the array does not end (half-written?)"
                return
            if self._buffer[self._at] == "]" and not self.number:
                break
            found = self._at_hand() or self._scanned()
            if found is None:
                return
            text, last = found
            self.number += 1
            yield text
            if last:
                break
        self._at += 1
        if self._skip_blank():
            self.problem = "something follows the array"

    def _more(self) -> bool:
        """Read on, and forget what lies behind."""
        data = self._stream.read(_READ_BYTES)
        self._buffer = self._buffer[self._at :] + self._decoder.decode(data, final=not data)
        self._at = 0
        return bool(data)

    def _skip_blank(self) -> bool:
        """Go to the next character that is not blank; False at the end of the file."""
        while True:
            self._at = self._behind_blank(self._at)
            if self._at < len(self._buffer):
                return True
            if not self._more() and not self._buffer:
                return False

    def _behind_blank(self, at: int) -> int:
        found = _BLANKS.match(self._buffer, at)
        assert found is not None
        return found.end()

    def _at_hand(self) -> tuple[str | None, bool] | None:
        """An element that is whole in the buffer and right, and whether it is the last."""
        try:
            _, end = _DECODER.raw_decode(self._buffer, self._at)
        except (ValueError, RecursionError):
            return None
        stop = self._behind_blank(end)
        if stop >= len(self._buffer) or self._buffer[stop] not in ",]":
            return None
        text, last = self._buffer[self._at : end], self._buffer[stop] == "]"
        self._at = stop if last else stop + 1
        return (text if len(text) <= self._limit else None), last

    def _scanned(self) -> tuple[str | None, bool] | None:
        """The same of any element, by brackets and strings, reading on as needed; None where no end is found."""
        depth, at, dropped = 0, self._at, False
        while True:
            token = _TOKEN.search(self._buffer, at)
            if token is None or token[0] == '"':
                at = len(self._buffer) if token is None else token.start()
                if dropped or at - self._at > self._limit:
                    # Too long to be a row: what lies within it need not be held.
                    self._at, dropped = at, True
                if len(self._buffer) - at > self._limit:
                    self.problem = "a string does not end within the longest row that is read"
                    return None
                at -= self._at
                if not self._more():
                    self.problem = "the array does not end (half-written?)"
                    return None
                continue
            at = token.end()
            if token[0] in "[{":
                depth += 1
            elif token[0] in "]}" and depth:
                depth -= 1
            elif token[0] == "}":
                self.problem = "a bracket closes that was not opened"
                return None
            elif depth == 0 and token[0] in "],":
                text, last = self._buffer[self._at : token.start()].rstrip(_BLANK), token[0] == "]"
                self._at = token.start() if last else at
                return (None if dropped or len(text) > self._limit else text), last
