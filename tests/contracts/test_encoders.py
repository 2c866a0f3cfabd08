"""Laws of every encoder: unit rows, one a text, close for paraphrases, the same for any batch."""

from pathlib import Path

import numpy as np
import pytest

from curation.encoders import ENCODERS, Requires, encoders_of_meaning, installed_encoders

PARAPHRASES = [
    ("How do I reset my password?", "How can I reset the password?", "The soup was cold and tasted of salt."),
    ("The match was cancelled because of rain", "Rain caused the match to be cancelled", "Two eggs and some flour"),
]
KOREAN = ("호스트분들이 너무 친절하셨습니다", "호스트분들이 매우 친절했습니다", "지하철역에서 십 분 거리입니다")
TEXTS = [
    *(text for triple in PARAPHRASES for text in triple),
    *KOREAN,
    "今天天气很好",
    "สวัสดีครับ",
    "👍🏽",
    "",
    "x " * 2_000,
]
TOLERANCE = {"minilm_bf16": 2e-3}


@pytest.fixture(scope="module")
def cache(encoder_cache) -> Path:
    return encoder_cache


@pytest.mark.parametrize("name", sorted(ENCODERS.load()))
def test_rows_are_unit_vectors_whatever_the_text(name, cache):
    vectors = ENCODERS[name].member(TEXTS, cache)
    assert vectors.dtype == np.float32
    assert vectors.shape[0] == len(TEXTS)
    assert np.linalg.norm(vectors.astype(np.float64), axis=1) == pytest.approx(np.ones(len(TEXTS)), abs=1e-6)


@pytest.mark.parametrize("name", sorted(ENCODERS.load()))
def test_paraphrases_are_closer_than_strangers(name, cache):
    for one, paraphrase, stranger in PARAPHRASES:
        vectors = ENCODERS[name].member([one, paraphrase, stranger], cache)
        assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2


@pytest.mark.parametrize("name", sorted(ENCODERS.load()))
def test_vector_does_not_depend_on_the_batch(name, cache):
    encode = ENCODERS[name].member
    together = encode(TEXTS, cache)
    alone = np.concatenate([encode([text], cache) for text in TEXTS[:8]])
    assert np.abs(together[:8] - alone).max() < TOLERANCE.get(name, 1e-5)
    assert np.array_equal(together, encode(TEXTS, cache))


@pytest.mark.parametrize("name", [name for name, one in sorted(ENCODERS.load().items()) if one.config().exact])
def test_exact_encoders_give_the_same_bits_in_any_batch(name, cache):
    encode = ENCODERS[name].member
    together = encode(TEXTS * 3, cache)
    alone = np.concatenate([encode([text], cache) for text in TEXTS])
    assert together.tobytes() == np.concatenate([alone] * 3).tobytes()


@pytest.mark.parametrize("name", sorted(ENCODERS.load()))
def test_no_texts_give_no_rows_of_the_same_width(name, cache):
    encode = ENCODERS[name].member
    assert encode([], cache).shape == (0, encode(["x"], cache).shape[1])


def test_every_encoder_says_what_it_needs_and_all_are_installed_here():
    assert all(issubclass(ENCODERS[name].config, Requires) for name in ENCODERS)
    assert installed_encoders() == sorted(ENCODERS)
    assert encoders_of_meaning() == ["minilm", "minilm_bf16", "static"]


def test_korean_paraphrases_are_closer_by_character_n_grams(cache):
    vectors = ENCODERS["hashing"].member(KOREAN, cache)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2
