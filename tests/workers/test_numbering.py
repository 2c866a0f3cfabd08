"""Numbering equal contents through files: the same counters as in memory, in little memory, leaving nothing behind."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from curation.records import Seen, count_before
from workers.numbering import MAX_FILES, Numbering


def numbered(folder: Path, blocks: list[np.ndarray], *, num_old: int, partition_rows: int) -> np.ndarray:
    """The new rows' counters, the first ``num_old`` rows being old."""
    num_new = sum(map(len, blocks)) - num_old
    with Numbering(folder, num_old=num_old, num_new=num_new, partition_rows=partition_rows) as numbering:
        for block in blocks:
            numbering.add(block)
        numbering.count(lambda: None)
        assert list(folder.iterdir()) == []
        takes = [3, 0, 700, 1, num_new]
        return np.concatenate(
            [numbering.take(min(one, max(0, num_new - sum(takes[:at])))) for at, one in enumerate(takes)]
        )


@pytest.mark.parametrize("num_distinct", [1, 40, 100_000])
@pytest.mark.parametrize("partition_rows", [7, 300, 10_000])
@pytest.mark.parametrize("num_old", [0, 1_500, 3_000])
def test_counters_are_those_of_one_pass_in_memory(
    tmp_path: Path, num_distinct: int, partition_rows: int, num_old: int
) -> None:
    rng = np.random.default_rng(0)
    pool = rng.integers(0, 2**64, (num_distinct, 2), np.uint64)
    hashes = pool[rng.integers(0, num_distinct, 3_000)]
    expected, _ = count_before(hashes, Seen.nothing())
    blocks = np.split(hashes, [10, 10, 999, 1_500])
    found = numbered(tmp_path, blocks, num_old=num_old, partition_rows=partition_rows)
    assert found.tolist() == expected[num_old:].tolist()


def test_nothing_to_number_is_no_counter(tmp_path: Path) -> None:
    assert numbered(tmp_path, [np.empty((0, 2), np.uint64)], num_old=0, partition_rows=5).tolist() == []


@pytest.mark.parametrize("num_distinct", [1, 2**40], ids=["all_equal", "all_different"])
def test_memory_is_bounded_by_the_partition_not_by_the_rows(tmp_path: Path, num_distinct: int) -> None:
    num_blocks, block_rows, partition_rows = 100, 10_000, 20_000
    assert num_blocks * block_rows <= MAX_FILES * partition_rows
    rng = np.random.default_rng(0)
    tracemalloc.start()
    try:
        num_new = num_blocks * block_rows
        with Numbering(tmp_path, num_old=0, num_new=num_new, partition_rows=partition_rows) as numbering:
            for _ in range(num_blocks):
                # The first half decides the file: an odd factor spreads it over all of them.
                rows = rng.integers(0, num_distinct, (block_rows, 2), np.uint64)
                numbering.add(rows * np.uint64(0x9E3779B97F4A7C15))
            numbering.count(lambda: None)
            total = sum(int(numbering.take(block_rows).sum()) for _ in range(num_blocks))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert total == (num_new * (num_new - 1) // 2 if num_distinct == 1 else 0)
    # A million rows in memory would take 24 MB for the hashes and row numbers alone.
    assert peak < 8_000_000, peak
