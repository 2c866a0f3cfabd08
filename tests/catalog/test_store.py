"""What is written to the store comes back unchanged, or not at all."""

import hashlib
import os
import random
import shutil
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import polars as pl
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from catalog.errors import ConfigError, CorruptionError, NotFoundError, TransientError
from catalog.objects import MARKER
from catalog.store import ASIDE, Store, StoredFile

FRAME = pl.DataFrame(
    {
        "id": [f"{n:032x}-0" for n in range(500)],
        "text": ["한국어 텍스트 🎉 " * (n % 7) + f"ไทย 中文 {n}" for n in range(500)],
        "score": [n / 3 for n in range(500)],
    }
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(f"file://{tmp_path}/store")
    made.create()
    return made


def path_of(store: Store, file: StoredFile) -> Path:
    return Path(store.url.removeprefix("file://")) / file.name


def test_frame_comes_back_as_it_was(store: Store) -> None:
    file = store.write_frame(FRAME, "text")
    assert_frame_equal(store.read_frame(file), FRAME)
    assert_frame_equal(store.read_frame(file, ["id"]), FRAME.select("id"))
    assert file.num_rows == 500
    assert file.sha256 == hashlib.sha256(path_of(store, file).read_bytes()).hexdigest()
    assert StoredFile.from_json(file.to_json()) == file


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(texts=st.lists(st.text(st.characters(codec="utf-8"), max_size=30) | st.none(), max_size=20))
def test_any_text_survives_and_equal_frames_are_one_file(store: Store, texts: list[str | None]) -> None:
    frame = pl.DataFrame({"text": texts}, schema={"text": pl.String})
    first = store.write_frame(frame, "text")
    assert store.write_frame(frame, "text") == first
    assert_frame_equal(store.read_frame(first), frame)


def test_every_bit_flip_and_truncation_is_detected(store: Store) -> None:
    file = store.write_frame(FRAME, "text")
    path = path_of(store, file)
    sound = path.read_bytes()
    rng = random.Random(7)
    for _ in range(200):
        at, bit = rng.randrange(len(sound)), rng.randrange(8)
        damaged = bytearray(sound)
        damaged[at] ^= 1 << bit
        path.write_bytes(bytes(damaged))
        with pytest.raises(CorruptionError, match="is damaged: SHA-256"):
            store.read_frame(file)
    path.write_bytes(sound[:-10])
    with pytest.raises(CorruptionError, match="restore it from a backup"):
        store.read_frame(file)
    path.write_bytes(sound)
    assert_frame_equal(store.read_frame(file), FRAME)


def test_page_checksums_alone_never_let_damaged_data_through(store: Store) -> None:
    file = store.write_frame(FRAME, "text")
    path = path_of(store, file)
    sound = path.read_bytes()
    refused = 0
    for at in range(4, len(sound) // 2, 11):
        damaged = bytearray(sound)
        damaged[at] ^= 16
        path.write_bytes(bytes(damaged))
        forged = StoredFile(name=file.name, sha256=hashlib.sha256(damaged).hexdigest(), size_bytes=file.size_bytes)
        try:
            assert_frame_equal(store.read_frame(forged), FRAME)
        except CorruptionError:
            refused += 1
    # The rest hit page headers, whose statistics nobody reads.
    assert refused > 0.8 * len(range(4, len(sound) // 2, 11))


def test_missing_file_and_missing_store_say_so(store: Store, tmp_path: Path) -> None:
    file = store.write_json({"a": 1}, "manifests")
    assert store.read_json(file) == {"a": 1}
    path_of(store, file).unlink()
    with pytest.raises(NotFoundError, match="is missing from store"):
        store.read_json(file)
    gone = Store(f"file://{tmp_path}/nowhere")
    with pytest.raises(ConfigError, match="is not there; run `winnow init`"):
        gone.check()
    with pytest.raises(ConfigError, match="is not there"):
        gone.write_frame(FRAME, "text")


def test_manifest_bytes_do_not_depend_on_key_order(store: Store) -> None:
    assert store.write_json({"a": 1, "b": [2]}, "m") == store.write_json({"b": [2], "a": 1}, "m")


def test_store_behind_another_fsspec_url() -> None:
    store = Store("memory://bucket-for-test")
    with pytest.raises(ConfigError, match="is not there"):
        store.check()
    file = store.write_frame(FRAME, "text")
    store.check()
    assert_frame_equal(store.read_frame(file), FRAME)
    with pytest.raises(NotFoundError):
        store.read_frame(StoredFile(name="text/00/none", sha256="0" * 64, size_bytes=1))


def test_empty_prefix_of_an_object_store_is_there_once_it_was_created() -> None:
    store = Store("memory://empty-bucket/winnow")
    with pytest.raises(ConfigError, match="is not there; run `winnow init`"):
        store.check()
    store.create()
    store.create()
    store.check()
    assert_frame_equal(store.read_frame(store.write_frame(FRAME, "text")), FRAME)


class BrokenFileSystem(MemoryFileSystem):  # type: ignore[misc]
    """A driver whose errors are of its own tree, as those of object stores are."""

    protocol = ("broken",)

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        raise RuntimeError("unable to locate credentials")

    def exists(self, path: str, **_: Any) -> bool:
        return bool(self.info(path))

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        self.info(path)


def test_store_that_does_not_answer_is_a_config_error() -> None:
    fsspec.register_implementation("broken", BrokenFileSystem, clobber=True)
    store = Store("broken://bucket/winnow")
    for asked in (store.check, store.create):
        with pytest.raises(
            ConfigError, match=r"does not answer \(unable to locate credentials\); check WINNOW_STORE_URL"
        ):
            asked()


def test_damaged_file_is_healed_by_writing_it_again(store: Store) -> None:
    file = store.write_frame(FRAME, "text")
    path = path_of(store, file)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(bytes(damaged))
    with pytest.raises(CorruptionError):
        store.read_frame(file)
    assert store.write_frame(FRAME, "text") == file
    assert_frame_equal(store.read_frame(file), FRAME)
    sound = path.stat()
    os.utime(path, (1.0, 1.0))
    store.write_frame(FRAME, "text")
    # Not written anew, but as young as if it were: `winnow gc` goes by age.
    assert path.stat().st_ino == sound.st_ino
    assert path.stat().st_mtime >= sound.st_mtime


def test_unknown_url_scheme_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="cannot be opened"):
        Store("nosuchscheme://x").check()


@pytest.mark.skipif(os.geteuid() != 0 and "CI" not in os.environ, reason="mounting a small filesystem needs root")
def test_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    root = tmp_path / "small"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(root)], check=True)
    try:
        store = Store(f"file://{root}")
        noise = pl.DataFrame({"text": [random.Random(n).randbytes(2000).hex() for n in range(200)]})
        with pytest.raises(TransientError, match=r"no space left for .* free space, then run the same command"):
            store.write_frame(noise, "text")
        assert not [path for path in root.rglob("*") if path.is_file()]
        shutil.rmtree(root / "text")
        assert store.read_json(store.write_json({"still": "works"}, "m")) == {"still": "works"}
    finally:
        subprocess.run(["umount", str(root)], check=True)


def test_parts_are_read_one_by_one_and_empty_ones_stay_empty(store: Store) -> None:
    parts = [FRAME.slice(0, 100), FRAME.slice(0, 0), FRAME.slice(100, 400)]
    file = store.write_parts(parts, "parts")
    assert file.num_rows == 500
    for index, part in enumerate(parts):
        assert_frame_equal(store.read_part(file, index), part)
        assert_frame_equal(store.read_part(file, index, ["score"]), part.select("score"))
    assert_frame_equal(store.read_frame(file), FRAME)
    empty = store.write_parts(parts[1:2] * 2, "parts")
    assert_frame_equal(store.read_part(empty, 1), parts[1])


def test_damaged_part_is_detected_by_the_checksums_of_its_pages(store: Store) -> None:
    file = store.write_parts([FRAME.slice(0, 250), FRAME.slice(250)], "parts")
    path = path_of(store, file)
    sound = path.read_bytes()
    rng = random.Random(4)
    noticed = 0
    for _ in range(100):
        damaged = bytearray(sound)
        # Within the data: the footer is not covered by page checksums, and is checked when the whole file is read.
        damaged[rng.randrange(4, len(sound) // 2)] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            same = store.read_part(file, 0).equals(FRAME.slice(0, 250)) and store.read_part(file, 1).equals(
                FRAME.slice(250)
            )
        except CorruptionError:
            noticed += 1
        else:
            assert same, "damaged data was read as if it were sound"
    assert noticed > 60
    path.unlink()
    with pytest.raises(NotFoundError, match="missing"):
        store.read_part(file, 0)


def test_files_tells_everything_that_lies_there_on_disk_and_in_a_bucket(store: Store) -> None:
    bucket = Store(f"memory://files-for-test-{os.getpid()}")
    for one in (store, bucket):
        one.create()
        file = one.write_frame(FRAME, "text")
        found = {told.name: told for told in one.files() if told.name != MARKER}
        assert list(found) == [file.name]
        assert found[file.name].size_bytes == file.size_bytes
        assert abs(found[file.name].modified - time.time()) < 60
        one.probe()
        assert len(list(one.files())) == (1 if one.is_local else 2)


def test_remove_takes_old_files_only_and_leaves_nothing_aside(store: Store) -> None:
    bucket = Store(f"memory://remove-for-test-{os.getpid()}")
    now = time.time()
    for one in (store, bucket):
        file = one.write_frame(FRAME, "text")
        assert one.remove(file.name, before=now - 60) is False
        assert_frame_equal(one.read_frame(file), FRAME)
        assert one.remove(file.name, before=now + 60) is True
        with pytest.raises(NotFoundError):
            one.read_frame(file)
        assert [told.name for told in one.files() if told.name != MARKER] == []
    assert store.remove("text/00/gone.parquet", before=now) is False


def test_what_a_killed_remove_left_aside_is_put_back(store: Store) -> None:
    file = store.write_frame(FRAME, "text")
    path = path_of(store, file)
    path.rename(path.with_name(path.name + ASIDE))
    store.mend()
    assert_frame_equal(store.read_frame(file), FRAME)
    # And a file that was written anew meanwhile stays.
    shutil.copy(path, path.with_name(path.name + ASIDE))
    store.mend()
    assert [told.name for told in store.files()] == [file.name]


def test_who_writes_an_old_file_again_while_it_is_removed_has_it_afterwards(store: Store) -> None:
    file = store.write_frame(FRAME.head(1), "text")
    before = time.time() - 60
    outcomes = set()
    with ThreadPoolExecutor(2) as pool:
        for round_ in range(400):
            os.utime(path_of(store, file), (1.0, 1.0))
            barrier = threading.Barrier(2)

            def remove(barrier: threading.Barrier = barrier, pause: float = round_ / 1e6) -> bool:
                barrier.wait()
                time.sleep(pause)
                return store.remove(file.name, before=before)

            def write(barrier: threading.Barrier = barrier) -> None:
                barrier.wait()
                store.write_frame(FRAME.head(1), "text")

            removing, writing = pool.submit(remove), pool.submit(write)
            writing.result()
            outcomes.add(removing.result())
            assert path_of(store, file).exists(), f"lost in round {round_}"
    assert outcomes == {True, False}, "the two never met"
    assert [told.name for told in store.files()] == [file.name]


def test_a_store_that_cannot_be_written_to_says_so(store: Store) -> None:
    shutil.rmtree(store.url.removeprefix("file://"))
    with pytest.raises(ConfigError, match="cannot be written to"):
        store.probe()
