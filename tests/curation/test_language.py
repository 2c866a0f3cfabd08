"""Language identification."""

from concurrent.futures import ThreadPoolExecutor

import polars as pl
import pytest
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from curation.language import identify, identify_lines

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


def test_languages_are_those_of_py3langid():
    package = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    texts = [*SAMPLES.values(), *(text.upper() for text in SAMPLES.values()), *(text[:9] for text in SAMPLES.values())]
    texts += [
        "ΣΊΣΥΦΟΣ ΌΛΟΣ",
        "İSTANBUL'DA BİR GÜN",
        "e\u0301te\u0301 a\u0300 Paris",
        "x",
        "한국어와 English 섞어 쓰기",
        "ا ب",
    ]
    texts += [" ".join(texts) * 3, texts[0] * 200]
    found = identify(pl.Series(texts))
    for text, language, confidence in zip(texts, found["language"], found["confidence"], strict=True):
        expected, probability = package.classify(text[:4096])
        assert language == expected
        assert confidence == pytest.approx(float(probability), abs=1e-4)


def test_lines_in_another_language_are_counted_by_their_characters():
    korean, english = SAMPLES["ko"], SAMPLES["en"]
    texts = [
        f"{korean}\n\n {english} \n{korean}\n12\nok go",
        f"{english}\n{english}",
        korean,
        "\n\n",
        f"{english}\n{korean}\n{SAMPLES['th']}",
    ]
    found = identify(pl.Series(texts))
    chars = 2 * len(korean) + len(english) + len("12") + len("ok go")
    assert found["other_language_ratio"][0] == pytest.approx(len(english) / chars)
    assert found["other_language"].to_list()[:4] == ["en", None, None, None]
    assert found["other_language_ratio"].to_list()[1:4] == [0, 0, None]
    assert found["other_language_ratio"][4] > 0.3
    lines = identify_lines(pl.Series(texts[:1]))
    assert lines.rows() == [
        (0, 0, len(korean), "ko", 1.0),
        (0, 2, len(english), "en", lines["confidence"][1]),
        (0, 3, len(korean), "ko", 1.0),
        (0, 4, 2, None, None),
        (0, 5, 5, None, None),
    ]
