"""Arrow IPC: the file format and the stream format, as Feather 2 and the datasets library write them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from curation.sources import READERS
from curation.sources.batch import Parsed, ReadOptions, Rejected, Suffixes
from curation.sources.columnar import check_names, class_names, plain_rows, within
from curation.sources.opening import FREE_BYTES, OpenedSource
from curation.sources.parquet import PAGE_RATIO
from curation.sources.refusal import SourceRefusedError

MAGIC = b"ARROW1"
CONTINUES = b"\xff\xff\xff\xff"
"""What every message of a stream begins with since Arrow 0.15."""


@dataclass(frozen=True, kw_only=True)
class ArrowSuffixes(Suffixes):
    """Suffixes of Arrow."""

    suffixes: tuple[str, ...] = (".arrow", ".arrows", ".feather", ".ipc")
    apart: bool = True


@READERS.register("arrow", ArrowSuffixes)
def read_arrow(source: OpenedSource, options: ReadOptions) -> Iterator[Parsed | Rejected]:
    """Read an Arrow file's or stream's rows in order; ``line`` is the 1-based row number.

    A file is mapped, so that a batch of any size is paged in as it is read; of a stream one batch is held.

    Raises
    ------
    SourceRefusedError : no Arrow data (``not_arrow``), a file inside a compressed one, one that ends in the middle,
        offsets that lead outside the data, a column named twice, or a batch that unpacks to more than
        ``10 * max_ratio`` times the file.
    """
    head = source.stream.peek(len(MAGIC))  # type: ignore[attr-defined]
    is_file = head.startswith(MAGIC)
    if not is_file and not head.startswith(CONTINUES):
        raise SourceRefusedError("not_arrow", f"{source.path} begins as neither an Arrow file nor an Arrow stream")
    if is_file and source.compression is not None:
        raise SourceRefusedError(
            "unknown_format", f"{source.path}: an Arrow file inside {source.compression}; unpack it, or write a stream"
        )
    try:
        if is_file:
            with pa.memory_map(source.path) as mapped:
                file = pa.ipc.open_file(mapped)
                yield from _rows(
                    (file.get_batch(index) for index in range(file.num_record_batches)), file, source, options
                )
        else:
            with pa.ipc.open_stream(source.stream) as stream:
                yield from _rows(stream, stream, source, options)
    except MemoryError:
        raise
    except (pa.ArrowException, OSError) as error:
        short = "unexpected end" in str(error).lower() or "Expected to" in str(error)
        what = "ends in the middle (half-written?)" if short else f"is no sound Arrow data ({error})"
        reason = "truncated" if short else "corrupt"
        raise SourceRefusedError(reason, f"{source.path} {what}; write it again") from error


def _rows(
    batches: Iterator[pa.RecordBatch], reader: Any, source: OpenedSource, options: ReadOptions
) -> Iterator[Parsed | Rejected]:
    check_names(reader.schema, source.path)
    return plain_rows(within(_sound(batches, source, options), source, options), class_names(reader.schema))


def _sound(batches: Iterator[pa.RecordBatch], source: OpenedSource, options: ReadOptions) -> Iterator[pa.RecordBatch]:
    """Batches whose offsets lead nowhere else: Arrow itself trusts them."""
    allowed = max(FREE_BYTES, int(PAGE_RATIO * options.max_ratio * source.size_bytes))
    for batch in batches:
        try:
            batch.validate(full=True)
        except pa.ArrowInvalid as error:
            # A string that is no UTF-8 costs its row; the reading of the row finds it.
            if "UTF8" not in str(error):
                raise
            batch.validate()
        if batch.nbytes > allowed:
            raise SourceRefusedError(
                "decompression_bomb",
                f"{source.path} ({source.size_bytes} bytes) has a batch of {batch.nbytes} bytes, more than {allowed}; "
                "if it is genuine, write it again without compression",
            )
        yield batch
