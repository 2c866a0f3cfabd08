"""Numbering equal contents over more records than fit in memory, by way of temporary files.

Hashes are spread over files by their first bits, so that equal ones meet in one file; the counters found there are
spread again by row, so that they come back in the order of the rows. Each file is small enough to be held.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from curation.records import Seen, count_before

PARTITION_ROWS = 500_000
"""About 100 bytes of memory each while a file is worked on."""

MAX_FILES = 100
"""Of each of the two kinds: beyond 50 million records the files grow instead, since open files are limited too."""

Words = np.ndarray[Any, np.dtype[np.uint64]]
Counters = np.ndarray[Any, np.dtype[np.int64]]


class Numbering:
    """Counters of new records: how many records of equal content come before each, old ones included.

    Use as a context: first ``add`` the hashes of all records, those that have ids already before the new ones, then
    ``count``, then ``take`` the counters of the new ones in the order in which they were added.

    Parameters
    ----------
    folder : where the temporary files go; they have no names, so nothing stays of a process that is killed.
    num_old, num_new : records that have ids, and that get one.
    partition_rows : rows a file is meant to hold, and that are worked on at a time.
    """

    def __init__(self, folder: Path, *, num_old: int, num_new: int, partition_rows: int = PARTITION_ROWS) -> None:
        self._num_old, self._num_new = num_old, num_new
        self._added = self._taken = 0
        self._block = partition_rows
        self._range = max(partition_rows, -(-num_new // MAX_FILES))
        num_partitions = min(MAX_FILES, -(-(num_old + num_new) // partition_rows))
        self._hashes = _Files(folder, num_partitions, width=3)
        self._counters = _Files(folder, -(-num_new // self._range), width=2)
        self._held: Counters = np.empty(0, np.int64)

    def __enter__(self) -> "Numbering":
        return self

    def __exit__(self, *_: object) -> None:
        self._hashes.close()
        self._counters.close()

    def add(self, hashes: Words) -> None:
        """Take note of further records, (n, 2) uint64."""
        rows = np.arange(self._added, self._added + len(hashes), dtype=np.uint64)
        partition = (hashes[:, 0] >> np.uint64(32)) * np.uint64(len(self._hashes)) >> np.uint64(32)
        self._hashes.add(partition, np.column_stack([hashes, rows]))
        self._added += len(hashes)

    def count(self, check: Callable[[], None]) -> None:
        """Work through the partitions; ``check`` is called between blocks and may raise."""
        assert self._added == self._num_old + self._num_new
        for partition in range(len(self._hashes)):
            seen = Seen.nothing()
            for block in self._hashes.blocks(partition, self._block):
                check()
                counters, seen = count_before(block[:, :2], seen)
                found = (counters > 0) & (block[:, 2] >= self._num_old)
                rows = block[found, 2] - np.uint64(self._num_old)
                pairs = np.column_stack([rows, counters[found].astype(np.uint64)])
                self._counters.add(rows // np.uint64(self._range), pairs)

    def take(self, num_rows: int) -> Counters:
        """The counters of the next new records, (num_rows,) int64."""
        parts = [self._held[:num_rows]]
        missing = num_rows - len(parts[0])
        self._held = self._held[num_rows:]
        while missing > 0:
            self._held = self._load()
            parts.append(self._held[:missing])
            self._held = self._held[missing:]
            missing -= len(parts[-1])
        return np.concatenate(parts)

    def _load(self) -> Counters:
        begin = self._taken
        counters = np.zeros(min(self._range, self._num_new - begin), np.int64)
        for block in self._counters.blocks(begin // self._range, self._block):
            counters[block[:, 0].astype(np.int64) - begin] = block[:, 1]
        self._taken += len(counters)
        return counters


class _Files:
    """Rows of ``width`` uint64 in nameless files."""

    def __init__(self, folder: Path, count: int, *, width: int) -> None:
        self._width = width
        self._open = ExitStack()
        files = (tempfile.TemporaryFile(dir=folder) for _ in range(count))  # noqa: SIM115 - closed by the stack
        self._files = [self._open.enter_context(file) for file in files]

    def __len__(self) -> int:
        return len(self._files)

    def add(self, file: Words, rows: Words) -> None:
        """Append each row to the file whose number stands beside it."""
        order = np.argsort(file, kind="stable")
        rows = rows[order]
        ends = np.searchsorted(file[order], np.arange(len(self._files) + 1, dtype=np.uint64))
        for number, begin in enumerate(ends[:-1]):
            if begin < ends[number + 1]:
                self._files[number].write(rows[begin : ends[number + 1]].tobytes())

    def blocks(self, number: int, num_rows: int) -> Iterator[Words]:
        """One file's rows in the order in which they came, at most so many at a time."""
        self._files[number].seek(0)
        while raw := self._files[number].read(num_rows * self._width * 8):
            yield np.frombuffer(raw, np.uint64).reshape(-1, self._width)

    def close(self) -> None:
        self._open.close()
