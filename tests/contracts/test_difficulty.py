"""Laws of every difficulty: one number a text, from that text and the corpus alone."""

import math

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.difficulty import DIFFICULTY, Corpus, count_tokens
from curation.ngram import count_ngrams

TEXTS = pl.Series(["the cat sat", "오늘 날씨가 좋다", "今天天气很好", "the end"])
CORPUS = Corpus(count_tokens(TEXTS), count_ngrams(TEXTS))
texts = st.lists(st.text() | st.sampled_from(["the", "오늘", "今天", "", "👍"]), min_size=1, max_size=6)


@pytest.mark.parametrize("name", sorted(DIFFICULTY.load()))
@given(rows=texts)
def test_score_is_finite_and_ignores_neighbours(name, rows):
    score = DIFFICULTY[name].member
    together = score(pl.Series(rows, dtype=pl.String), CORPUS)
    assert together.dtype == pl.Float64
    assert together.to_list() == [score(pl.Series([row]), CORPUS)[0] for row in rows]
    assert all(math.isfinite(value) for value in together.drop_nulls())


@pytest.mark.parametrize("name", sorted(DIFFICULTY.load()))
def test_no_texts_have_no_scores(name):
    assert len(DIFFICULTY[name].member(pl.Series([], dtype=pl.String), CORPUS)) == 0
