"""Laws of every rule: one Float64 a text, from that text alone, however texts lie in shards."""

import functools
import math
import random

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.rules import RULES, Bounds, judge, measure

SAMPLES = [
    "The quick brown fox",
    "안녕 하세요",
    "今天天气很好。",
    "สวัสดี",
    "👍🏽",
    "- a\n- a\n…",
    "http://x.y #a",
    "",
    " \n\t",
]
texts = st.lists(st.sampled_from(SAMPLES) | st.text(), min_size=1, max_size=6)
NAMES = sorted(RULES.load())
SENTENCES = [
    "The weather is lovely today, and we have to go out of the house with the dog.",
    "We use cookies. Read more about the terms of use of this page [1].",
    "오늘은 날씨가 좋아서 공원에 가려고 합니다. 그리고 저녁에는 집에서 책을 읽겠습니다.",
    "今天天气很好，我们去公园散步吧。你觉得怎么样？",
    "今日は天気がいいので公園に行きます。「はい」と言いました。",
    "วันนี้อากาศดีเราจะไปสวนสาธารณะกัน",
    "Das Wetter ist heute schön und wir gehen in den Park! Ã©tÃ© café",
    "- {js: 1} enable JavaScript #tag http://example.org/a/b ...",
    "👩‍👩‍👧 LOREM IPSUM 12,345 \ufffd\x93",
]


@functools.cache
def shard() -> pl.Series:
    """Texts of one to twelve sentences of mixed languages in lines and paragraphs, some of which repeat."""
    rng = random.Random(1)
    ends = (" ", "\n", "\n\n", "\r\n")
    made = ["".join(rng.choice(SENTENCES) + rng.choice(ends) for _ in range(rng.randint(1, 12))) for _ in range(60)]
    return pl.Series([*SAMPLES, *made])


@functools.cache
def measured(order: str) -> pl.DataFrame:
    """Every rule's value for each text of the shard, in its order, measured in shards that lie otherwise."""
    whole = shard()
    places = list(range(len(whole)))
    if order == "shuffled":
        random.Random(2).shuffle(places)
    if order == "alone":
        parts = [[place] for place in places]
    elif order == "merged":
        parts = [[*places, *reversed(places)]]
    elif order == "split":
        parts = [places[:7], places[7:8], places[8:]]
    else:
        parts = [places]
    found = [measure(whole.gather(part), NAMES).with_columns(at=pl.Series(part)) for part in parts]
    together = pl.concat(found)
    # Of a text that stands twice, both values.
    return together.sort("at", maintain_order=True)


@pytest.mark.parametrize("name", NAMES)
def test_value_is_the_same_however_texts_lie_in_shards(name):
    expected = measured("whole")[name].to_list()
    for order in ("shuffled", "split", "alone"):
        assert measured(order)[name].to_list() == expected
    merged = measured("merged")[name].to_list()
    assert merged[::2] == merged[1::2] == expected
    bounds = {name: RULES[name].configured()}
    assert judge(measured("shuffled"), bounds).equals(judge(measured("whole"), bounds))


@settings(max_examples=40)
@given(rows=texts)
def test_value_ignores_neighbours_and_is_a_finite_number_or_null(rows):
    together = measure(pl.Series(rows, dtype=pl.String), NAMES)
    assert set(together.dtypes) == {pl.Float64}
    assert together.height == len(rows)
    for row, text in enumerate(rows):
        alone = measure(pl.Series([text], dtype=pl.String), NAMES).row(0, named=True)
        assert together.row(row, named=True) == alone
    for name in NAMES:
        values = together[name].drop_nulls().to_list()
        assert all(math.isfinite(value) and value >= 0 for value in values), name
        if name.endswith("_ratio") and name not in ("symbol_hash_ratio", "symbol_ellipsis_ratio", "newline_word_ratio"):
            assert max(values, default=0) <= 1, name


@pytest.mark.parametrize("name", NAMES)
def test_config_is_bounds_with_a_published_side(name):
    bounds, told = RULES[name].configured(), RULES[name].member.__doc__
    assert isinstance(bounds, Bounds)
    assert told
    assert (bounds.minimum, bounds.maximum) != (None, None) or "Measured" in told
