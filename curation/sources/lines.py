"""Lines of a byte stream, one at a time, never more than a bound in memory."""

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

_BOM = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """One physical line: ``data`` without its line end, or None when it was too long and skipped."""

    number: int
    data: bytes | None
    num_bytes: int
    num_quotes: int
    """Double quotes in a skipped line (0 when not skipped): the CSV reader must know whether one stayed open."""


def bounded_lines(stream: BinaryIO, max_line_bytes: int) -> Iterator[Line]:
    """Split a stream at line feeds; a line longer than ``max_line_bytes`` is streamed past, not held.

    A byte-order mark before the first line and a carriage return at a line's end are dropped.
    """
    number = 0
    while data := stream.readline(max_line_bytes + 2):
        number += 1
        body = data.removesuffix(b"\n").removesuffix(b"\r")
        if number == 1:
            body = body.removeprefix(_BOM)
        if len(body) <= max_line_bytes and (data.endswith(b"\n") or len(data) < max_line_bytes + 2):
            yield Line(number, body, len(body), 0)
            continue
        num_bytes, num_quotes = len(data), data.count(b'"')
        while not data.endswith(b"\n") and (data := stream.readline(max_line_bytes)):
            num_bytes += len(data)
            num_quotes += data.count(b'"')
        yield Line(number, None, num_bytes, num_quotes)
