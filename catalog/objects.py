"""Files of an object store, through fsspec: whole ones in one request, parts in two, and its driver's errors as ours.

An object appears by one put, whole or not at all, and several parts of a large one by the request that completes
them, so nothing is written aside and renamed. Endpoint and credentials are those of the driver's own variables; for
``s3://`` these are the standard ones: ``AWS_ENDPOINT_URL``, ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``.
"""

import io
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from catalog.errors import ConfigError, CorruptionError, StoreAwayError, TransientError

MARKER = ".winnow-store"
"""An empty prefix of an object store does not exist; this file, made by ``create``, is what makes it."""
AT_ONCE_BYTES = 48 * 2**20
"""A longer object is fetched in ranges side by side, which costs the driver a request more to learn its length."""
TAIL_BYTES = 64 * 2**10
"""Fetched from the end of a Parquet file to read its footer: nearly always the whole of it."""
SERVER_TROUBLE = range(500, 600)
"""HTTP statuses by which a server says that it is the one in trouble."""
NUM_FOOTERS = 1_000
"""Footers that a process remembers; with one, a part of a file costs a single request."""

BUGS = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)
"""Of ours or a driver's. They do not pass by themselves, so nobody waits for that."""

_FOOTERS: "OrderedDict[str, Any]" = OrderedDict()


class _Span(io.RawIOBase):
    """A file of which only the bytes from ``start`` on are at hand."""

    def __init__(self, num_bytes: int, start: int, held: bytes) -> None:
        self._num_bytes, self._start, self._held, self._at = num_bytes, start, held, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._num_bytes)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = self._num_bytes if size < 0 else min(self._at + size, self._num_bytes)
        if self._at < self._start or end > self._start + len(self._held):
            raise OSError(f"bytes {self._at} to {end} were not fetched, or are missing from the object")
        found = self._held[self._at - self._start : end - self._start]
        self._at = end
        return found


class ObjectFiles:
    """The files below one URL of an object store."""

    def __init__(self, url: str) -> None:
        import fsspec

        self.url = url
        try:
            self._filesystem, root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"store_url={url!r} cannot be opened: {error}; use a folder or install its extra"
            ) from error
        self._root = str(root).rstrip("/")

    def is_there(self) -> bool:
        """Whether the prefix exists.

        Raises
        ------
        ConfigError : nobody answers, or not to these credentials.
        """
        with self._answering():
            return bool(self._filesystem.exists(f"{self._root}/{MARKER}") or self._filesystem.exists(self._root))

    def create(self) -> None:
        """Leave a mark, so that the prefix exists.

        Raises
        ------
        ConfigError : the bucket does not exist, or may not be written to.
        """
        with self._answering():
            self._filesystem.pipe_file(f"{self._root}/{MARKER}", b"")

    def put(self, name: str, raw: bytes) -> None:
        """Write one object; it appears whole or not at all.

        Raises
        ------
        ConfigError : the bucket is not there. TransientError : not with these credentials.
        StoreAwayError : the store did not answer.
        """
        with self._working(f"take {name}"):
            self._filesystem.pipe_file(f"{self._root}/{name}", raw)

    def get(self, name: str, num_bytes: int) -> bytes:
        """Read one object of that length, 0 where it is not known; what is left of it where it is shorter.

        Raises
        ------
        FileNotFoundError : it is gone. ConfigError : so is the bucket.
        TransientError : not to these credentials. StoreAwayError : the store did not answer.
        """
        with self._working(f"give {name}"):
            if num_bytes > AT_ONCE_BYTES:
                return bytes(self._filesystem.cat_file(f"{self._root}/{name}"))
            return self._range(name, 0, num_bytes or None)

    def footer(self, name: str, num_bytes: int) -> Any:
        """The footer of a Parquet file of that length; the files are immutable, so it is read once a process.

        Raises
        ------
        FileNotFoundError, ConfigError, TransientError : as ``get``. CorruptionError : it has none.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        key = f"{self.url} {name}"
        if key not in _FOOTERS:
            start = max(0, num_bytes - TAIL_BYTES)
            try:
                with self._working(f"give {name}"):
                    tail = self._range(name, start, num_bytes)
                needed = int.from_bytes(tail[-8:-4], "little") + 8
                if len(tail) < needed <= num_bytes:
                    with self._working(f"give {name}"):
                        start, tail = num_bytes - needed, self._range(name, num_bytes - needed, num_bytes)
                _FOOTERS[key] = pq.read_metadata(_Span(num_bytes, start, tail))
            except (pa.ArrowException, OSError) as error:
                if isinstance(error, FileNotFoundError):
                    raise
                raise CorruptionError(f"shard {name} is damaged: {error}; restore it from a backup") from error
            if len(_FOOTERS) > NUM_FOOTERS:
                _FOOTERS.popitem(last=False)
        return _FOOTERS[key]

    def open_group(self, name: str, num_bytes: int, group: int, columns: Sequence[str] | None) -> io.RawIOBase:
        """A Parquet file of which a single row group was fetched, in one request.

        Raises
        ------
        FileNotFoundError, TransientError, CorruptionError : as ``footer``.
        """
        described = self.footer(name, num_bytes).row_group(group)
        chunks = [described.column(index) for index in range(described.num_columns)]
        wanted = [one for one in chunks if columns is None or one.path_in_schema.split(".")[0] in columns]
        starts = [one.dictionary_page_offset or one.data_page_offset for one in wanted]
        ends = [start + one.total_compressed_size for start, one in zip(starts, wanted, strict=True)]
        with self._working(f"give {name}"):
            return _Span(num_bytes, min(starts), self._range(name, min(starts), max(ends)))

    def probe(self, name: str) -> None:
        """Write a small object and take it away again.

        Raises
        ------
        ConfigError : the store refuses one or the other.
        """
        with self._answering():
            self._filesystem.pipe_file(f"{self._root}/{name}", b"x")
            self._filesystem.rm_file(f"{self._root}/{name}")

    def found(self) -> Iterator[tuple[str, int, float]]:
        """Name, bytes and time of change (seconds since 1970) of every object below the URL."""
        with self._answering():
            listed = self._filesystem.find(self._root, detail=True)
        for where, told in listed.items():
            yield where.removeprefix(f"{self._root}/"), int(told["size"]), self._modified(where, told)

    def remove(self, name: str, *, before: float) -> bool:
        """Delete an object unless it was written, or written again, since; whether it was deleted."""
        where = f"{self._root}/{name}"
        with self._answering():
            self._filesystem.invalidate_cache()
            if self._modified(where, self._filesystem.info(where)) >= before:
                return False
            self._filesystem.rm_file(where)
        return True

    def _modified(self, where: str, told: dict[str, Any]) -> float:
        moment = told.get("LastModified") or told.get("mtime") or told.get("created")
        moment = moment or self._filesystem.modified(where)
        return float(moment.timestamp() if isinstance(moment, datetime) else moment)

    def _range(self, name: str, start: int, end: int | None) -> bytes:
        return bytes(self._filesystem.cat_file(f"{self._root}/{name}", start=start, end=end))

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            # Whatever a driver raises: those of object stores have error trees of their own.
            raise ConfigError(
                f"store {self.url} does not answer ({error}); check WINNOW_STORE_URL and its credentials"
            ) from error

    @contextmanager
    def _working(self, doing: str) -> Iterator[None]:
        """Tell what passes, and is tried again, from what is gone or damaged."""
        try:
            yield
        except FileNotFoundError as error:
            if _code(error) == "NoSuchBucket":
                raise ConfigError(
                    f"store {self.url} is not there ({error}); make the bucket, or set WINNOW_STORE_URL"
                ) from error
            raise
        except PermissionError as error:
            # Also while credentials are being replaced, or a clock is set: another try is worth it.
            raise TransientError(
                f"store {self.url} would not {doing} with these credentials ({error}); check AWS_ACCESS_KEY_ID, "
                "AWS_SECRET_ACCESS_KEY and the bucket's policy"
            ) from error
        except BUGS:
            raise
        except Exception as error:
            if _code(error) == "InvalidRange":
                raise CorruptionError(
                    f"{self.url}: an object is shorter than it was written and so damaged; restore it from a backup"
                ) from error
            # A timeout, a reset connection, a 500: drivers raise errors of their own trees.
            kind = StoreAwayError if _status(error) is None or _status(error) in SERVER_TROUBLE else TransientError
            raise kind(f"store {self.url} did not {doing} ({error}); it is tried again") from error


def _response(error: BaseException) -> dict[str, Any]:
    """What the service answered, where the driver tells; nothing where no answer came."""
    found = getattr(error.__cause__, "response", None) or getattr(error, "response", None)
    return found if isinstance(found, dict) else {}


def _code(error: BaseException) -> str:
    return str(_response(error).get("Error", {}).get("Code", ""))


def _status(error: BaseException) -> int | None:
    status: int | None = _response(error).get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status
