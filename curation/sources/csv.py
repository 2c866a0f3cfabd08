"""Comma-separated values: RFC 4180 quoting, a header row, and a verdict for every ragged or broken row."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass

from curation.sources import READERS
from curation.sources.batch import Parsed, ReadOptions, Rejected, Suffixes
from curation.sources.jsonl import undecodable
from curation.sources.lines import Line, bounded_lines
from curation.sources.opening import OpenedSource
from curation.sources.refusal import SourceRefusedError


@dataclass(frozen=True, kw_only=True)
class CsvSuffixes(Suffixes):
    """Suffixes of comma-separated values."""

    suffixes: tuple[str, ...] = (".csv",)


class _RowTooLongError(Exception):
    """The row under way passed the bound: an unclosed quote, or a huge field."""


class _Unclosed(Exception):  # noqa: N818 - a signal to the caller below, not an error of the program
    """The file ended inside a quoted field."""


class _Feed:
    """Decoded lines for ``csv.reader``, counted since the row began and kept so that they can be read again."""

    def __init__(self, lines: Iterator[Line], options: ReadOptions) -> None:
        self.lines = lines
        self.again: list[Line] = []
        self.row: list[Line] = []
        self.num_bytes = 0
        self.options = options

    def begin_row(self) -> None:
        self.row, self.num_bytes = [], 0

    def take(self) -> Line | None:
        return self.again.pop() if self.again else next(self.lines, None)

    def __iter__(self) -> "_Feed":
        return self

    def __next__(self) -> str:
        line = self.take()
        if line is None:
            if self.row:
                raise _Unclosed
            raise StopIteration
        self.row.append(line)
        self.num_bytes += line.num_bytes + 1
        if line.data is None or self.num_bytes > self.options.max_line_bytes + 1:
            raise _RowTooLongError
        # Bytes outside the encoding must not stop the row: they come back as lone surrogates, seen below.
        return line.data.decode(self.options.encoding, "surrogateescape") + "\n"

    def restart(self) -> Line:
        """Forget the row's first line and read the others again."""
        first, *rest = self.row
        self.again.extend(reversed(rest))
        return first

    def skip_row(self) -> tuple[int, int]:
        """Stream to the end of the row under way; return its last line and its bytes."""
        num_bytes = self.num_bytes
        num_quotes = sum(_quotes(one) for one in self.row)
        last = self.row[-1].number
        while num_quotes % 2 and (line := self.take()) is not None:
            last = line.number
            num_bytes += line.num_bytes + 1
            num_quotes += _quotes(line)
        return last, num_bytes


def _quotes(line: Line) -> int:
    return line.num_quotes if line.data is None else line.data.count(b'"')


@READERS.register("csv", CsvSuffixes)
def read_csv(source: OpenedSource, options: ReadOptions) -> Iterator[Parsed | Rejected]:
    """Parse rows of a file with a header. Blank lines are no rows; a quoted field may hold commas and line breaks.

    A row longer than ``max_line_bytes`` is streamed past to its closing quote. A quote that never closes costs its own
    line, when the rest of the file fits the bound, and otherwise the rest of the file as one rejected row.

    Raises
    ------
    SourceRefusedError : the header is too long, undecodable, or names a column twice.
    """
    # Process-wide in the csv module, so only ever raised: the real bound is the one in _Feed.
    csv.field_size_limit(max(csv.field_size_limit(), options.max_line_bytes + 2))
    feed = _Feed(bounded_lines(source.stream, options.max_line_bytes), options)
    rows = _rows(feed)
    header: list[str] | None = None
    for first, row in rows:
        if header is None:
            header = _header(row, source.path, options)
        elif isinstance(row, Rejected):
            yield row
        elif len(row) != len(header):
            yield Rejected(first, "ragged_row", f"{len(row)} cells where the header has {len(header)}")
        elif (bad := _undecodable(feed, options)) is not None:
            yield bad
        else:
            yield Parsed(first, dict(zip(header, row, strict=True)))


def _rows(feed: _Feed) -> Iterator[tuple[int, list[str] | Rejected]]:
    reader = csv.reader(feed)
    while True:
        feed.begin_row()
        try:
            row = next(reader)
        except StopIteration:
            return
        except _RowTooLongError:
            first = feed.row[0].number
            last, num_bytes = feed.skip_row()
            detail = f"lines {first} to {last}, {num_bytes} bytes; at most {feed.options.max_line_bytes} are read"
            yield first, Rejected(first, "line_too_long", detail)
        except _Unclosed:
            first = feed.restart().number
            yield first, Rejected(first, "unclosed_quote", "a quote opens here and never closes")
        except csv.Error as error:
            yield feed.row[0].number, Rejected(feed.row[0].number, "invalid_csv", str(error))
        else:
            if row and feed.row:
                yield feed.row[0].number, row


def _undecodable(feed: _Feed, options: ReadOptions) -> Rejected | None:
    for line in feed.row:
        if line.data is not None and not line.data.isascii():
            try:
                line.data.decode(options.encoding)
            except UnicodeDecodeError as error:
                return undecodable(line.number, options.encoding, error)._replace(line=feed.row[0].number)
    return None


def _header(row: list[str] | Rejected, path: str, options: ReadOptions) -> list[str]:
    if isinstance(row, Rejected):
        raise SourceRefusedError("header_too_long", f"{path}: the header cannot be read ({row.reason}: {row.detail})")
    return named_columns(row, path, options)


def named_columns(cells: list[str], path: str, options: ReadOptions) -> list[str]:
    """Column names of a header: empty cells are named by position, a name that stands twice is refused."""
    names = [cell.strip() or f"column_{position}" for position, cell in enumerate(cells, 1)]
    twice = sorted({name for name in names if names.count(name) > 1})[:5] if len(set(names)) < len(names) else []
    if twice:
        listed = ", ".join(repr(name) for name in twice)
        raise SourceRefusedError("duplicate_column", f"{path}: the header names {listed} twice; rename one of each")
    if any("\udc80" <= char <= "\udcff" for name in names for char in name):
        raise SourceRefusedError("wrong_encoding", f"{path}: the header is not {options.encoding}; name the encoding")
    return names
