"""Percentiles, token counts and their joining; every part against its formula or a slow reference."""

from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from catalog.errors import DataError
from curation.difficulty import DIFFICULTY, Corpus, TokenCounts, combine, count_tokens, percentile, ranked
from curation.ngram import NgramCounts, count_ngrams

CORPUS = pl.Series(["the cat sat on the mat", "The dog", "오늘 날씨가 좋다", "今天天气很好"])


def score(name: str, *texts: str, corpus: Corpus | None = None) -> list[float]:
    return DIFFICULTY[name].member(pl.Series(texts), corpus or Corpus(count_tokens(CORPUS))).to_list()


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


def test_a_part_that_makes_no_sense_for_a_record_is_left_out_of_its_mean():
    grades = ranked(pl.Series("readability", [None, 7.0, 2.0, None, 9.0]))
    assert grades.to_list() == [None, 0.5, 0.0, None, 1.0]
    assert ranked(pl.Series("readability", [None, None], dtype=pl.Float64)).to_list() == [None, None]
    parts = pl.DataFrame({"a": [0.2, 0.5], "b": [None, 1.0], "c": [None, None]}, schema_overrides={"c": pl.Float64})
    assert combine(parts).to_list() == [0.2, 0.75]
    assert combine(parts.select("c")).to_list() == [0.5, 0.5]


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


def plain_mtld(tokens: list[str]) -> float:
    """By the words of the paper, one direction after the other."""

    def one_way(tokens: list[str]) -> float:
        factors, seen, count = 0.0, set(), 0
        for token in tokens:
            seen.add(token)
            count += 1
            if len(seen) / count <= 0.72:
                factors, seen, count = factors + 1, set(), 0
        if count:
            factors += (1 - len(seen) / count) / (1 - 0.72)
        return len(tokens) / factors if factors else float(len(tokens))

    return (one_way(tokens) + one_way(tokens[::-1])) / 2


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=60))
def test_mtld_is_the_mean_length_of_stretches_read_both_ways(tokens):
    assert score("mtld", " ".join(tokens), "other words beside it")[0] == pytest.approx(plain_mtld(tokens))


def test_mtld_takes_chinese_by_character_and_ignores_case():
    assert score("mtld", "好好好好", "A a a a", "x1 x1 x1 x1") == [4 / 2] * 3
    assert score("mtld", "", "one two three") == [0, 3]


def test_readability_is_the_published_grade_and_null_where_the_script_has_none():
    mat = "The cat sat on the mat."
    table = "The table made the houses whole. Wanted!"
    grades = [0.39 * 6 + 11.8 * 6 / 6 - 15.59, 0.39 * 7 / 2 + 11.8 * 10 / 7 - 15.59]
    assert score("readability", mat, table) == pytest.approx(grades)
    assert score("readability", "오늘 날씨가 좋다 ok", "今天天气很好", "👍 123", "") == [None] * 4


def slow_perplexity(text: str, corpus: list[str]) -> float:
    """The same recursion over n-grams in dictionaries."""
    seen: Counter[tuple[str, ...]] = Counter()
    followed: Counter[tuple[str, ...]] = Counter()

    def events(text: str):
        symbols = ["<"] * 4 + [*text, ">"]
        for at in range(4, len(symbols)):
            yield [(tuple(symbols[at - order : at]), symbols[at]) for order in range(5)]

    for one in corpus:
        for event in events(one):
            for context, symbol in event:
                seen[*context, symbol] += 1
                followed[context] += 1
    logs = []
    for event in events(text):
        p = 1 / 2**17
        for context, symbol in event:
            p = (seen[*context, symbol] + 4 * p) / (followed[context] + 4)
        logs.append(np.log(p))
    return float(np.exp(-np.mean(logs)))


def test_perplexity_is_that_of_a_smoothed_model_of_five_characters():
    corpus = Corpus(count_tokens(CORPUS), count_ngrams(CORPUS))
    texts = ["the cat sat", "오늘은 좋다", "zzz", ""]
    assert score("perplexity", *texts, corpus=corpus) == pytest.approx(
        [slow_perplexity(text, CORPUS.to_list()) for text in texts]
    )
    with pytest.raises(DataError, match="n-grams"):
        score("perplexity", "the")


def test_ngram_counts_of_parts_add_up_and_survive_storage():
    whole = count_ngrams(CORPUS)
    parts = count_ngrams(CORPUS[:1]).merge(count_ngrams(CORPUS[1:]))
    assert np.array_equal(parts.counts, whole.counts)
    assert np.array_equal(NgramCounts.from_frame(whole.to_frame()).counts, whole.counts)
    with pytest.raises(DataError, match="slots"):
        NgramCounts.from_frame(pl.DataFrame({"slot": [5 * 2**22], "count": [1]}))
