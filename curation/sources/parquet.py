"""Apache Parquet, read in slices of a row group."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.sources import READERS
from curation.sources.batch import Parsed, ReadOptions, Rejected, Suffixes
from curation.sources.opening import FREE_BYTES, OpenedSource
from curation.sources.refusal import SourceRefusedError

MAGIC = b"PAR1"

PAGE_RATIO = 10
"""How much more than a stream Parquet may unpack to: its dictionary pages repeat a value for a few bits."""

_SLICE_ROWS = 1_000


@dataclass(frozen=True, kw_only=True)
class ParquetSuffixes(Suffixes):
    """Suffixes of Parquet."""

    suffixes: tuple[str, ...] = (".parquet", ".pq")


@READERS.register("parquet", ParquetSuffixes)
def read_parquet(source: OpenedSource, options: ReadOptions) -> Iterator[Parsed | Rejected]:
    """Read a Parquet file's rows in order; ``line`` is the 1-based row number.

    Raises
    ------
    SourceRefusedError : no Parquet magic, a missing tail (half-written), a damaged page, a column named twice, or a
        footer that declares more than ``10 * max_ratio`` bytes per byte on disk.
    """
    _check_magic(source)
    try:
        strings = _string_columns(pq.read_schema(source.path))
        file = pq.ParquetFile(
            source.path,
            read_dictionary=strings,
            buffer_size=2**20,
            pre_buffer=False,
            page_checksum_verification=True,
        )
        _check_footer(file, source, options)
        line = 1
        for batch in file.iter_batches(batch_size=_SLICE_ROWS, use_threads=False):
            for part in _parts(batch):
                yield from _values(part, line)
                line += part.num_rows
    except (pa.ArrowException, OSError) as error:
        raise SourceRefusedError("corrupt", f"{source.path}: damaged Parquet ({error}); write it again") from error


def _check_magic(source: OpenedSource) -> None:
    if source.compression is not None:
        raise SourceRefusedError(
            "unknown_format",
            f"{source.path}: Parquet inside {source.compression}; unpack it, Parquet is compressed itself",
        )
    head = source.stream.read(len(MAGIC))
    source.stream.seek(max(0, source.size_bytes - len(MAGIC)))
    tail = source.stream.read(len(MAGIC))
    if head != MAGIC:
        raise SourceRefusedError("not_parquet", f"{source.path} does not begin with PAR1: it is no Parquet file")
    if tail != MAGIC or source.size_bytes < 12:
        raise SourceRefusedError("truncated", f"{source.path} has no Parquet footer (half-written?); write it again")


def _check_footer(file: pq.ParquetFile, source: OpenedSource, options: ReadOptions) -> None:
    footer = file.metadata
    declared = sum(footer.row_group(group).total_byte_size for group in range(footer.num_row_groups))
    allowed = max(FREE_BYTES, int(PAGE_RATIO * options.max_ratio * source.size_bytes))
    if declared > allowed:
        raise SourceRefusedError(
            "decompression_bomb",
            f"{source.path} ({source.size_bytes} bytes) declares {declared} bytes of pages, more than {allowed}; "
            "if it is genuine, write it again with smaller row groups",
        )
    names = file.schema_arrow.names
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SourceRefusedError("duplicate_column", f"{source.path} has two columns named {twice[0]!r}; rename one")


def _string_columns(schema: pa.Schema) -> list[str]:
    return [column.name for column in schema if _is_text(column.type)]


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    checks = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    return any(check(kind) for check in checks)


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
    rows = min(_SLICE_ROWS, max(1, FREE_BYTES // max(1, sum(widest))))
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
