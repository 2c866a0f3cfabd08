"""Masking policies hide what they say, and words are words in every script."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.errors import ConfigError
from training.masking import MASKING, Hidden, Maskable
from training.tokenizer import TextTokenizer, train_tokenizer
from training.words import sentence_numbers, token_starts, word_numbers

TEXTS = [
    "the quick brown fox, it doesn't jump",
    "지하철이 또 늦었어요 🚇",
    "東京は大きい",
    "อาหารอร่อยมาก",
    "family 👨‍👩‍👧 and flag 🇰🇷",
    "naïve café",
]


@pytest.fixture(scope="module")
def bytes_alone() -> TextTokenizer:
    return train_tokenizer([], vocab_size=258)


@pytest.fixture(scope="module")
def merged() -> TextTokenizer:
    return train_tokenizer(TEXTS * 3, vocab_size=400)


def ids_of(tokenizer: TextTokenizer, text: str) -> list[int]:
    return tokenizer.token_ids([text], 1000)[0][1:]


def grouped(tokenizer: TextTokenizer, text: str, numbers: np.ndarray) -> list[str]:
    """The text of each group of tokens."""
    ids = ids_of(tokenizer, text)
    parts = [b"".join(tokenizer.token_bytes[one] for one, at in zip(ids, numbers, strict=True) if at == number)
             for number in range(int(numbers[-1]) + 1)]  # fmt: skip
    return [one.decode() for one in parts]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TEXTS[0], ["the", " quick", " brown", " fox", ",", " it", " doesn't", " jump"]),
        (TEXTS[1], ["지하철이", " 또", " 늦었어요", " 🚇"]),
        (TEXTS[2], ["東", "京", "は", "大", "き", "い"]),
        (TEXTS[3], ["อ", "า", "ห", "า", "ร", "อ", "ร่", "อ", "ย", "ม", "า", "ก"]),
        (TEXTS[4], ["family", " 👨‍👩‍👧", " and", " flag", " 🇰🇷"]),
        (TEXTS[5], ["naïve", " café"]),
    ],
)
def test_words_are_runs_of_letters_or_characters_as_readers_see_them(
    bytes_alone: TextTokenizer, text: str, words: list[str]
) -> None:
    assert grouped(bytes_alone, text, word_numbers(bytes_alone, ids_of(bytes_alone, text))) == words


@settings(max_examples=60)
@given(text=st.text(min_size=1, max_size=40))
def test_no_word_begins_within_a_token_or_a_code_point(merged: TextTokenizer, text: str) -> None:
    ids = ids_of(merged, text)
    numbers = word_numbers(merged, ids)
    assert numbers[0] == 0
    assert set(np.diff(numbers).tolist()) <= {0, 1}
    assert "".join(grouped(merged, text, numbers)) == text  # decodes: no part of a character in any
    assert token_starts(merged, ids)[-1] == len(text.encode())


def test_a_row_cut_within_a_character_keeps_its_bytes_together(bytes_alone: TextTokenizer) -> None:
    ids = ids_of(bytes_alone, "a 지")[:-1]
    assert word_numbers(bytes_alone, ids).tolist()[:2] == [0, 1]
    assert len(word_numbers(bytes_alone, ids)) == 4


def test_sentences_end_at_their_marks(bytes_alone: TextTokenizer) -> None:
    text = "It costs 3.50 now. 정말요? はい。そうです！ok"
    found = grouped(bytes_alone, text, sentence_numbers(bytes_alone, ids_of(bytes_alone, text)))
    assert found == ["It costs 3.50 now.", " 정말요?", " はい。", "そうです！", "ok"]


def hide(policy: str, options: dict[str, object], seed: int = 0, **given: float) -> tuple[Hidden, np.ndarray]:
    words = np.repeat(np.arange(200), np.random.default_rng(0).integers(1, 4, 200))
    maskable = Maskable(num_tokens=len(words), words=lambda: words, **given)
    config = MASKING[policy].configured(options)
    return MASKING[policy].member(maskable, np.random.default_rng(seed), config), words


@pytest.mark.parametrize("policy", sorted(MASKING.load()))
@pytest.mark.parametrize("num_tokens", [0, 1, 2])
def test_short_texts_hide_one_token_and_empty_ones_none(policy: str, num_tokens: int) -> None:
    maskable = Maskable(num_tokens=num_tokens, words=lambda: np.arange(num_tokens))
    hidden = MASKING[policy].member(maskable, np.random.default_rng(0), MASKING[policy].configured())
    assert (len(hidden), hidden.sum()) == (num_tokens, min(num_tokens, 1))


@pytest.mark.parametrize("rate", [0.15, 0.4, 1.0])
@pytest.mark.parametrize("policy", ["rate", "whole_word", "span"])
def test_the_share_is_kept(policy: str, rate: float) -> None:
    hidden, words = hide(policy, {"rate": rate})
    over = 2 if policy == "span" else 0
    assert -2 <= hidden.sum() - round(rate * len(words)) <= over
    assert (hidden != hide(policy, {"rate": 0.15}, seed=1)[0]).any()


@pytest.mark.parametrize("policy", ["whole_word", "span"])
def test_words_are_hidden_whole(policy: str) -> None:
    hidden, words = hide(policy, {"rate": 0.3})
    assert all(hidden[words == word].all() or not hidden[words == word].any() for word in range(200))
    # Single tokens do not keep to words.
    single, _ = hide("rate", {"rate": 0.3})
    assert any(0 < single[words == word].sum() < (words == word).sum() for word in range(200))


def test_spans_are_as_long_as_a_geometric_draw_cut_at_its_limit() -> None:
    lengths = []
    for seed in range(60):
        maskable = Maskable(num_tokens=2000, words=lambda: np.arange(2000))
        config = MASKING["span"].configured({"rate": 0.02})
        hidden = MASKING["span"].member(maskable, np.random.default_rng(seed), config)
        edges = np.flatnonzero(np.diff(np.concatenate([[0], hidden.astype(int), [0]])))
        lengths += (edges[1::2] - edges[::2])[:-1].tolist()
    # min(geometric(0.2), 10) has mean (1 - 0.8**10) / 0.2 = 4.46; the last span of a text is cut and some touch.
    assert np.mean(lengths) == pytest.approx(4.46, abs=0.6)
    assert max(lengths) >= 10


def test_harder_and_later_records_hide_more() -> None:
    options = {"low": 0.1, "high": 0.5}
    shares = [hide("by_difficulty", options, difficulty=one)[0].mean() for one in (0.0, 0.5, 1.0)]
    assert shares == pytest.approx([0.1, 0.3, 0.5], abs=0.01)
    late = options | {"grows_with": "progress", "of": "whole_word"}
    hidden, words = hide("by_difficulty", late, progress=0.5, difficulty=1.0)
    assert hidden.mean() == pytest.approx(0.3, abs=0.02)
    assert all(hidden[words == word].all() or not hidden[words == word].any() for word in range(200))


@pytest.mark.parametrize(
    ("policy", "options", "message"),
    [
        ("rate", {"rate": 0.0}, r"rate=0.0 must lie in \(0, 1\]"),
        ("span", {"stop": 0.0}, r"stop=0.0 must lie in \(0, 1\]"),
        ("span", {"max_words": 0}, "max_words=0 must be at least 1"),
        ("by_difficulty", {"grows_with": "age"}, "grows_with='age' must be one of difficulty, progress"),
        ("by_difficulty", {"of": "by_difficulty"}, "must be another policy"),
        ("by_difficulty", {"options": {"rate": 0.1}}, "its rate left out"),
        ("by_difficulty", {"options": {"stop": 0.1}}, "unknown option 'stop'"),
        ("whole_word", {"rat": 0.1}, "unknown option 'rat'; did you mean 'rate'"),
    ],
)
def test_options_without_sense_are_refused(policy: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MASKING[policy].configured(options)
