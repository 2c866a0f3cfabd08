"""What reading yields: parsed rows, rejected rows, and the bounded batches made of them."""

import codecs
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import polars as pl

from catalog.errors import ConfigError, nearest
from curation.sources.conversations import TurnsError, contents, rendered, style_of
from curation.sources.nested import has, names, take
from curation.sources.refusal import SourceRefusedError

PROBED_ROWS = 1_000
"""Rows in which the text column must appear at least once."""

MAX_DEPTH = 100
"""JSON nested deeper is rejected: the parser's own limit depends on the caller's stack."""

_DETAIL_CHARS = 200
_NAME_CHARS = 60
_OVERHEAD_BYTES = 64
_HEADED = re.compile(r"\.(csv|tsv|tab)(\.\w+)?$", re.IGNORECASE)  # Formats whose first line names the columns.

RECORD_SCHEMA = {"text": pl.String, "label": pl.String, "fields": pl.String, "line": pl.Int64}
REJECTED_SCHEMA = {"line": pl.Int64, "reason": pl.String, "detail": pl.String}


@dataclass(frozen=True, kw_only=True)
class Suffixes:
    """Config of a reader: the file suffixes that choose it.

    Parameters
    ----------
    unpacks : whether the reader takes a compressed file as it is, to unpack its parts itself.
    apart : whether the file decides how much memory its reading takes, so that a process of its own must do it.
    """

    suffixes: tuple[str, ...] = ()
    unpacks: bool = False
    apart: bool = False


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How to read a source file.

    Parameters
    ----------
    text_column : name of the column (or JSON key, ``a.b.c`` of a nested one) that holds the text.
    label_column : name of the column that holds the label, or None; a row without it has no label.
    turns : style of the conversations that the rows are, or None; see ``curation.sources.conversations``. The text is
        then what was said in all turns, which stay in the other columns too.
    format : a reader's name, or None to choose it by the file's suffix.
    encoding : of line-based files; any whose line feed is the byte 0x0A, e.g. ``latin-1`` or ``cp949``.
    max_line_bytes : a longer row is rejected, in bytes.
    batch_rows : rows (kept or rejected) a batch holds at most.
    batch_bytes : bytes of UTF-8 a batch holds at most, one row excepted.
    max_ratio : decompressed bytes per byte on disk, after the first 64 MiB of output.
    """

    text_column: str
    label_column: str | None = None
    turns: str | None = None
    format: str | None = None
    encoding: str = "utf-8"
    max_line_bytes: int = 16 * 2**20
    batch_rows: int = 50_000
    batch_bytes: int = 64 * 2**20
    max_ratio: float = 200.0

    def __post_init__(self) -> None:
        """Refuse values without meaning."""
        if not self.text_column:
            raise ValueError("text_column='' must name a column")
        if self.label_column == self.text_column:
            raise ValueError(f"label_column={self.label_column!r} is the text column too; name another or none")
        if self.turns is not None:
            try:
                style_of(self.turns)
            except ConfigError as error:
                raise ValueError(str(error)) from error
        for name in ("max_line_bytes", "batch_rows", "batch_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if not (math.isfinite(self.max_ratio) and self.max_ratio >= 1):
            raise ValueError(f"max_ratio={self.max_ratio} must be a finite number of at least 1")
        try:
            ascii_safe = "\n,a".encode(codecs.lookup(self.encoding).name) == b"\n,a"
        except LookupError as error:
            raise ValueError(f"encoding={self.encoding!r} is unknown; use utf-8, latin-1, cp949, …") from error
        if not ascii_safe:
            raise ValueError(f"encoding={self.encoding!r} does not contain ASCII; convert the file to UTF-8 first")


class Parsed(NamedTuple):
    """A row that was understood: its 1-based line and all its columns."""

    line: int
    values: dict[str, Any]


class Rejected(NamedTuple):
    """A row that cannot become a record."""

    line: int
    reason: str
    detail: str


class Row(NamedTuple):
    """A row that becomes a record."""

    line: int
    text: str
    label: str | None
    fields: str


@dataclass(frozen=True)
class Batch:
    """A bounded number of consecutive rows.

    Parameters
    ----------
    records : ``text`` str, ``label`` str or null, ``fields`` str (canonical JSON of all other columns, sorted keys,
        ``""`` when there are none), ``line`` i64 (1-based; the row's first line, or its row number in Parquet).
    rejected : ``line`` i64, ``reason`` str (stable code), ``detail`` str.
    """

    records: pl.DataFrame
    rejected: pl.DataFrame


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces; NaN and infinities become null, what JSON lacks becomes a string.

    >>> canonical_json({"b": float("nan"), "a": [1, "가"]})
    '{"a":[1,"가"],"b":null}'
    """
    try:
        return _ENCODER.encode(value)
    except ValueError:
        return _ENCODER.encode(_finite(value))


def _foreign(value: Any) -> Any:
    """What Parquet has and JSON has not: bytes as text or hex, dates in ISO 8601, decimals as written."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.hex()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


# Made once: json.dumps would build an encoder for every row.
_ENCODER = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"), default=_foreign
)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value


def to_row(parsed: Parsed, options: ReadOptions) -> Row | Rejected:
    """Make a record of a parsed row, or say why it cannot be one."""
    line, values = parsed
    label = take(values, options.label_column) if options.label_column is not None else None
    try:
        text = take(values, options.text_column) if options.turns is None else _said(values, options.turns)
    except TurnsError as error:
        return Rejected(line, error.reason, str(error))
    if text is None:
        return Rejected(line, "missing_text", f"no value for {options.text_column!r}")
    if not isinstance(text, str):
        return Rejected(line, "text_not_string", f"{options.text_column!r} is of type {type(text).__name__}")
    if not text.strip():
        return Rejected(line, "empty_text", f"{options.text_column!r} is empty or white space")
    if isinstance(label, dict | list | tuple | bytes):
        return Rejected(line, "label_not_scalar", f"{options.label_column!r} is of type {type(label).__name__}")
    if not (label is None or isinstance(label, str)):
        label = canonical_json(label).strip('"')
        label = None if label == "null" else label
    label = label if label is not None and label.strip() else None
    try:
        fields = canonical_json(values) if values else ""
        num_bytes = len(text.encode()) + len(fields.encode()) + (len(label.encode()) if label is not None else 0)
    except UnicodeEncodeError:
        return Rejected(line, "lone_surrogate", "half of a surrogate pair is no character")
    except (RecursionError, TypeError) as error:
        return Rejected(line, "invalid_fields", f"other columns cannot be written as JSON: {error}")
    if "\0" in text or (label is not None and "\0" in label) or ("\\u0000" in fields and _has_nul(values)):
        return Rejected(line, "nul_character", "the character U+0000 cannot be stored in SQL text")
    if num_bytes > options.max_line_bytes:
        return Rejected(line, "line_too_long", f"{num_bytes} bytes; at most {options.max_line_bytes} are read")
    return Row(line, text, label, fields)


def _said(values: dict[str, Any], turns: str) -> str:
    return rendered(contents(values, style_of(turns)))


def _has_text(values: dict[str, Any], options: ReadOptions) -> bool:
    if options.turns is None:
        return has(values, options.text_column)
    return style_of(options.turns).columns[0] in values


def _has_nul(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_has_nul(key) or _has_nul(one) for key, one in value.items())
    if isinstance(value, list | tuple):
        return any(_has_nul(one) for one in value)
    return isinstance(value, str) and "\0" in value


def checked(items: Iterator[Parsed | Rejected], options: ReadOptions, path: str) -> Iterator[Row | Rejected]:
    """Check every row; refuse the file when none of its first 1,000 rows has the text column, or it has no rows.

    Raises
    ------
    SourceRefusedError : ``missing_column``, listing the columns seen, or ``empty_file``.
    """
    pending: list[Rejected] = []
    columns: dict[str, None] = {}
    num_parsed, probing = 0, True
    for item in items:
        if isinstance(item, Parsed) and probing:
            num_parsed += 1
            probing = not _has_text(item.values, options)
            if probing and len(columns) < PROBED_ROWS:
                columns.update(dict.fromkeys(key[:_NAME_CHARS] for key in islice(names(item.values), PROBED_ROWS)))
        row = to_row(item, options) if isinstance(item, Parsed) else item
        if probing and isinstance(row, Rejected):
            pending.append(row)
            if len(pending) < PROBED_ROWS:
                continue
            _refuse_missing(columns, num_parsed, options, path)
            probing = False
            yield from pending
            pending.clear()
            continue
        yield from pending
        pending.clear()
        yield row
    if pending:
        _refuse_missing(columns, num_parsed, options, path)
        yield from pending
    elif probing:
        raise SourceRefusedError("empty_file", f"{path} holds no rows; leave it out or write it again")


def _refuse_missing(columns: dict[str, None], num_parsed: int, options: ReadOptions, path: str) -> None:
    if num_parsed == 0:
        return
    wanted, remedy = options.text_column, "Name the text column"
    if _HEADED.search(path):
        remedy += "; where the first line is a row, write a header line above it"
    if options.turns is not None:
        wanted, remedy = (
            style_of(options.turns).columns[0],
            f"Name the style of the conversations, not {options.turns!r}",
        )
    raise SourceRefusedError(
        "missing_column",
        f"{path}: none of the first {num_parsed} rows has the text column {wanted!r}; "
        f"{nearest(wanted, columns)}. {remedy}",
    )


def batched(rows: Iterator[Row | Rejected], options: ReadOptions) -> Iterator[Batch]:
    """Cut rows into batches by count and bytes, a pure function of the rows."""
    records: list[Row] = []
    rejected: list[Rejected] = []
    num_bytes = 0
    for row in rows:
        size = _OVERHEAD_BYTES
        if isinstance(row, Row):
            size += len(row.text.encode()) + len(row.fields.encode()) + len((row.label or "").encode())
        full = len(records) + len(rejected) >= options.batch_rows or num_bytes + size > options.batch_bytes
        if full and (records or rejected):
            yield _frames(records, rejected)
            records, rejected, num_bytes = [], [], 0
        if isinstance(row, Row):
            records.append(row)
        else:
            rejected.append(Rejected(row.line, row.reason, _storable(row.detail)))
        num_bytes += size
    if records or rejected:
        yield _frames(records, rejected)


def _storable(detail: str) -> str:
    """Cut a message and escape what a database cannot store."""
    cut = detail[:_DETAIL_CHARS].encode("utf-8", "backslashreplace").decode()
    return cut.replace("\0", "\\x00")


def _frames(records: list[Row], rejected: list[Rejected]) -> Batch:
    by_column = {name: [getattr(row, name) for row in records] for name in RECORD_SCHEMA}
    return Batch(
        records=pl.DataFrame(by_column, schema=RECORD_SCHEMA),
        rejected=pl.DataFrame(rejected, schema=REJECTED_SCHEMA, orient="row"),
    )
