"""Reading a file in a process of its own, whose memory is limited: for formats whose files can unpack to anything.

What a Parquet or Arrow file takes to be read is up to whoever wrote it: its footer may lie, and a page of a few bytes
may unpack to gigabytes. A reader that runs out of its limit ends, with a reason; whoever asked for it goes on.
"""

import json
import os
import resource
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl

from catalog.errors import NotFoundError, ServiceError
from curation.sources.batch import Batch, ReadOptions
from curation.sources.reading import read_batches, reader_of
from curation.sources.refusal import SourceRefusedError

MEMORY_BYTES = 2 * 2**30
"""What a reader may take beyond what it has imported."""
_HEAD = struct.Struct("<cQ")
_FRAME, _REFUSED, _MISSING, _MEMORY, _END = b"f", b"r", b"n", b"m", b"e"


def read_guarded(path: str, options: ReadOptions, *, memory_bytes: int = MEMORY_BYTES) -> Iterator[Batch]:
    """Read a file as ``read_batches``, where its format makes that necessary in a process of its own.

    Parameters
    ----------
    memory_bytes : that the process may take.

    Raises
    ------
    NotFoundError, SourceRefusedError : as of ``read_batches``; also where reading takes more memory than that
        (``decompression_bomb``), or ends the process (``reader_died``).
    """
    if not reader_of(path, options).config().apart:
        yield from read_batches(path, options)
        return
    command = [sys.executable, "-m", "curation.sources.apart", path, json.dumps(asdict(options)), str(memory_bytes)]
    root = str(Path(__file__).parents[2])
    environment = os.environ | {
        # More threads take more address space, and gain nothing here.
        "POLARS_MAX_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "ARROW_DEFAULT_MEMORY_POOL": "system",
        "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH")))),
    }
    with subprocess.Popen(  # noqa: S603 - our own module, no shell
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as process:
        try:
            yield from _batches(path, process, memory_bytes)
        finally:
            process.kill()


def _batches(path: str, process: "subprocess.Popen[bytes]", memory_bytes: int) -> Iterator[Batch]:
    waiting: list[pl.DataFrame] = []
    while True:
        told = _next(process)
        if told is None and process.wait() == -signal.SIGABRT:
            # Not every library raises an error where there is no memory: some give up.
            told = _MEMORY, b""
        if told is None:
            raise SourceRefusedError(
                "reader_died", f"{path} ended the process that read it; it is damaged or hostile: write it again"
            )
        kind, body = told
        if kind == _FRAME:
            waiting.append(_unpacked(body))
            if len(waiting) == 2:
                yield Batch(records=waiting[0], rejected=waiting[1])
                waiting.clear()
        elif kind == _REFUSED:
            refusal = json.loads(body)
            raise SourceRefusedError(refusal["reason"], refusal["message"])
        elif kind == _MISSING:
            raise NotFoundError(body.decode())
        elif kind == _MEMORY:
            raise SourceRefusedError(
                "decompression_bomb",
                f"{path} takes more than {memory_bytes:,} bytes of memory to be read; if it is genuine, write it again "
                "with smaller row groups",
            )
        else:
            return


def _next(process: "subprocess.Popen[bytes]") -> tuple[bytes, bytes] | None:
    """The next thing that the reader tells, or None where it has ended in the middle of it, or before."""
    assert process.stdout is not None
    head = process.stdout.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    kind, num_bytes = _HEAD.unpack(head)
    body = process.stdout.read(num_bytes)
    return (kind, body) if len(body) == num_bytes else None


def _packed(frame: pl.DataFrame) -> Any:
    # By Arrow itself: where memory is short it says so, and polars calls it an error of the disk.
    import pyarrow as pa

    table = frame.to_arrow()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return memoryview(sink.getvalue())


def _unpacked(raw: bytes) -> pl.DataFrame:
    import pyarrow as pa

    frame = pl.from_arrow(pa.ipc.open_stream(raw).read_all())
    assert isinstance(frame, pl.DataFrame)
    return frame


def _send(stream: BinaryIO, kind: bytes, body: Any) -> None:
    stream.write(_HEAD.pack(kind, len(body)))
    stream.write(body)
    stream.flush()


def _limit(memory_bytes: int) -> None:
    has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    wanted = has + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (wanted if most == resource.RLIM_INFINITY else min(wanted, most), most))


def main() -> None:
    """Entry point of ``python -m curation.sources.apart FILE OPTIONS MEMORY_BYTES``: batches to stdout."""
    path, given, memory_bytes = sys.argv[1:]
    out = sys.stdout.buffer
    options: dict[str, Any] = json.loads(given)
    # Before the limit, because it is no part of what the file takes.
    import pyarrow.parquet  # noqa: F401

    reader_of(path, ReadOptions(**options))
    if Path("/proc/self/statm").exists():
        _limit(int(memory_bytes))
    try:
        for batch in read_batches(path, ReadOptions(**options)):
            for frame in (batch.records, batch.rejected):
                _send(out, _FRAME, _packed(frame))
    except SourceRefusedError as refused:
        _send(out, _REFUSED, json.dumps({"reason": refused.reason, "message": str(refused)}).encode())
    except ServiceError as missing:
        _send(out, _MISSING, str(missing).encode())
    except MemoryError:
        _send(out, _MEMORY, b"")
    else:
        _send(out, _END, b"")


if __name__ == "__main__":
    main()
