"""Where two texts differ: nothing is lost, nothing equal is marked, and no character is torn apart."""

import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.differences import MISSING, OWN, SHARED, Runs, differences, excerpt, pieces

ALPHABET = [
    *"aZ09_.,!? \n\t<>&'\"",
    *"한국어배송 \u1112\u1161\u11ab",
    *"退货请检查的 ひらカナ",
    *"ส่งที่ไม่ ",
    *"हिन्दी ქ ж",
    *("e\u0301", "\u200d", "\u200c", "\ufe0f"),
    *("👍", "👍🏽", "👨\u200d👩\u200d👧", "🇰🇷", "🇯🇵", "❤\ufe0f"),
]
texts = st.lists(st.sampled_from(ALPHABET), max_size=30).map("".join) | st.text(max_size=40)
plain = st.lists(st.sampled_from(["order", "late", "refund", "the", "12", "99", "한국", "配", "送"]), max_size=15)


def joined(runs: Runs, *kinds: str) -> str:
    return "".join(text for text, kind in runs if kind in kinds)


@given(kept=texts, other=texts)
def test_runs_but_the_missing_ones_are_the_text(kept: str, other: str) -> None:
    assert joined(differences(kept, other), SHARED, OWN) == other


@given(kept=plain, other=plain)
def test_runs_but_its_own_are_the_kept_text_up_to_white_space(kept: list[str], other: list[str]) -> None:
    runs = differences(" ".join(kept), " ".join(other))
    assert "".join(joined(runs, SHARED, MISSING).split()) == "".join(kept)


@given(text=texts)
def test_equal_texts_have_no_mark(text: str) -> None:
    assert differences(text, text) == ([(text, SHARED)] if text else [])


@given(words=plain, spaces=st.lists(st.sampled_from([" ", "  ", "\n", "\u3000"]), min_size=16, max_size=16))
def test_case_and_white_space_are_no_difference(words: list[str], spaces: list[str]) -> None:
    other = "".join(f"{word.upper()}{space}" for word, space in zip(words, spaces, strict=False))
    assert {kind for _, kind in differences(" ".join(words), other)} <= {SHARED}


@given(kept=texts, other=texts)
def test_runs_alternate_and_no_mark_is_white_space_alone(kept: str, other: str) -> None:
    runs = differences(kept, other)
    kinds = [kind for _, kind in runs]
    assert all(first != second for first, second in pairwise(kinds))
    assert all(text.strip() for text, kind in runs if kind != SHARED)
    assert all(text for text, _ in runs)


@given(kept=texts, other=texts)
def test_no_run_begins_with_what_belongs_to_the_character_before(kept: str, other: str) -> None:
    whole = {0, *(sum(map(len, pieces(other)[:number])) for number in range(len(pieces(other))))}
    at = 0
    for text, kind in differences(kept, other):
        if kind == MISSING:
            continue
        assert at in whole
        assert at == 0 or unicodedata.category(text[0])[0] != "M"
        at += len(text)


@given(text=texts, most=st.integers(1, 10))
def test_pieces_joined_are_the_text_or_its_beginning(text: str, most: int) -> None:
    assert "".join(pieces(text)) == text
    assert pieces(text, most) == pieces(text)[:most]


def test_only_the_beginning_is_compared_if_asked_and_more_of_the_kept_text() -> None:
    words = [f"word{number}" for number in range(100)]
    runs = differences(f"good morning {' '.join(words)}", " ".join(words), num_pieces=9)
    assert runs[:2] == [("good morning ", MISSING), ("word0 word1 word2 word3 word4", SHARED)]
    assert [kind for _, kind in runs[2:]] == [MISSING]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("주문 12번이 늦어요.", ["주문", " ", "12번이", " ", "늦어요", "."]),
        ("请查iPhone手机", ["请", "查", "iPhone", "手", "机"]),
        ("ที่ไม่", ["ที่", "ไ", "ม่"]),
        ("हिन्दी में", ["हिन्दी", " ", "में"]),
        ("cafe\u0301 bar", ["cafe\u0301", " ", "bar"]),
        ("한국".replace("한", "\u1112\u1161\u11ab"), ["\u1112\u1161\u11ab국"]),
        ("👍🏽👍", ["👍🏽", "👍"]),
        ("👨\u200d👩\u200d👧!", ["👨\u200d👩\u200d👧", "!"]),
        ("🇰🇷 🇯🇵", ["🇰🇷", " ", "🇯🇵"]),
        ("نمی\u200cخواهم", ["نمی\u200cخواهم"]),
    ],
)
def test_pieces_are_what_people_take_for_one(text: str, expected: list[str]) -> None:
    assert pieces(text) == expected


@pytest.mark.parametrize(
    ("kept", "other", "expected"),
    [
        ("주문 12번 네", "주문 13번 네", [("주문 ", SHARED), ("12번", MISSING), ("13번", OWN), (" 네", SHARED)]),
        ("请查iPhone电池", "请查iPhone屏幕", [("请查iPhone", SHARED), ("电池", MISSING), ("屏幕", OWN)]),
        ("เมื่อวานนี้", "เมื่อวานซืน", [("เมื่อวาน", SHARED), ("นี้", MISSING), ("ซืน", OWN)]),
        ("ok 👩\u200d👧", "ok 👩\u200d👦", [("ok ", SHARED), ("👩\u200d👧", MISSING), ("👩\u200d👦", OWN)]),
        ("the day before", "a couple ago", [("the day before", MISSING), ("a couple ago", OWN)]),
        ("now several times", "now", [("now", SHARED), (" several times", MISSING)]),
        ("", "new", [("new", OWN)]),
        ("gone", "", [("gone", MISSING)]),
    ],
)  # fmt: skip
def test_differences_are_marked_whole(kept: str, other: str, expected: Runs) -> None:
    assert differences(kept, other) == expected


def test_excerpt_keeps_a_difference_far_from_the_beginning() -> None:
    before, after = "word " * 100, " tail" * 100
    runs = excerpt(differences(f"{before}old{after}", f"{before}new{after}"), 400)
    assert [run for run in runs if run[1] != SHARED] == [("old", MISSING), ("new", OWN)]
    assert runs[0][0] == f"{before[:80]}…{before[-80:]}"
    assert runs[-1] == (f"{after[:80]}…", SHARED)
    assert sum(len(text) for text, _ in runs) <= 400


@given(kept=texts, other=texts, num_chars=st.integers(1, 100))
def test_excerpt_is_short_and_leaves_short_runs_alone(kept: str, other: str, num_chars: int) -> None:
    runs = differences(kept, other)
    short = excerpt(runs, num_chars)
    assert sum(len(text) for text, _ in short) <= num_chars + 1
    if sum(len(text) for text, _ in runs) <= num_chars:
        assert short == runs
    else:
        assert short[-1][0].endswith("…")
