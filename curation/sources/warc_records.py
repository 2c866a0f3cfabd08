"""The records of a web archive one by one, each bounded, and each damaged one by itself (ISO 28500:2017)."""

import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from curation.sources.refusal import SourceRefusedError

GZIP = b"\x1f\x8b\x08"
BEGIN = b"WARC/"
_CHUNK_BYTES = 2**18
_MAX_HEADER_BYTES = 2**16


class Piece(NamedTuple):
    """One record as it lies in the archive, or what is wrong with it: ``problem`` and why, as ``Rejected`` names it."""

    data: bytes
    problem: str = ""
    detail: str = ""


class _Window:
    """A stream of which what is not yet consumed lies in ``data``."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.data = b""

    def more(self) -> bool:
        chunk = self.stream.read(_CHUNK_BYTES)
        self.data += chunk
        return bool(chunk)

    def go_to(self, mark: bytes, start: int) -> bool:
        """Drop everything before the next mark; False, and nothing is left, where there is none."""
        at = start
        while (found := self.data.find(mark, at)) < 0:
            keep = max(0, len(self.data) - len(mark) + 1)
            self.data, at = self.data[max(keep, 0) :], 0
            if not self.more():
                self.data = b""
                return False
        self.data = self.data[found:]
        return True


def members(stream: BinaryIO, max_bytes: int, max_output: int, path: str) -> Iterator[Piece]:
    """The members of a gzip file, each unpacked: in a web archive one is one record.

    Behind a damaged member the next beginning of one is looked for.

    Parameters
    ----------
    max_bytes : of a member, unpacked; a longer one is passed over.
    max_output : of all members together.

    Raises
    ------
    SourceRefusedError : they unpack to more.
    """
    window = _Window(stream)
    total = 0
    while window.data or window.more():
        if not window.data.startswith(GZIP):
            if len(window.data) < len(GZIP) and window.more():
                continue
            if not window.data.strip(b"\0"):
                window.data = b""
                continue
            yield Piece(b"", "damaged_record", "no compressed record begins where one should")
            if not window.go_to(GZIP, 1):
                return
        size, problem = 0, ""
        parts: list[bytes] = []
        taken: list[bytes] = []
        unpacker = zlib.decompressobj(wbits=31)
        while not unpacker.eof and not problem:
            if not window.data and not window.more():
                problem = "the archive ends in this record (half-written?)"
                break
            given = window.data
            try:
                part = unpacker.decompress(given, _CHUNK_BYTES)
            except zlib.error as error:
                problem = f"damaged compressed data: {error}"
                break
            window.data = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
            taken.append(given[: len(given) - len(window.data)])
            size += len(part)
            total += len(part)
            if total > max_output:
                raise SourceRefusedError(
                    "decompression_bomb",
                    f"{path} unpacks to more than {max_output} bytes; if it is genuine, decompress it first",
                )
            if size <= max_bytes:
                parts.append(part)
            else:
                taken.clear()
        if problem:
            yield Piece(b"", "damaged_record", problem)
            # The next member may lie in what this one seemed to be.
            window.data = b"".join(taken) + window.data
            if not window.go_to(GZIP, 1):
                return
        elif size > max_bytes:
            yield Piece(b"", "line_too_long", f"a record of {size} bytes; at most {max_bytes} are read")
        else:
            yield Piece(b"".join(parts))


def plain_records(stream: BinaryIO, max_bytes: int) -> Iterator[Piece]:
    """The records of an uncompressed archive, by the lengths that they state.

    Behind one whose header is damaged, or whose length leads nowhere, the next beginning of a record is looked for.
    """
    window = _Window(stream)
    while window.data or window.more():
        window.data = window.data.lstrip(b"\r\n")
        if len(window.data) < len(BEGIN) and window.more():
            continue
        if not window.data:
            continue
        length = _stated_length(window) if window.data.startswith(BEGIN) else None
        if length is None:
            yield Piece(b"", "damaged_record", "no WARC header that states a length begins where one should")
            if not window.go_to(b"\r\n\r\n" + BEGIN, 0):
                return
            continue
        if length > max_bytes:
            left = length
            while left > len(window.data):
                left -= len(window.data)
                window.data = b""
                if not window.more():
                    break
            window.data = window.data[left:]
            yield Piece(b"", "line_too_long", f"a record of {length} bytes; at most {max_bytes} are read")
            continue
        while len(window.data) < length and window.more():
            pass
        if len(window.data) < length:
            # It may be the length that is damaged.
            yield Piece(b"", "damaged_record", "the archive ends in this record (half-written?)")
            if not window.go_to(b"\r\n\r\n" + BEGIN, 0):
                return
            continue
        following = window.data[length : length + 4]
        if following.strip(b"\r\n"):
            yield Piece(b"", "damaged_record", f"the record does not end after the {length} bytes that it states")
            if not window.go_to(b"\r\n\r\n" + BEGIN, 0):
                return
            continue
        yield Piece(window.data[:length])
        window.data = window.data[length:]


def _stated_length(window: _Window) -> int | None:
    """Bytes of header and content of the record that the window begins with."""
    while (end := window.data.find(b"\r\n\r\n", 0, _MAX_HEADER_BYTES)) < 0:
        if len(window.data) >= _MAX_HEADER_BYTES or not window.more():
            return None
    for line in window.data[:end].split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length" and value.strip().isdigit():
            return end + 4 + int(value)
    return None
