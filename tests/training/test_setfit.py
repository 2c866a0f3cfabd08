"""Tuning a sentence encoder on pairs: classes draw together, and the same input gives the same vectors."""

import numpy as np
import pytest

from catalog.errors import DataError
from training.setfit import SentenceEncoder, SetFit, pretrained, tune

TEXTS = ["where is my parcel", "the parcel is late", "give my money back", "I want a refund", "when does it arrive"]
LABELS = ["delivery", "delivery", "refund", "refund", "delivery"]
FEW = SetFit(steps=4, num_pairs=6, max_tokens=16)


@pytest.fixture(scope="module")
def plain() -> SentenceEncoder:
    """The encoder as it came."""
    return pretrained(FEW)


@pytest.fixture(scope="module")
def tuned() -> SentenceEncoder:
    """The encoder after four updates."""
    return tune(TEXTS, LABELS, FEW, 0)


def gap(encoder: SentenceEncoder) -> float:
    """How much nearer texts of one class are than texts of two, in cosine."""
    vectors = encoder.encode(TEXTS)
    cosine = vectors @ vectors.T
    same = np.equal.outer(LABELS, LABELS)
    return float(cosine[same & ~np.eye(len(TEXTS), dtype=bool)].mean() - cosine[~same].mean())


def test_texts_of_a_class_draw_together_and_words_stay(plain: SentenceEncoder, tuned: SentenceEncoder) -> None:
    assert gap(tuned) > gap(plain) + 0.1
    name = "embeddings.word_embeddings.weight"
    assert bool((tuned.model.get_parameter(name) == plain.model.get_parameter(name)).all())
    assert not any(one.requires_grad for one in tuned.model.parameters())


def test_same_seed_gives_the_same_vectors_and_another_seed_others(tuned: SentenceEncoder) -> None:
    vectors = tuned.encode(TEXTS)
    assert np.array_equal(tune(TEXTS, LABELS, FEW, 0).encode(TEXTS), vectors)
    assert not np.allclose(tune(TEXTS, LABELS, FEW, 1).encode(TEXTS), vectors, atol=1e-3)


def test_vectors_have_length_one_and_the_order_of_their_texts(plain: SentenceEncoder) -> None:
    vectors = plain.encode(TEXTS)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(len(TEXTS)), abs=1e-5)
    for text, vector in zip(TEXTS, vectors, strict=True):
        assert plain.encode([text])[0] == pytest.approx(vector, abs=1e-5)


def test_labels_that_make_no_pairs_are_named() -> None:
    for labels in (["a"] * 3, ["a", "b", "c"], []):
        with pytest.raises(DataError, match="make no pairs; label at least two texts of one class and one of another"):
            tune(TEXTS[: len(labels)], labels, FEW, 0)
    with pytest.raises(ValueError, match="steps=0 must be at least 1"):
        SetFit(steps=0)
