"""The store on a real S3 server: what is a file in a folder is an object there, and every trouble has its error."""

import hashlib
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import s3fs
from polars.testing import assert_frame_equal

from catalog import objects
from catalog import store as store_module
from catalog.errors import ConfigError, CorruptionError, NotFoundError, StoreAwayError, TransientError
from catalog.store import Store, StoredFile
from tests.servers import S3Server, free_port

FRAME = pl.DataFrame({"id": [f"{n:032x}-0" for n in range(400)], "text": [f"한국어 텍스트 🎉 {n}" for n in range(400)]})
PARTS = [FRAME.slice(0, 100), FRAME.slice(0, 0), FRAME.slice(100)]


@pytest.fixture
def store(s3_bucket: str) -> Store:
    made = Store(f"{s3_bucket}/winnow")
    made.create()
    return made


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str]]]:
    """Every request that the driver sends, as operation and range."""
    seen: list[tuple[str, str]] = []
    sent = s3fs.S3FileSystem._call_s3

    async def noting(self: s3fs.S3FileSystem, method: str, *given: object, **options: object) -> object:
        seen.append((method, str(options.get("Range", ""))))
        return await sent(self, method, *given, **options)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", noting)
    return seen


def put_instead(server: S3Server, store: Store, file: StoredFile, raw: bytes | None) -> None:
    """Change or remove an object behind the store's back."""
    bucket, _, prefix = store.url.removeprefix("s3://").partition("/")
    if raw is None:
        server.client().delete_object(Bucket=bucket, Key=f"{prefix}/{file.name}")
    else:
        server.client().put_object(Bucket=bucket, Key=f"{prefix}/{file.name}", Body=raw)


def test_everything_comes_back_as_it_was_and_is_the_same_file_as_in_a_folder(store: Store, tmp_path: Path) -> None:
    folder = Store(str(tmp_path))
    made = []
    for one in (store, folder):
        one.check()
        file = one.write_frame(FRAME, "text")
        assert_frame_equal(one.read_frame(file), FRAME)
        assert_frame_equal(one.read_frame(file, ["id"]), FRAME.select("id"))
        parts = one.write_parts(PARTS, "parts")
        for index, part in enumerate(PARTS):
            assert_frame_equal(one.read_part(parts, index), part)
            assert_frame_equal(one.read_part(parts, index, ["text"]), part.select("text"))
        assert_frame_equal(one.read_frame(parts), FRAME)
        blob = one.write_bytes(b"weights", "models", "bin")
        assert one.read_bytes(blob) == one.map_bytes(blob).to_pybytes() == b"weights"
        assert one.read_json(one.write_json({"b": 1, "a": "é"}, "m")) == {"a": "é", "b": 1}
        made.append((file, parts, blob))
    assert made[0] == made[1]


def test_whole_file_is_one_request_and_a_part_one_more_than_the_first(
    store: Store, requests: list[tuple[str, str]]
) -> None:
    file = store.write_parts(PARTS, "parts")
    assert [method for method, _ in requests] == ["put_object"]
    requests.clear()
    store.read_frame(file)
    assert [method for method, _ in requests] == ["get_object"]
    requests.clear()
    # As of a manifest, whose length its version's row does not tell.
    assert store.read_bytes(replace(file, size_bytes=0))[:4] == b"PAR1"
    assert [method for method, _ in requests] == ["get_object"]
    requests.clear()
    for index in (0, 2, 1, 0):
        store.read_part(file, index)
    # The footer once, then each part by itself; an empty one is known from the footer.
    assert [method for method, _ in requests] == ["get_object"] * 4
    first, last = (int(end) for end in requests[2][1].removeprefix("bytes=").split("-"))
    assert last - first < file.size_bytes * 0.9


def test_manifest_is_fetched_once_a_process_and_no_more_are_kept_than_said(
    store: Store, requests: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "NUM_MANIFESTS", 2)
    store_module._MANIFESTS.clear()
    files = [store.write_json({"number": number}, "m") for number in range(3)]
    requests.clear()
    assert [store.read_json(one)["number"] for one in (*files[:1] * 3, files[1])] == [0, 0, 0, 1]
    assert len(requests) == 2
    assert [store.read_json(one)["number"] for one in (files[2], files[0])] == [2, 0]
    assert len(requests) == 4
    assert len(store_module._MANIFESTS) == 2


def test_large_object_goes_in_parts_and_comes_back_in_ranges(store: Store, requests: list[tuple[str, str]]) -> None:
    raw = random.Random(1).randbytes(101 * 2**20)
    file = store.write_bytes(raw, "models", "bin")
    assert [method for method, _ in requests].count("upload_part") == 3
    requests.clear()
    assert hashlib.sha256(store.read_bytes(file)).hexdigest() == file.sha256
    assert len([ranged for method, ranged in requests if method == "get_object" and ranged]) == 3


def test_footer_longer_than_what_is_fetched_first_is_fetched_again(
    store: Store, requests: list[tuple[str, str]]
) -> None:
    parts = [FRAME.slice(number % 400, 1) for number in range(800)]
    file = store.write_parts(parts, "parts")
    requests.clear()
    assert_frame_equal(store.read_part(file, 799), parts[799])
    assert len(requests) == 3
    assert int(requests[1][1].removeprefix("bytes=").split("-")[0]) < file.size_bytes - objects.TAIL_BYTES


def test_flipped_truncated_and_missing_objects_are_told_apart(store: Store, s3_server: S3Server) -> None:
    file, parts = store.write_frame(FRAME, "text"), store.write_parts(PARTS, "parts")
    sound, in_parts = store.read_bytes(file), store.read_bytes(parts)
    rng = random.Random(3)
    for _ in range(10):
        damaged = bytearray(sound)
        damaged[rng.randrange(len(sound))] ^= 1 << rng.randrange(8)
        put_instead(s3_server, store, file, bytes(damaged))
        with pytest.raises(CorruptionError, match="is damaged: SHA-256"):
            store.read_frame(file)
    for length in (len(sound) - 1, 1, 0):
        put_instead(s3_server, store, file, sound[:length])
        with pytest.raises(CorruptionError, match="damaged"):
            store.read_frame(file)
    # A part's pages have checksums of their own; the file's is not read.
    put_instead(s3_server, store, parts, in_parts[: len(in_parts) // 4])
    with pytest.raises(CorruptionError, match="damaged"):
        store.read_part(parts, 2)
    objects._FOOTERS.clear()
    with pytest.raises(CorruptionError, match="damaged"):
        store.read_part(parts, 2)
    for gone in (file, parts):
        put_instead(s3_server, store, gone, None)
        with pytest.raises(NotFoundError, match="is missing from store"):
            store.read_frame(gone)
        with pytest.raises(NotFoundError, match="is missing from store"):
            store.read_part(gone, 0)
    # Writing the same again is what heals.
    assert store.write_frame(FRAME, "text") == file
    assert_frame_equal(store.read_frame(file), FRAME)


def test_object_is_seen_whole_or_not_at_all_while_it_is_written(store: Store) -> None:
    raw = random.Random(2).randbytes(8 * 2**20)
    sha256 = hashlib.sha256(raw).hexdigest()
    file = StoredFile(name=f"m/{sha256[:2]}/{sha256}.bin", sha256=sha256, size_bytes=len(raw))
    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(Store(store.url).write_bytes, raw, "m", "bin")
        absent = 0
        while not written.done():
            try:
                assert store.read_bytes(file) == raw
            except NotFoundError:
                absent += 1
        assert written.result() == file
    assert absent > 0
    assert store.read_bytes(file) == raw


def test_bucket_that_is_not_there_is_a_config_error(s3_bucket: str) -> None:
    store = Store("s3://no-such-bucket-here/winnow")
    with pytest.raises(ConfigError, match="is not there; run `winnow init`"):
        store.check()
    with pytest.raises(ConfigError, match=r"does not answer .*bucket"):
        store.create()
    with pytest.raises(ConfigError, match=r"is not there .*make the bucket"):
        store.write_frame(FRAME, "text")
    with pytest.raises(ConfigError, match="is not there"):
        store.read_bytes(StoredFile(name="m/00/x", sha256="0" * 64, size_bytes=3))


def test_empty_prefix_is_there_once_it_was_created(s3_bucket: str) -> None:
    store = Store(f"{s3_bucket}/new")
    with pytest.raises(ConfigError, match="is not there"):
        store.check()
    store.create()
    store.check()


@pytest.mark.parametrize(("variable", "value"), [("AWS_SECRET_ACCESS_KEY", "wrong"), ("AWS_ACCESS_KEY_ID", "nobody")])
def test_wrong_credentials_stop_the_start_and_may_pass_in_the_middle_of_work(
    store: Store, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    file = store.write_frame(FRAME, "text")
    monkeypatch.setenv(variable, value)
    s3fs.S3FileSystem.clear_instance_cache()
    refused = Store(store.url)
    for asked in (refused.check, refused.create):
        with pytest.raises(ConfigError, match="check WINNOW_STORE_URL and its credentials"):
            asked()
    with pytest.raises(TransientError, match=r"would not take .* check AWS_ACCESS_KEY_ID"):
        refused.write_frame(FRAME, "text")
    with pytest.raises(TransientError, match=r"would not give .* check AWS_ACCESS_KEY_ID"):
        refused.read_frame(file)


def test_server_that_is_away_is_passing_trouble(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    file, parts = store.write_frame(FRAME, "text"), store.write_parts(PARTS, "parts")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    away = Store(store.url)
    with pytest.raises(ConfigError, match=r"does not answer .*check WINNOW_STORE_URL"):
        away.check()
    with pytest.raises(StoreAwayError, match=r"did not take .* it is tried again"):
        away.write_frame(FRAME, "text")
    with pytest.raises(StoreAwayError, match=r"did not give .* it is tried again"):
        away.read_frame(file)
    with pytest.raises(StoreAwayError, match="did not give"):
        away.read_part(parts, 0)
