"""Percentiles, token counts and their joining."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from catalog.errors import DataError
from curation.difficulty import DIFFICULTY, TokenCounts, combine, count_tokens, percentile

CORPUS = pl.Series(["the cat sat on the mat", "The dog", "오늘 날씨가 좋다", "今天天气很好"])


def score(name: str, *texts: str, corpus: TokenCounts | None = None) -> list[float]:
    return DIFFICULTY[name].member(pl.Series(texts), corpus or count_tokens(CORPUS)).to_list()


@given(st.lists(st.integers(-5, 5) | st.floats(allow_nan=False), min_size=2))
def test_percentiles_are_mean_ranks_from_zero_to_one(values):
    ranks = percentile(np.array(values, dtype=float))
    assert ranks == pytest.approx((rankdata(np.array(values, dtype=float)) - 1) / (len(values) - 1))


def test_percentile_of_one_or_equal_values_is_the_middle():
    assert percentile(np.array([7.0])).tolist() == [0.5]
    assert percentile(np.array([2.0, 2.0, 2.0])).tolist() == [0.5] * 3
    assert percentile(np.array([])).tolist() == []
    with pytest.raises(DataError, match="row 1"):
        percentile(np.array([1.0, np.nan]))


def test_difficulty_is_the_mean_of_the_percentiles():
    assert combine(pl.DataFrame({"a": [0.0, 1.0], "b": [0.5, 0.0]})).to_list() == [0.25, 0.5]
    with pytest.raises(DataError):
        combine(pl.DataFrame())


@given(st.lists(st.text(), min_size=1, max_size=8), st.integers(0, 8))
def test_counts_of_parts_add_up_to_counts_of_the_whole(texts, cut):
    whole = count_tokens(pl.Series(texts, dtype=pl.String))
    parts = [count_tokens(pl.Series(part, dtype=pl.String)) for part in (texts[:cut], texts[cut:])]
    assert np.array_equal(TokenCounts.empty().merge(parts[0]).merge(parts[1]).counts, whole.counts)
    frame = whole.to_frame()
    assert frame["bucket"].is_sorted()
    assert (frame["count"] > 0).all()
    assert np.array_equal(TokenCounts.from_frame(frame).counts, whole.counts)


def test_counts_ignore_case_and_take_chinese_by_character():
    counts = count_tokens(CORPUS)
    assert counts.total == 6 + 2 + 3 + 6
    assert counts.counts.max() == 3


def test_counts_outside_their_range_are_refused():
    with pytest.raises(DataError, match="bucket"):
        TokenCounts.from_frame(pl.DataFrame({"bucket": [2**18], "count": [1]}))


def test_rarity_is_the_mean_surprise_under_add_one_counts():
    total = 17 + 2**18
    seen, unseen = -np.log(4 / total), -np.log(1 / total)
    assert score("rarity", "THE", "the xylophone", "") == pytest.approx([seen, (seen + unseen) / 2, unseen])


def test_length_counts_words_or_characters():
    assert score("length", "two words", "今天天气", "오늘 날씨", "👍", "") == [2, 4, 2, 0, 0]


def test_repetitive_text_compresses_to_less():
    repeated, dense, empty = score("compression_ratio", "again " * 200, "".join(map(chr, range(33, 600))), "")
    assert repeated < 0.05 < 0.4 < dense
    assert empty == 0
