"""Arrow record batches as rows, for Parquet and Arrow files alike."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation.sources.batch import Parsed, ReadOptions, Rejected
from curation.sources.opening import FREE_BYTES, OpenedSource
from curation.sources.refusal import SourceRefusedError

SLICE_ROWS = 1_000
FREE_TEXT_BYTES = 2**30
"""Text below which no repetition is suspicious: a value that many rows share takes a few bits in each."""
HUGGING_FACE = b"huggingface"
"""Metadata of a schema in which the datasets library keeps its features, as JSON."""


def check_names(schema: pa.Schema, path: str) -> None:
    """Refuse a file of which a row could not hold all columns.

    Raises
    ------
    SourceRefusedError : two columns have one name.
    """
    names = schema.names
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SourceRefusedError("duplicate_column", f"{path} has two columns named {twice[0]!r}; rename one")


def class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """The names behind the numbers of each column that is a ``ClassLabel`` of the datasets library."""
    metadata = (schema.metadata or {}).get(HUGGING_FACE)
    try:
        features = json.loads(metadata)["info"]["features"] if metadata else {}
        return {
            column: [str(name) for name in feature["names"]]
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        # Metadata is anybody's: without it the numbers stay numbers.
        return {}


def string_columns(schema: pa.Schema) -> list[str]:
    """Columns of text, which a dictionary may hold once for many rows."""
    return [column.name for column in schema if _is_text(column.type)]


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    checks = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    return any(check(kind) for check in checks)


def plain_rows(batches: Iterable[pa.RecordBatch], classes: dict[str, list[str]]) -> Iterator[Parsed | Rejected]:
    """Rows as plain values, numbered from 1, a bounded number at a time.

    Parameters
    ----------
    classes : as of ``class_names``; a number outside them, as -1 for none, becomes null.
    """
    line = 1
    for batch in batches:
        for part in _parts(batch):
            for row in _values(part, line):
                if isinstance(row, Parsed):
                    for column, names in classes.items():
                        number = row.values.get(column)
                        if isinstance(number, int):
                            row.values[column] = names[number] if 0 <= number < len(names) else None
                yield row
            line += part.num_rows


def within(batches: Iterable[pa.RecordBatch], source: OpenedSource, options: ReadOptions) -> Iterator[pa.RecordBatch]:
    """Pass batches on until their strings, written out, are more than any file of that size holds.

    Raises
    ------
    SourceRefusedError : more than ``max_ratio`` bytes per byte on disk, once they are more than a gibibyte.
    """
    allowed = max(FREE_TEXT_BYTES, int(options.max_ratio * source.size_bytes))
    num_bytes = 0
    for batch in batches:
        num_bytes += sum(_written_out(column) for column in batch.columns)
        if num_bytes > allowed:
            raise SourceRefusedError(
                "decompression_bomb",
                f"{source.path} ({source.size_bytes} bytes) holds texts of more than {allowed} bytes, over "
                f"{options.max_ratio:g} times its size; if it is genuine, write it again without repeated values",
            )
        yield batch


def _written_out(column: pa.Array) -> int:
    """Bytes of a column of strings, each counted in every row that has it; of any other, what it takes in memory."""
    if pa.types.is_dictionary(column.type) and _is_text(column.type.value_type):
        return pc.sum(pc.take(pc.binary_length(column.dictionary), column.indices)).as_py() or 0
    return int(column.nbytes)


def _parts(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Cut a batch so that its strings, written out, stay near 64 MiB.

    A dictionary page can repeat one long value in every row for a few bits, which no footer declares.
    """
    repeated = [pa.types.is_dictionary(column.type) and _is_text(column.type.value_type) for column in batch.columns]
    widest = [
        pc.max(pc.binary_length(column.dictionary)).as_py() or 0
        for column, is_repeated in zip(batch.columns, repeated, strict=True)
        if is_repeated
    ]
    rows = min(SLICE_ROWS, max(1, FREE_BYTES // max(1, sum(widest))))
    for start in range(0, batch.num_rows, rows):
        part = batch.slice(start, rows)
        columns = [
            column.dictionary_decode() if is_repeated else column
            for column, is_repeated in zip(part.columns, repeated, strict=True)
        ]
        yield pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _values(batch: pa.RecordBatch, first: int) -> Iterator[Parsed | Rejected]:
    """Rows as plain values. Arrow does not check UTF-8 when it reads, so a bad string shows only here."""
    try:
        rows: list[dict[str, Any]] = batch.to_pylist()
    except UnicodeDecodeError:
        for offset in range(batch.num_rows):
            try:
                yield Parsed(first + offset, batch.slice(offset, 1).to_pylist()[0])
            except UnicodeDecodeError as error:
                yield Rejected(first + offset, "invalid_utf8", f"a column is not UTF-8: {error.reason}")
        return
    for offset, row in enumerate(rows):
        yield Parsed(first + offset, row)
