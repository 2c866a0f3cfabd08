"""The model of words against the published formula, and what it must not depend on."""

import random

import numpy as np
import polars as pl
import pytest

from catalog.errors import ConfigError, DataError
from curation.kneser_ney import KneserNey, fit_kneser_ney
from tests.workers.corpus import KOREAN, WORDS


def sentences(count: int = 300, seed: int = 1) -> list[str]:
    """Sentences in which each word goes before few others."""
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        words = rng.choice((WORDS, KOREAN))
        at = rng.randrange(len(words))
        line = []
        for _ in range(12):
            line.append(words[at % len(words)])
            at += rng.choice((1, 1, 1, 2, 5))
        made.append(" ".join(line))
    return made


@pytest.fixture(scope="module")
def model() -> KneserNey:
    return fit_kneser_ney(pl.Series(sentences()))


def interpolated(texts: list[str], history: list[str], word: str, order: int = 3) -> float:
    """Modified Kneser-Ney written down from Chen and Goodman (1998) with dictionaries, as an oracle."""

    def counts(length: int) -> dict[tuple[str, ...], float]:
        found: dict[tuple[str, ...], set[object]] = {}
        for number, text in enumerate(texts):
            words = text.lower().split()
            for at in range(length - 1, len(words)):
                gram = tuple(words[at - length + 1 : at + 1])
                front = words[at - length] if at >= length else "<s>"
                found.setdefault(gram, set()).add((number, at) if length == order else front)
        return {gram: float(len(one)) for gram, one in found.items()}

    def discount(values: list[float], count: float) -> float:
        n = [sum(one == k for one in values) for k in (1, 2, 3, 4)]
        steps = (0.5, 1.0, 1.5)
        if min(n) > 0:
            y = n[0] / (n[0] + 2 * n[1])
            tried = tuple(k - (k + 1) * y * n[k] / n[k - 1] for k in (1, 2, 3))
            steps = tried if all(0 < one <= k for k, one in enumerate(tried, 1)) else steps
        return steps[min(int(count), 3) - 1]

    one = counts(1)
    total = sum(one.values())
    left = sum(discount(list(one.values()), count) for count in one.values()) / total
    p = left / (len(one) + 1)
    if (word,) in one:
        p += (one[(word,)] - discount(list(one.values()), one[(word,)])) / total
    for length in range(2, order + 1):
        if len(history) < length - 1:
            break
        context, grams = tuple(history[-(length - 1) :]), counts(length)
        behind = {gram: count for gram, count in grams.items() if gram[:-1] == context}
        if not behind:
            break
        values = list(grams.values())
        total = sum(behind.values())
        own = behind.get((*context, word), 0.0)
        p = (own - discount(values, own) if own else 0.0) / total + p * sum(
            discount(values, count) for count in behind.values()
        ) / total
    return p


@pytest.mark.parametrize(
    "text", ["printer network password", "printer network 환불", "meeting unseen the", "주문 환불"]
)
def test_probability_is_that_of_the_published_formula(model: KneserNey, text: str) -> None:
    texts, words = sentences(), text.split()
    expected = -sum(np.log(interpolated(texts, words[:at], word)) for at, word in enumerate(words))
    sums, counts = model.surprise(pl.Series([text]))
    assert counts.tolist() == [len(words)]
    assert sums[0] == pytest.approx(expected, rel=1e-5)


def test_probabilities_of_all_words_after_a_context_add_up_to_one(model: KneserNey) -> None:
    vocabulary = sorted({*WORDS, *KOREAN})
    for context in ("printer network", "never seen", "주문"):
        base = model.surprise(pl.Series([context]))[0][0]
        sums, _ = model.surprise(pl.Series([f"{context} {word}" for word in [*vocabulary, "zzz"]]))
        assert np.exp(base - sums).sum() == pytest.approx(1, abs=1e-5)


def test_file_and_order_of_texts_change_nothing() -> None:
    texts = sentences()
    model = fit_kneser_ney(pl.Series(texts), 4)
    turned = fit_kneser_ney(pl.Series(texts[::-1]), 4)
    assert turned.to_bytes() == model.to_bytes()
    asked = pl.Series(["", "…", *texts[:5], "asdf qwer", "환불 배송 지연", "今天天气很好"])
    found = KneserNey.from_bytes(model.to_bytes()).perplexity(asked)
    np.testing.assert_array_equal(found, model.perplexity(asked))
    alone = [model.perplexity(asked[row : row + 1])[0] for row in range(len(asked))]
    np.testing.assert_array_equal(found, alone)
    assert np.isnan(found[0])


def test_shuffled_and_foreign_text_surprises_more() -> None:
    model = fit_kneser_ney(pl.Series(sentences()))
    new = sentences(60, seed=2)
    shuffled = [" ".join(random.Random(5).sample(line.split(), 12)) for line in new]
    known, mixed, foreign = (
        np.median(model.perplexity(pl.Series(one))) for one in (new, shuffled, ["xkq zzvf wqp", "今天天气很好"])
    )
    assert 1 < known < mixed < foreign


def test_what_cannot_be_counted_is_refused() -> None:
    with pytest.raises(DataError, match=r"the reference has 2 words, at least 1,000"):
        fit_kneser_ney(pl.Series(["two words"]))
    with pytest.raises(ConfigError, match="order=9 must be a whole number from 2 to 8"):
        fit_kneser_ney(pl.Series(["two words"]), 9)
