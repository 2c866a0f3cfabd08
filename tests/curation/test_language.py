"""Language identification."""

from concurrent.futures import ThreadPoolExecutor

import polars as pl

from curation.language import identify

SAMPLES = {
    "en": "The weather is lovely today and we are going to the park",
    "ko": "오늘 날씨가 좋아서 공원에 가려고 합니다",
    "zh": "今天天气很好，我们去公园散步吧",
    "ja": "今日は天気がいいので公園に行きます",
    "th": "วันนี้อากาศดีเราจะไปสวนสาธารณะกัน",
    "de": "Das Wetter ist heute schön und wir gehen in den Park",
}


def test_languages_are_identified_with_confidence():
    found = identify(pl.Series(list(SAMPLES.values())))
    assert found["language"].to_list() == list(SAMPLES)
    assert found["confidence"].is_between(0.9, 1).all()


def test_text_without_letters_has_no_language():
    assert identify(pl.Series(["12 34!", "👍🏽", "", "..."])).rows() == [(None, None, None, None)] * 4


def test_answer_is_the_same_alone_among_others_and_from_threads():
    texts = pl.Series(list(SAMPLES.values()) * 20)
    expected = identify(texts)
    with ThreadPoolExecutor(4) as pool:
        assert all(one.equals(expected) for one in pool.map(identify, [texts] * 4))
    assert [identify(pl.Series([text])).row(0) for text in texts[:6]] == expected.rows()[:6]
