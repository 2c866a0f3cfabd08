"""Quality rules at their published thresholds, in scripts with and without spaces."""

import polars as pl
import pytest

from catalog.errors import DataError, NotFoundError
from curation.rules import RULES, Bounds, judge, measure


def value(rule: str, text: str) -> float | None:
    return measure(pl.Series([text]), [rule])[rule][0]


def kept(rule: str, text: str) -> bool:
    bounds = {rule: RULES[rule].configured()}
    return judge(measure(pl.Series([text]), [rule]), bounds)["kept"][0]


def words(number: int, word: str = "word") -> str:
    return " ".join([word] * number)


@pytest.mark.parametrize(
    ("rule", "text", "measured", "stays"),
    [
        ("word_count", words(49), 49, False),
        ("word_count", words(50), 50, True),
        ("word_count", words(100_000, "a"), 100_000, True),
        ("word_count", words(100_001, "a"), 100_001, False),
        ("mean_word_length", "abc abc", 3, True),
        ("mean_word_length", "abc abc ab", 8 / 3, False),
        ("mean_word_length", "abcdefghij", 10, True),
        ("mean_word_length", "abcdefghijk abcdefghij", 10.5, False),
        ("symbol_hash_ratio", "# " + words(9), 0.1, True),
        ("symbol_hash_ratio", "## " + words(9), 0.2, False),
        ("symbol_ellipsis_ratio", "word... " + words(9), 0.1, True),
        ("symbol_ellipsis_ratio", "word… word... " + words(8), 0.2, False),
        ("bullet_line_ratio", "- a\n" * 9 + "a", 0.9, True),
        ("bullet_line_ratio", "  • a\n\n" * 10, 1.0, False),
        ("ellipsis_line_ratio", "a...\n" * 2 + "a… \n" + "a\n" * 7, 0.3, True),
        ("ellipsis_line_ratio", "a...\n" * 4 + "a ... b\n" * 6, 0.4, False),
        ("alpha_word_ratio", "a b c d 5", 0.8, True),
        ("alpha_word_ratio", "a b c 4 5", 0.6, False),
        ("stop_word_count", "The cat, and no more", 2, True),
        ("stop_word_count", "the the then theory", 1, False),
        ("duplicate_line_ratio", "a\nb\nc\nd\ne\nf\ng\na\na \na", 0.3, True),
        ("duplicate_line_ratio", "a\nb\na", 1 / 3, False),
        ("duplicate_line_char_ratio", "abcdefgh\na\na", 0.1, True),
        ("duplicate_line_char_ratio", "bb\nbb\ncccccc", 0.2, True),
        ("duplicate_line_char_ratio", "bbb\nbbb\ncccccc", 0.25, False),
        ("char_count", "", 0, False),
        ("char_count", "한", 1, True),
        ("replacement_char_ratio", "x" * 99 + "\ufffd", 0.01, True),
        ("replacement_char_ratio", "x" * 98 + "\ufffd\x93", 0.02, False),
        ("url_ratio", "see http://a.b/c ok", 12 / 19, False),
        ("url_ratio", "https://a.b and nothing more", 11 / 28, True),
    ],
)
def test_published_bounds_are_inclusive(rule, text, measured, stays):
    assert value(rule, text) == pytest.approx(measured, abs=1e-12)
    assert kept(rule, text) is stays


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("今天天气很好，我们去公园吧。", 6),
        ("สวัสดีครับ", 2.5),
        ("안녕하세요 여러분", 2),
        ("hello，world", 2),
        ("iPhone 手机 ok", 3),
        ("👍 👍🏽", 2),
    ],
)
def test_words_are_counted_in_scripts_without_spaces(text, number):
    assert value("word_count", text) == number


@pytest.mark.parametrize("text", ["今天天气很好", "สวัสดีครับ", "오늘 날씨가 좋다", "今日は天気がいい"])
def test_rules_made_for_alphabets_do_not_apply_to_other_scripts(text):
    assert value("mean_word_length", text) is None
    assert value("stop_word_count", text) is None
    assert kept("mean_word_length", text)
    assert kept("stop_word_count", text)
    assert value("alpha_word_ratio", text) == 1


def test_text_without_words_has_no_ratios():
    measured = measure(pl.Series([" \n"]), list(RULES))
    applicable = {name: measured[name][0] for name in measured.columns if measured[name][0]}
    assert applicable == {"byte_count": 2, "char_count": 2, "white_space_ratio": 1}


def test_reason_is_the_first_failure_in_order_of_the_bounds_and_null_keeps():
    measured = pl.DataFrame({"a": [1.0, 5.0, None], "b": [9.0, 0.0, 9.0]})
    bounds = {"b": Bounds(maximum=5.0), "a": Bounds(minimum=2.0, maximum=5.0)}
    assert judge(measured, bounds).rows() == [(False, "b", ["b", "a"]), (True, None, []), (False, "b", ["b"])]
    assert judge(measured, dict(reversed(bounds.items())))["reason"].to_list() == ["a", None, "b"]


def test_without_bounds_everything_is_kept():
    assert judge(pl.DataFrame({"a": [1.0, 2.0]}), {}).rows() == [(True, None, []), (True, None, [])]
    assert judge(pl.DataFrame({"a": [1.0]}), {"a": Bounds()})["kept"].to_list() == [True]
    assert judge(measure(pl.Series([], dtype=pl.String), ["word_count"]), {"word_count": Bounds()}).height == 0


def test_unknown_rule_and_unmeasured_rule_name_the_nearest():
    with pytest.raises(NotFoundError, match="did you mean 'word_count'"):
        measure(pl.Series(["x"]), ["word_cout"])
    with pytest.raises(DataError, match="did you mean 'word_count'"):
        judge(pl.DataFrame({"word_count": [1.0]}), {"word_cout": Bounds()})


@pytest.mark.parametrize("given", [{"minimum": 2, "maximum": 1}, {"minimum": float("nan")}, {"maximum": "9"}])
def test_bounds_that_no_value_satisfies_are_refused(given):
    with pytest.raises(ValueError, match=r"minimum|maximum"):
        Bounds(**given)
