"""Whole words of a list in any script."""

import polars as pl
import pytest

from curation.rules import word_lists
from curation.rules.word_lists import built_in, count_words, list_names, normal


def count(text: str, *words: str) -> float:
    frame = pl.DataFrame({"text": [text, "something else"]})
    return frame.select(count_words(pl.col("text"), normal(words)))["text"][0]


@pytest.mark.parametrize(
    ("text", "words", "number"),
    [
        ("The Class has an ASS, ass-kicking; glass", ["ass"], 2),
        ("The Class has an ASS, 漢 ass-kicking; glass", ["ass"], 2),
        ("Terms  of\nUse apply; read the terms of use.", ["terms of use", "terms"], 2),
        ("c++ or c, and _x1_x", ["c++", "_x", "x1"], 1),
        ("Straße, STRASSE; NAI\u0308VE", ["straße", "naïve"], 2),
        ("너는 바보다. 바보들이 바보상자를 본다. 왕바보! 바보에게는", ["바보"], 3),
        ("나는 사과를 먹고 사과문을 쓴다", ["사과"], 1),
        ("spam을 보냈다 我收到spam了 spammer", ["spam"], 2),
        ("他是笨蛋，笨蛋们", ["笨蛋"], 2),
        ("他的性格，性，性 a", ["性"], 2),
        ("馬鹿ですか、馬鹿者", ["馬鹿"], 2),
        ("คนโง่มาก", ["โง่"], 1),
        ("คนโง่มาก", ["โง"], 0),
        ("no such thing", ["바보", "ass"], 0),
    ],
)
def test_words_are_found_whole(text, words, number):
    assert count(text, *words) == number


def test_many_words_give_what_few_give(monkeypatch):
    text = "the class of 바보 and the terms of use of 笨蛋; the Foo"
    words = ["the", "of", "바보", "笨蛋", "terms of use", "class of"]
    few = count(text, *words)
    monkeypatch.setattr(word_lists, "MANY_WORDS", 0)
    assert count(text, *words, *(f"foo{at}" for at in range(300))) == few == 8


@pytest.mark.parametrize("name", list_names())
def test_a_list_that_comes_along_is_found_in_its_own_text(name):
    words = built_in(name)
    assert len(words) == len(set(words)) >= 15
    assert count(" ".join(words), *words) == len(words)
