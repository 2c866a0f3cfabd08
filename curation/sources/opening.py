"""Opening a source: what kind of file it is, and its bytes after decompression."""

import io
import lzma
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa

from catalog.errors import NotFoundError
from curation.sources.refusal import SourceRefusedError

COMPRESSIONS = {".bz2": "bz2", ".gz": "gzip", ".xz": "xz", ".zst": "zstd"}
MAGIC = {"bz2": b"BZh", "gzip": b"\x1f\x8b", "xz": b"\xfd7zXZ\x00", "zstd": b"\x28\xb5\x2f\xfd"}
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
ARCHIVES = {b"PK\x03\x04": "a zip archive"}

FREE_BYTES = 64 * 2**20
"""Output below which no decompression ratio is suspicious."""

XZ_MEMORY_BYTES = 128 * 2**20
"""Memory that unpacking xz may need: twice what its highest preset takes."""

_CHUNK_BYTES = 2**20


@dataclass(frozen=True, kw_only=True)
class OpenedSource:
    """A file ready to be parsed: its path, its decompressed bytes, and its size on disk."""

    path: str
    stream: BinaryIO
    size_bytes: int
    compression: str | None


def split_suffixes(path: str) -> tuple[str, str | None]:
    """The lower-case format suffix and the compression its name claims.

    >>> split_suffixes("a/tickets.JSONL.gz")
    ('.jsonl', 'gzip')
    >>> split_suffixes("tickets.csv")
    ('.csv', None)
    """
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    compression = COMPRESSIONS.get(suffixes[-1]) if suffixes else None
    if compression is not None:
        suffixes.pop()
    return (suffixes[-1] if suffixes else ""), compression


@contextmanager
def opened(path: str, max_ratio: float, *, packed: bool = False) -> Iterator[OpenedSource]:
    """Open a file for parsing, refusing what can never be read.

    A compressed file is decompressed once in full before the first byte is handed out, so that a half-written one or a
    bomb is refused whole rather than after half of its rows.

    Parameters
    ----------
    path : a local file.
    max_ratio : output bytes allowed per byte on disk, once the output passes 64 MiB.
    packed : hand out the bytes as they lie on disk, for a reader that unpacks them part by part.

    Raises
    ------
    NotFoundError : there is no such file.
    SourceRefusedError : a folder, an empty file, an archive, UTF-16, a truncated or corrupt stream, a bomb.
    """
    size_bytes, compression = inspect(path)
    if compression is None or packed:
        with Path(path).open("rb") as plain:
            yield OpenedSource(path=path, stream=plain, size_bytes=size_bytes, compression=compression)
        return
    _check_whole(path, compression, size_bytes, max_ratio)
    with _decompressed(path, compression) as stream:
        _refuse_utf16(path, cast("io.BufferedReader", stream).peek(4)[:4])
        yield OpenedSource(path=path, stream=stream, size_bytes=size_bytes, compression=compression)


def inspect(path: str) -> tuple[int, str | None]:
    """Size in bytes and real compression of a regular file; its first bytes must agree with its name.

    Raises
    ------
    NotFoundError : there is no such file.
    SourceRefusedError : see ``opened``.
    """
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
            raise SourceRefusedError("not_a_file", f"{path} is {kind}; name the files in it, e.g. {path}/*.jsonl")
        with Path(path).open("rb") as file:
            head = file.read(8)
    except FileNotFoundError as error:
        raise NotFoundError(f"no file {path}; check the path") from error
    except PermissionError as error:
        raise SourceRefusedError("unreadable", f"{path} may not be read; grant this user read permission") from error
    if not head:
        raise SourceRefusedError("empty_file", f"{path} is empty (0 bytes); leave it out or write it again")
    claimed = split_suffixes(path)[1]
    actual = next((name for name, magic in MAGIC.items() if head.startswith(magic)), None)
    if claimed is not None and actual != claimed:
        found = f"{actual} data" if actual else "no compressed data"
        raise SourceRefusedError(
            "wrong_compression", f"{path} is named as {claimed} but holds {found}; rename or compress it again"
        )
    for magic, kind in ARCHIVES.items():
        if head.startswith(magic):
            raise SourceRefusedError("unknown_format", f"{path} is {kind}; unpack it and give its files")
    _refuse_utf16(path, head)
    return status.st_size, actual


def _refuse_utf16(path: str, head: bytes) -> None:
    if head.startswith(UTF16_MARKS):
        raise SourceRefusedError(
            "wrong_encoding", f"{path} is UTF-16; convert it: iconv -f UTF-16 -t UTF-8 FILE > NEW_FILE"
        )


@contextmanager
def _decompressed(path: str, compression: str) -> Iterator[BinaryIO]:
    if compression == "xz":
        # Arrow has no xz; Python's reader bounds no memory, so the decompressor is ours.
        with Path(path).open("rb") as packed:
            yield cast(BinaryIO, io.BufferedReader(Unxz(packed), _CHUNK_BYTES))
        return
    with pa.OSFile(path, "rb") as raw, pa.CompressedInputStream(raw, compression) as stream:
        yield cast(BinaryIO, io.BufferedReader(stream, _CHUNK_BYTES))


class Unxz(io.RawIOBase):
    """The bytes of an xz file, whose dictionary may need ``XZ_MEMORY_BYTES``; one stream after another.

    Raises
    ------
    OSError, lzma.LZMAError : while reading, where the file ends in the middle, is damaged, or needs more memory.
    """

    def __init__(self, packed: BinaryIO) -> None:
        self._packed = packed
        self._begin()

    def _begin(self) -> None:
        self._decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY_BYTES)

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; 0 at the end of the last stream."""
        while True:
            if self._decompressor.eof:
                # Streams may be padded with zeros to a multiple of four bytes.
                rest = self._decompressor.unused_data.lstrip(b"\0") or self._packed.read(_CHUNK_BYTES).lstrip(b"\0")
                if not rest:
                    return 0
                self._begin()
            elif self._decompressor.needs_input:
                rest = self._packed.read(_CHUNK_BYTES)
                if not rest:
                    raise OSError("truncated xz stream")
            else:
                rest = b""
            data = self._decompressor.decompress(rest, len(buffer))
            if data:
                buffer[: len(data)] = data
                return len(data)


def _check_whole(path: str, compression: str, size_bytes: int, max_ratio: float) -> None:
    allowed = max(FREE_BYTES, int(max_ratio * size_bytes))
    num_bytes = 0
    try:
        with _decompressed(path, compression) as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                num_bytes += len(chunk)
                if num_bytes > allowed:
                    raise SourceRefusedError(
                        "decompression_bomb",
                        f"{path} ({size_bytes} bytes) unpacks to more than {allowed} bytes, over {max_ratio:g} times "
                        "its size; if it is genuine, decompress it first",
                    )
    except (OSError, EOFError, lzma.LZMAError) as error:
        reason = "truncated" if "runcated" in str(error) else "corrupt"
        what = "ends in the middle (half-written?)" if reason == "truncated" else "is damaged"
        raise SourceRefusedError(reason, f"{path}: the {compression} data {what}; write the file again") from error
    if num_bytes == 0:
        raise SourceRefusedError("empty_file", f"{path} unpacks to nothing; leave it out or write it again")
