"""Apache Parquet, read in slices of a row group."""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from curation.sources import READERS
from curation.sources.batch import Parsed, ReadOptions, Rejected, Suffixes
from curation.sources.columnar import SLICE_ROWS, check_names, class_names, plain_rows, string_columns, within
from curation.sources.opening import FREE_BYTES, OpenedSource
from curation.sources.refusal import SourceRefusedError

MAGIC = b"PAR1"

PAGE_RATIO = 10
"""How much more than a stream Parquet may unpack to: its dictionary pages repeat a value for a few bits."""


@dataclass(frozen=True, kw_only=True)
class ParquetSuffixes(Suffixes):
    """Suffixes of Parquet."""

    suffixes: tuple[str, ...] = (".parquet", ".pq")
    apart: bool = True


@READERS.register("parquet", ParquetSuffixes)
def read_parquet(source: OpenedSource, options: ReadOptions) -> Iterator[Parsed | Rejected]:
    """Read a Parquet file's rows in order; ``line`` is the 1-based row number.

    Raises
    ------
    SourceRefusedError : no Parquet magic, a missing tail (half-written), a damaged page, a column named twice, a
        footer that declares more than ``10 * max_ratio`` bytes per byte on disk, or texts of more than ``max_ratio``.
    """
    _check_magic(source)
    try:
        strings = string_columns(pq.read_schema(source.path))
        file = pq.ParquetFile(
            source.path,
            read_dictionary=strings,
            buffer_size=2**20,
            pre_buffer=False,
            page_checksum_verification=True,
        )
        _check_footer(file, source, options)
        yield from plain_rows(
            within(file.iter_batches(batch_size=SLICE_ROWS, use_threads=False), source, options),
            class_names(file.schema_arrow),
        )
    except MemoryError:
        raise
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
    check_names(file.schema_arrow, source.path)
