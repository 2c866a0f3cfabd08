"""Plain text: one record a line."""

from collections.abc import Iterator
from dataclasses import dataclass

from curation.sources import READERS
from curation.sources.batch import Parsed, ReadOptions, Rejected, Suffixes
from curation.sources.jsonl import undecodable
from curation.sources.lines import bounded_lines
from curation.sources.opening import OpenedSource


@dataclass(frozen=True, kw_only=True)
class TextSuffixes(Suffixes):
    """Suffixes of plain text."""

    suffixes: tuple[str, ...] = (".txt", ".text")


@READERS.register("text", TextSuffixes)
def read_text(source: OpenedSource, options: ReadOptions) -> Iterator[Parsed | Rejected]:
    """Take every line as one text. Blank lines separate and are no rows; there are no labels and no fields."""
    for number, data, num_bytes, _ in bounded_lines(source.stream, options.max_line_bytes):
        if data is None:
            yield Rejected(number, "line_too_long", f"{num_bytes} bytes; at most {options.max_line_bytes} are read")
        elif data.strip():
            try:
                yield Parsed(number, {options.text_column: data.decode(options.encoding)})
            except UnicodeDecodeError as error:
                yield undecodable(number, options.encoding, error)
