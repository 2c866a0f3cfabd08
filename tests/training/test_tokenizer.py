"""Byte-level BPE: lossless, deterministic, and safe with text that looks like its own markup."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.errors import DataError
from training.tokenizer import TextTokenizer, train_tokenizer

SAMPLES = [
    "안녕하세요, 오늘 날씨가 참 좋네요! 😀👩‍👩‍👧‍👦",
    "你好，世界。",
    "こんにちは、カタカナ",
    "สวัสดีชาวโลก",
    "naïve café  with   spaces\n\ttabs",
    "hello hello hello world",
]
TOKENIZER = train_tokenizer(SAMPLES * 3, vocab_size=500)


@given(text=st.text())
def test_any_text_survives_a_round_trip(text: str) -> None:
    ids = TOKENIZER.encode([text], 10_000).input_ids[0].tolist()
    assert TOKENIZER.decode(ids) == text


@pytest.mark.parametrize("text", [*SAMPLES, "[PAD][START]", "ᄒ\u1161\u11ab\u200d\ufeff"])
def test_scripts_emoji_and_markup_survive(text: str) -> None:
    ids = TOKENIZER.encode([text], 10_000).input_ids[0].tolist()
    assert TOKENIZER.decode(ids) == text
    assert TOKENIZER.pad_id not in ids


def test_training_does_not_depend_on_the_order_of_texts() -> None:
    shuffled = SAMPLES * 3
    random.Random(0).shuffle(shuffled)
    assert train_tokenizer(iter(shuffled), vocab_size=500) == TOKENIZER


def test_saved_document_gives_the_same_ids() -> None:
    again = TextTokenizer(TOKENIZER.document)
    assert again.encode(SAMPLES, 64).input_ids.tolist() == TOKENIZER.encode(SAMPLES, 64).input_ids.tolist()
    assert again.vocab_size == TOKENIZER.vocab_size <= 500


def test_batches_are_cut_and_padded_to_the_longest() -> None:
    batch = TOKENIZER.encode(["", "hello", "hello world " * 50], 8)
    assert batch.input_ids.shape == batch.attention_mask.shape == (3, 8)
    assert batch.attention_mask.sum(1).tolist()[0] == 1  # the start token alone
    assert batch.attention_mask.sum(1).tolist()[2] == 8
    assert batch.input_ids[~batch.attention_mask].unique().tolist() == [TOKENIZER.pad_id]


def test_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(DataError, match="no Unicode text"):
        TOKENIZER.encode(["fine", "\ud800"], 8)


def test_a_vocabulary_without_room_for_all_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="vocab_size=100 must be at least 258"):
        train_tokenizer(SAMPLES, vocab_size=100)
