"""Small files that unpack to more than any machine has: refused with a reason, and whoever reads them goes on."""

import gzip
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import select

from catalog.tables.datasets import Source
from curation.sources import ReadOptions, SourceRefusedError
from curation.sources.apart import read_guarded
from tests.faults.conftest import NUM_FILES, NUM_RECORDS, PLACES
from tests.faults.world import World

MEGABYTE = 2**20
REFUSED_SECONDS = 30.0
MEMORY_BYTES = 1024 * MEGABYTE
OPTIONS = ReadOptions(text_column="body")
FEW_ROWS = ReadOptions(text_column="body", batch_rows=100)


def repeated_value(path: Path) -> Path:
    """64 GiB of text: one value of a megabyte, that 65,536 rows refer to."""
    values = pa.DictionaryArray.from_arrays(pa.array([0] * 65_536, pa.int32()), pa.array(["x" * MEGABYTE]))
    pq.write_table(pa.table({"body": values}), path)
    return path


def varint(number: int, num_bytes: int) -> bytes:
    """A number as Thrift's compact protocol has it, made as long as asked for."""
    zigzag, out = number << 1, []
    for place in range(num_bytes):
        out.append((zigzag & 0x7F) | (0x80 if place < num_bytes - 1 else 0))
        zigzag >>= 7
    assert zigzag == 0
    return bytes(out)


def lying_footer(path: Path) -> Path:
    """Lists of a megabyte each, 512 of them a row, whose footer declares next to nothing."""
    lists = pa.ListArray.from_arrays(pa.array([0, 512], pa.int32()), pa.array(["x" * MEGABYTE] * 512))
    with pq.ParquetWriter(path, pa.schema([("body", pa.string()), ("extra", lists.type)])) as writer:
        for number in range(64):
            writer.write_table(pa.table({"body": [f"text {number}"], "extra": lists}))
    footer = pq.read_metadata(path)
    declared = {footer.row_group(group).total_byte_size for group in range(footer.num_row_groups)}
    raw = path.read_bytes()
    for number in declared:
        length = next(n for n in range(1, 10) if number << 1 < 1 << (7 * n))
        assert varint(number, length) in raw
        raw = raw.replace(varint(number, length), varint(100, length))
    path.write_bytes(raw)
    assert sum(pq.read_metadata(path).row_group(group).total_byte_size for group in range(64)) == 6_400
    return path


def zeros(path: Path) -> Path:
    """A gigabyte of zeros by gzip."""
    path.write_bytes(gzip.compress(bytes(64 * MEGABYTE), compresslevel=1) * 16)
    return path


@pytest.fixture(scope="module")
def bombs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("bombs")
    return [
        repeated_value(folder / "repeated.parquet"),
        lying_footer(folder / "lying.parquet"),
        zeros(folder / "zeros.jsonl.gz"),
    ]


@pytest.mark.parametrize("number", range(3))
def test_bomb_is_refused_in_bounded_time_and_memory(bombs: list[Path], number: int) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    with pytest.raises(SourceRefusedError) as refused:
        for _ in read_guarded(str(bombs[number]), OPTIONS, memory_bytes=MEMORY_BYTES):
            pass
    assert refused.value.reason == "decompression_bomb"
    assert bombs[number].name in str(refused.value)
    assert "if it is genuine" in str(refused.value)
    assert time.monotonic() - began < REFUSED_SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_worker_that_is_given_bombs_lives_on_and_takes_the_rest_in(
    new_world: Callable[..., World], corpus: list[str], bombs: list[Path]
) -> None:
    world = new_world(PLACES[0], lease_seconds=30.0)
    ends: list[int] = []
    command = ["ingest", *corpus, *map(str, bombs), "--dataset", "mixed", "--text", "body"]
    with world.workers(ends=ends):
        assert world.run("winnow", *command) == 1
    assert ends == []
    with world.catalog.read() as session:
        found = {row.name: row for row in session.execute(select(Source.name, Source.num_records, Source.refused))}
    assert [(found[path].num_records, found[path].refused) for path in corpus] == [(NUM_RECORDS, None)] * NUM_FILES
    assert all("if it is genuine" in found[str(path)].refused for path in bombs)


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    path = tmp_path / "sound.parquet"
    pq.write_table(pa.table({"body": [f"text {number} 한국어" for number in range(200_000)]}), path)
    return path


def children() -> Iterator[psutil.Process]:
    for child in psutil.Process().children():
        if "curation.sources.apart" in child.cmdline():
            yield child


def test_sound_file_is_read_apart_as_it_is_read_at_hand(sound: Path) -> None:
    from curation.sources import read_batches

    apart, at_hand = read_guarded(str(sound), OPTIONS), read_batches(str(sound), OPTIONS)
    for one, other in zip(apart, at_hand, strict=True):
        assert one.records.equals(other.records)
        assert one.rejected.equals(other.rejected)
    assert list(children()) == []


def test_reader_that_is_killed_is_a_refusal_and_one_that_is_left_alone_ends(sound: Path) -> None:
    batches = read_guarded(str(sound), FEW_ROWS)
    assert next(batches).records.height == 100
    (child,) = children()
    threading.Timer(0.0, os.kill, (child.pid, signal.SIGKILL)).start()
    with pytest.raises(SourceRefusedError, match=r"sound.parquet ended the process that read it") as refused:
        for _ in batches:
            time.sleep(0.01)
    assert refused.value.reason == "reader_died"
    left = read_guarded(str(sound), FEW_ROWS)
    next(left)
    assert len(list(children())) == 1
    left.close()
    assert list(children()) == []
