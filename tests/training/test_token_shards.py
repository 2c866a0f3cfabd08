"""Tokens made ahead are those made when asked for, and damaged shards are noticed and made again."""

import logging
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from training.token_shards import TokenShards
from training.tokenizer import TextTokenizer, train_tokenizer

TEXTS = ["", "버스 노선 문의", "the soup was cold 🍲", "a", "レストランの予約をしたい", "x " * 100, "\x00", "b"]


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return train_tokenizer(TEXTS, vocab_size=300)


def opened(folder: Path, tokenizer: TextTokenizer, texts: list[str] = TEXTS, max_tokens: int = 16) -> TokenShards:
    return TokenShards.open(folder, texts, tokenizer, max_tokens, shard_records=3)


def files(folder: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in sorted(folder.rglob("*")) if one.is_file()}


def test_rows_are_what_the_tokenizer_makes_in_any_order(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    shards = opened(tmp_path, tokenizer)
    expected = tokenizer.token_ids(TEXTS, 16)
    rows = [7, 0, 3, 3, 5]
    assert [one.tolist() for one in shards.rows(rows)] == [expected[row] for row in rows]
    assert shards.lengths.tolist() == [len(one) for one in expected]
    assert sorted(files(tmp_path)) == ["00000.tokens", "00001.tokens", "00002.tokens", "index.json"]


def test_a_large_vocabulary_takes_wider_ids(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    vocabulary = {f"w{number}": number for number in range(70_000)}
    library = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    library.add_special_tokens(["[PAD]"])
    wide = TextTokenizer(library.to_str())
    shards = TokenShards.open(tmp_path, ["w69999", "w1"], wide, 4)
    assert [one.tolist() for one in shards.rows([0, 1])] == [[69_999], [1]]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), number=st.integers(0, 3))
def test_any_flipped_bit_is_noticed_and_mended(
    place: float, bit: int, number: int, tokenizer: TextTokenizer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    opened(folder, tokenizer)
    whole = files(folder)
    path = sorted(one for one in folder.rglob("*") if one.is_file())[number]
    raw = bytearray(path.read_bytes())
    raw[int(place * len(raw))] ^= 1 << bit
    path.write_bytes(raw)
    shards = opened(folder, tokenizer)
    assert [one.tolist() for one in shards.rows(range(8))] == tokenizer.token_ids(TEXTS, 16)
    assert files(folder) == whole or path.name == "index.json"


def test_a_damaged_shard_alone_is_written_again_and_said_so(
    tokenizer: TextTokenizer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened(tmp_path, tokenizer)
    paths = sorted(tmp_path.rglob("*.tokens"))
    times = [path.stat().st_mtime_ns for path in paths]
    paths[1].write_bytes(paths[1].read_bytes()[:-1])
    with caplog.at_level(logging.WARNING, "training.token_shards"):
        opened(tmp_path, tokenizer)
    assert [record.getMessage() for record in caplog.records] == [
        "token shard 00001.tokens is missing or damaged and is written again"
    ]
    assert [path.stat().st_mtime_ns == before for path, before in zip(paths, times, strict=True)] == [True, False, True]
    caplog.clear()
    opened(tmp_path, tokenizer)
    assert caplog.records == []


@pytest.mark.parametrize("lost", ["index.json", "00000.tokens", "00002.tokens"])
def test_what_a_kill_left_out_is_made(lost: str, tokenizer: TextTokenizer, tmp_path: Path) -> None:
    opened(tmp_path, tokenizer)
    whole = files(tmp_path)
    next(tmp_path.rglob(lost)).unlink()
    next(tmp_path.rglob("*.tokens")).with_name("00001.tokens.abc.tmp").write_bytes(b"half")
    opened(tmp_path, tokenizer)
    assert files(tmp_path) == whole | {"00001.tokens.abc.tmp": b"half"}


def test_other_texts_or_cuts_are_other_shards(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    opened(tmp_path, tokenizer)
    swapped = opened(tmp_path, tokenizer, [TEXTS[1], TEXTS[0], *TEXTS[2:]])
    assert swapped.rows([0])[0].tolist() == tokenizer.token_ids([TEXTS[1]], 16)[0]
    assert opened(tmp_path, tokenizer, max_tokens=4).lengths.max() == 4
    assert len(list(tmp_path.iterdir())) == 3
