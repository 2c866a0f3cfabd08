"""The data plane: immutable Parquet shards and manifests, named by their own checksum, in any fsspec store.

A file is written aside, flushed, and renamed to a name that contains the SHA-256 of its bytes, so no path is ever
overwritten and equal content is stored once. Readers verify that SHA-256 and Parquet's page checksums: of 200
single-bit flips in an unchecked Parquet file, 98 read back as different data without an error.
"""

import errno
import hashlib
import io
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from catalog.errors import ConfigError, CorruptionError, NotFoundError, TransientError
from catalog.faults import fault
from catalog.objects import ObjectFiles
from catalog.settings import Settings

PARTS_KEY = "winnow.parts"
"""Parquet metadata of a file in parts: the row group of each, null for an empty one."""
_VERIFIED: set[tuple[str, int]] = set()
"""Mapped files that this process has verified, by path and time of change."""
NUM_MANIFESTS, MANIFEST_BYTES = 64, 2**20
"""So many manifests of an object store a process remembers, none longer than that."""
_MANIFESTS: dict[str, bytes] = {}
"""Verified bytes by their SHA-256."""
ROW_GROUP = 16_384
"""Rows of a shard that are written and read at a time."""
PROBE = ".winnow-probe-"
ASIDE = ".removing"
"""Suffix of a file that is about to be deleted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredFile:
    """Where a stored file is and what its bytes must hash to.

    Parameters
    ----------
    name : path below the store's root, ``<kind>/<2 hex>/<sha256>.<suffix>``.
    sha256 : of the file's bytes.
    size_bytes : of the file.
    num_rows : rows of a shard; 0 for a manifest.
    """

    name: str
    sha256: str
    size_bytes: int
    num_rows: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain JSON for manifests and unit results."""
        return {"name": self.name, "sha256": self.sha256, "size_bytes": self.size_bytes, "num_rows": self.num_rows}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "StoredFile":
        """The inverse of ``to_json``."""
        return cls(**value)


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file that lies in the store, whoever refers to it.

    Parameters
    ----------
    modified : seconds since 1970, by the store's clock.
    """

    name: str
    size_bytes: int
    modified: float


class Store:
    """A content-addressed file store behind an fsspec URL."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_local = url.startswith("file://") or "://" not in url
        self._root = url.removeprefix("file://") if self.is_local else url

    @classmethod
    def of(cls, settings: Settings) -> "Store":
        """The store in force."""
        return cls(settings.store)

    @cached_property
    def _objects(self) -> ObjectFiles:
        return ObjectFiles(self.url)

    def check(self) -> None:
        """Refuse a store that is not there, before any work begins.

        Raises
        ------
        ConfigError : the root folder or bucket does not exist or cannot be listed.
        """
        if not (Path(self._root).is_dir() if self.is_local else self._objects.is_there()):
            raise ConfigError(f"store {self.url} is not there; run `winnow init`, mount it, or set WINNOW_STORE_URL")

    def create(self) -> None:
        """Make the root folder of a local store, or leave a mark in a remote one.

        Raises
        ------
        ConfigError : the bucket does not exist, or may not be written to.
        """
        if self.is_local:
            Path(self._root).mkdir(parents=True, exist_ok=True)
        else:
            self._objects.create()

    def write_frame(self, frame: pl.DataFrame, kind: str) -> StoredFile:
        """Write one shard and return its name and checksum. Equal frames give equal bytes, hence one file.

        Raises
        ------
        TransientError : the disk is full; nothing was published.
        """
        import pyarrow.parquet as pq

        sink = io.BytesIO()
        with pq.ParquetWriter(
            sink,
            frame.clear().to_arrow().schema,
            compression="zstd",
            write_page_checksum=True,
            store_schema=False,
            use_dictionary=False,
        ) as writer:
            # Group by group: Arrow's copy of a whole frame is as large as the frame.
            for rows in frame.iter_slices(ROW_GROUP) if frame.height else (frame,):
                writer.write_table(rows.to_arrow(), row_group_size=ROW_GROUP)
        return self._write(sink.getbuffer(), kind, "parquet", frame.height)

    def read_frame(self, file: StoredFile, columns: list[str] | None = None) -> pl.DataFrame:
        """Read one shard, verifying the file's SHA-256 and every page's checksum.

        Raises
        ------
        CorruptionError : a checksum does not match, or the file is truncated.
        NotFoundError : the file is gone from the store.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        raw = self._read(file)
        try:
            table = pq.read_table(
                pa.BufferReader(raw), columns=columns, page_checksum_verification=True, use_threads=False
            )
        except (pa.ArrowException, OSError) as error:
            raise CorruptionError(f"shard {file.name} is damaged: {error}; restore it from a backup") from error
        frame = pl.from_arrow(table)
        assert isinstance(frame, pl.DataFrame)
        return frame

    def write_parts(self, parts: Sequence[pl.DataFrame], kind: str) -> StoredFile:
        """Write frames of one schema as a file from which each can be read alone: a row group a part.

        For what is handed from every unit of a stage to every unit of the next.
        """
        import pyarrow.parquet as pq

        sink = io.BytesIO()
        schema = parts[0].head(0).to_arrow().schema
        groups: list[int | None] = []
        with pq.ParquetWriter(
            sink,
            schema,
            compression="zstd",
            compression_level=1,
            write_page_checksum=True,
            use_dictionary=False,
            store_schema=False,
        ) as writer:
            for part in parts:
                groups.append(sum(one is not None for one in groups) if part.height else None)
                if part.height:
                    writer.write_table(part.to_arrow(), row_group_size=part.height)
            writer.add_key_value_metadata({PARTS_KEY: json.dumps(groups)})
        return self._write(sink.getbuffer(), kind, "parquet", sum(part.height for part in parts))

    def read_part(self, file: StoredFile, part: int, columns: list[str] | None = None) -> pl.DataFrame:
        """Read one part of such a file. Its pages' checksums are verified; the file's is not: that would read it all.

        Raises
        ------
        CorruptionError : a page's checksum does not match, or the file is truncated.
        NotFoundError : the file is gone from the store.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            footer = None if self.is_local else self._objects.footer(file.name, file.size_bytes)
            with self._open_part(file, part, columns, footer) as source:
                parquet = pq.ParquetFile(source, metadata=footer, page_checksum_verification=True)
                group = _group_of(parquet.metadata, part)
                if group is None:
                    table = parquet.schema_arrow.empty_table()
                    table = table.select(columns) if columns else table
                else:
                    table = parquet.read_row_group(group, columns=columns, use_threads=False)
        except FileNotFoundError as error:
            raise NotFoundError(f"{file.name} is missing from store {self.url}; restore it from a backup") from error
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            raise CorruptionError(f"shard {file.name} is damaged: {error}; restore it from a backup") from error
        frame = pl.from_arrow(table)
        assert isinstance(frame, pl.DataFrame)
        return frame

    def _open_part(self, file: StoredFile, part: int, columns: list[str] | None, footer: Any) -> Any:
        """The file; of an object the part alone."""
        if footer is None:
            return (Path(self._root) / file.name).open("rb")
        group = _group_of(footer, part)
        return io.BytesIO() if group is None else self._objects.open_group(file.name, file.size_bytes, group, columns)

    def write_bytes(self, raw: bytes, kind: str, suffix: str) -> StoredFile:
        """Write a file of any other sort, a model's weights for example."""
        return self._write(memoryview(raw), kind, suffix, 0)

    def read_bytes(self, file: StoredFile) -> bytes:
        """Read such a file, verifying its checksum."""
        return self._read(file)

    def map_bytes(self, file: StoredFile) -> Any:
        """Such a file as a buffer. Where the store is a folder, it lies on disk, and only what is used is read.

        Its checksum is verified the first time a process asks for it.
        """
        import pyarrow as pa

        if not self.is_local:
            return pa.py_buffer(self._read(file))
        path = Path(self._root) / file.name
        try:
            with pa.memory_map(str(path)) as mapped:
                buffer = mapped.read_buffer()
        except FileNotFoundError as error:
            raise NotFoundError(f"{file.name} is missing from store {self.url}; restore it from a backup") from error
        seen = (str(path), path.stat().st_mtime_ns)
        if seen not in _VERIFIED:
            self._verify(file, buffer)
            _VERIFIED.add(seen)
        return buffer

    def write_json(self, document: dict[str, Any], kind: str) -> StoredFile:
        """Write a manifest as canonical JSON: sorted keys, no spaces, so that equal documents are equal bytes."""
        raw = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        return self._write(memoryview(raw), kind, "json", 0)

    def read_json(self, file: StoredFile) -> dict[str, Any]:
        """Read a manifest, verifying its checksum. An object store is asked once a process: every unit reads some."""
        raw = _MANIFESTS.get(file.sha256)
        if raw is None:
            raw = self._read(file)
            if not self.is_local and len(raw) <= MANIFEST_BYTES:
                while len(_MANIFESTS) >= NUM_MANIFESTS:
                    _MANIFESTS.pop(next(iter(_MANIFESTS)), None)
                _MANIFESTS[file.sha256] = raw
        document: dict[str, Any] = json.loads(raw)
        return document

    def probe(self) -> None:
        """Write a small file and take it away again.

        Raises
        ------
        ConfigError : the store refuses one or the other.
        """
        name = f"{PROBE}{uuid.uuid4().hex}"
        if self.is_local:
            try:
                (Path(self._root) / name).write_bytes(b"x")
                (Path(self._root) / name).unlink()
            except OSError as error:
                raise ConfigError(f"store {self.url} cannot be written to ({error.strerror})") from error
            return
        self._objects.probe(name)

    def files(self) -> Iterator[FoundFile]:
        """Everything below the root, in no order; what killed writers left half-written too."""
        if self.is_local:
            root = Path(self._root)
            for folder, _, names in os.walk(root):
                for name in names:
                    path = Path(folder) / name
                    with suppress(FileNotFoundError):
                        told = path.stat()
                        yield FoundFile(path.relative_to(root).as_posix(), told.st_size, told.st_mtime)
            return
        for name, size_bytes, modified in self._objects.found():
            yield FoundFile(name, size_bytes, modified)

    def remove(self, name: str, *, before: float) -> bool:
        """Delete a file unless it was written, or written again, since; whether it was deleted.

        In a folder it is moved aside, looked at and only then deleted: whoever writes the same bytes in that moment
        finds no file and writes a new one, or touches this one, which is then moved back.

        Parameters
        ----------
        name : as ``files`` tells it. before : seconds since 1970.
        """
        if not self.is_local:
            return self._objects.remove(name, before=before)
        path = Path(self._root) / name
        aside = path.with_name(f"{path.name}{ASIDE}")
        try:
            path.rename(aside)
        except FileNotFoundError:
            return False
        if aside.stat().st_mtime >= before:
            self._put_back(aside, path)
            return False
        aside.unlink()
        return True

    def mend(self) -> None:
        """Put back what a killed ``remove`` left aside."""
        if self.is_local:
            for aside in Path(self._root).rglob(f"*{ASIDE}"):
                self._put_back(aside, aside.with_name(aside.name.removesuffix(ASIDE)))

    @staticmethod
    def _put_back(aside: Path, path: Path) -> None:
        # A link fails where a new file has come meanwhile; a rename would replace it.
        with suppress(FileExistsError):
            path.hardlink_to(aside)
        aside.unlink()

    def _write(self, raw: memoryview, kind: str, suffix: str, num_rows: int) -> StoredFile:
        sha256 = hashlib.sha256(raw).hexdigest()
        name = f"{kind}/{sha256[:2]}/{sha256}.{suffix}"
        stored = StoredFile(name=name, sha256=sha256, size_bytes=raw.nbytes, num_rows=num_rows)
        if not self.is_local:
            self._objects.put(name, bytes(raw))
            return stored
        try:
            fault("store.before_write")
            self._write_local(raw, Path(self._root) / name)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise TransientError(
                    f"no space left for {raw.nbytes:,} bytes in store {self.url}; free space, then run the same command"
                ) from error
            raise TransientError(f"store {self.url} refused {name}: {error}") from error
        fault("store.after_write")
        return stored

    def _write_local(self, raw: memoryview, path: Path) -> None:
        if not Path(self._root).is_dir():
            raise ConfigError(f"store {self.url} is not there; mount it, or run `winnow init`")
        # Its bytes, not only its size: writing a damaged file again is what heals it.
        if self._is_there(path, raw):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        try:
            with aside.open("xb") as file:
                half = raw.nbytes // 2
                file.write(raw[:half])
                fault("store.half_written")
                file.write(raw[half:])
                file.flush()
                os.fsync(file.fileno())
            fault("store.before_rename")
            aside.replace(path)
            fault("store.after_rename")
        finally:
            aside.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @staticmethod
    def _is_there(path: Path, raw: memoryview) -> bool:
        try:
            if path.stat().st_size != raw.nbytes or path.read_bytes() != raw:
                return False
            # As if just written: what nobody has referred to for long is garbage, and this will be in a moment.
            os.utime(path)
        except FileNotFoundError:
            return False
        return True

    def _read(self, file: StoredFile) -> bytes:
        try:
            if self.is_local:
                raw = (Path(self._root) / file.name).read_bytes()
            else:
                raw = self._objects.get(file.name, file.size_bytes)
        except FileNotFoundError as error:
            raise NotFoundError(f"{file.name} is missing from store {self.url}; restore it from a backup") from error
        self._verify(file, raw)
        return raw

    def _verify(self, file: StoredFile, raw: Any) -> None:
        sha256 = hashlib.sha256(raw).hexdigest()
        if sha256 != file.sha256:
            raise CorruptionError(
                f"{file.name} is damaged: SHA-256 is {sha256[:12]}…, must be {file.sha256[:12]}…; "
                "restore it from a backup"
            )


def _group_of(footer: Any, part: int) -> int | None:
    """The row group of a part; None for an empty one."""
    group: int | None = json.loads(footer.metadata[PARTS_KEY.encode()])[part]
    return group
