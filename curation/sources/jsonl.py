"""JSON Lines: one object a line."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from curation.sources import READERS
from curation.sources.batch import MAX_DEPTH, Parsed, ReadOptions, Rejected, Suffixes
from curation.sources.lines import bounded_lines
from curation.sources.opening import OpenedSource

# Made once: json.loads would build a decoder for every row. NaN and the infinities, which JSON lacks, become null.
_DECODER = json.JSONDecoder(parse_constant=lambda _: None)


@dataclass(frozen=True, kw_only=True)
class JsonlSuffixes(Suffixes):
    """Suffixes of JSON Lines."""

    suffixes: tuple[str, ...] = (".jsonl", ".ndjson")


@READERS.register("jsonl", JsonlSuffixes)
def read_jsonl(source: OpenedSource, options: ReadOptions) -> Iterator[Parsed | Rejected]:
    """Parse one JSON object a line. Blank lines are no rows; NaN and infinities are read as null."""
    for number, data, num_bytes, _ in bounded_lines(source.stream, options.max_line_bytes):
        if data is None:
            yield Rejected(number, "line_too_long", f"{num_bytes} bytes; at most {options.max_line_bytes} are read")
        elif data.strip():
            try:
                yield parse_object(number, data.decode(options.encoding))
            except UnicodeDecodeError as error:
                yield undecodable(number, options.encoding, error)


def parse_object(number: int, text: str) -> Parsed | Rejected:
    """The row of one JSON object, or why it is none."""
    if "\0" in text:
        return Rejected(number, "nul_character", "a raw U+0000 in the line")
    try:
        value = _DECODER.decode(text)
        too_deep = text.count("[") + text.count("{") > MAX_DEPTH and _depth(value) > MAX_DEPTH
    except RecursionError:
        too_deep = True
    except ValueError as error:
        return Rejected(number, "invalid_json", str(error))
    if too_deep:
        return Rejected(number, "invalid_json", f"nested deeper than {MAX_DEPTH}")
    if not isinstance(value, dict):
        return Rejected(number, "not_an_object", f"a row must be one object, not {type(value).__name__}")
    return Parsed(number, value)


def undecodable(number: int, encoding: str, error: UnicodeDecodeError) -> Rejected:
    """The rejection of a line whose bytes are not in the file's encoding."""
    return Rejected(
        number, undecodable_reason(encoding), f"byte {error.start + 1} of the line is not {encoding}: {error.reason}"
    )


def undecodable_reason(encoding: str) -> str:
    """The stable code of such a rejection."""
    return "invalid_utf8" if encoding.lower().replace("-", "") == "utf8" else "invalid_encoding"


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        inner: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                inner.extend(one.values())
            elif isinstance(one, list):
                inner.extend(one)
        level = inner
    return depth - 1
