"""Tab-separated values: a header row, no quoting."""

from collections.abc import Iterator
from dataclasses import dataclass

from curation.sources import READERS
from curation.sources.batch import Parsed, ReadOptions, Rejected, Suffixes
from curation.sources.csv import named_columns
from curation.sources.jsonl import undecodable
from curation.sources.lines import bounded_lines
from curation.sources.opening import OpenedSource
from curation.sources.refusal import SourceRefusedError


@dataclass(frozen=True, kw_only=True)
class TsvSuffixes(Suffixes):
    """Suffixes of tab-separated values."""

    suffixes: tuple[str, ...] = (".tsv", ".tab")


@READERS.register("tsv", TsvSuffixes)
def read_tsv(source: OpenedSource, options: ReadOptions) -> Iterator[Parsed | Rejected]:
    """Parse one row a line, cells between tabs, a header first. Quotes are plain characters, as IANA's type has them.

    Raises
    ------
    SourceRefusedError : the header is too long, undecodable, or names a column twice.
    """
    header: list[str] | None = None
    for number, data, num_bytes, _ in bounded_lines(source.stream, options.max_line_bytes):
        if data is None:
            if header is None:
                raise SourceRefusedError("header_too_long", f"{source.path}: the header has {num_bytes} bytes")
            yield Rejected(number, "line_too_long", f"{num_bytes} bytes; at most {options.max_line_bytes} are read")
        elif not data.strip():
            continue
        elif header is None:
            header = named_columns(data.decode(options.encoding, "surrogateescape").split("\t"), source.path, options)
        else:
            yield _parse(number, data, header, options)


def _parse(number: int, data: bytes, header: list[str], options: ReadOptions) -> Parsed | Rejected:
    try:
        cells = data.decode(options.encoding).split("\t")
    except UnicodeDecodeError as error:
        return undecodable(number, options.encoding, error)
    if len(cells) != len(header):
        return Rejected(number, "ragged_row", f"{len(cells)} cells where the header has {len(header)}")
    return Parsed(number, dict(zip(header, cells, strict=True)))
