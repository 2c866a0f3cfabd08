"""Quality rules at their published thresholds, in scripts with and without spaces."""

import json

import polars as pl
import pytest
from ftfy.badness import badness
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.errors import ConfigError, DataError, NotFoundError
from curation.recipe import Recipe, load_recipe, recipe_from_canonical
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
        ("duplicate_paragraph_ratio", "a\nb\n \na\nb\n\nc", 1 / 3, False),
        ("duplicate_paragraph_ratio", "a\nb\n\nb\na\n\nc", 0, True),
        ("duplicate_paragraph_char_ratio", "ab\ncd\n\nab\n cd \n\n" + "x" * 12, 0.2, True),
        ("duplicate_paragraph_char_ratio", "ab\ncd\n\nab\ncd\n\n" + "x" * 11, 4 / 19, False),
        # "a b" four times three characters of 20; the first of equally frequent ones; overlaps count, up to 1.
        ("top_2gram_char_ratio", "a b c a b d a b ee ff", 9 / 21, False),
        ("top_2gram_char_ratio", "a a a a", 1, False),
        ("top_3gram_char_ratio", "aa b c d e f g h i j", 6 / 20, False),
        ("top_4gram_char_ratio", " ".join("abcdefghijklmnopqrstuvwxyz" * 2), 14 / 103, True),
        # Ten of 50 letters stand in the second "a b c d e", once each; what overlaps is not looked at again.
        ("duplicate_5gram_char_ratio", "a b c d e a b c d e", 5 / 19, False),
        ("duplicate_5gram_char_ratio", "a a a a a a a a a a a", 10 / 21, False),
        ("duplicate_10gram_char_ratio", " ".join("abcdefghij") * 1, 0, True),
        ("duplicate_10gram_char_ratio", " ".join("abcdefghij" * 2), 10 / 39, False),
        ("c4_sentence_count", "One two three four five. Six.\nTwo words.\nno end mark in this line\n" * 2, 4, True),
        ("c4_sentence_count", "One two three four! Five", 0, False),
        ("c4_sentence_count", "One two three four five...", 0, False),
        ("c4_sentence_count_datatrove", "One two 'three'.[12]\nHe said 'no'\n" * 3, 3 + 3, True),
        ("c4_sentence_count", "He said no to the 'no'\n" * 4, 0, False),
        ("c4_sentence_count_fineweb", "no end mark\n" * 5, 5, True),
        (
            "c4_line_count",
            "It needs JavaScript to be shown.\nWe use cookies on this page.\n" + "x" * 1001 + " a b c d.",
            0,
            False,
        ),
        ("c4_line_count", "x" * 1000 + " a b c d.", 1, True),
        ("c4_line_ratio_datatrove", "One two three.\nfour\n\n", 0.5, True),
        ("curly_bracket_count", "f() { }", 1, False),
        ("lorem_ipsum_count", "a\nLorem IPSUM dolor", 1, False),
        ("c4_paragraph_count", ("x" * 200 + "\n") * 2 + "가" * 100, 3, True),
        ("c4_paragraph_count", ("x" * 199 + "\n") * 3, 0, False),
        ("terminal_line_ratio", "a.\n" * 3 + "b\n" * 22, 0.12, True),
        ("terminal_line_ratio", "좋다。\n물음？\n끝", 2 / 3, True),
        ("short_line_ratio", "x" * 30 + "\n" + "x" * 31, 0.5, True),
        ("short_line_ratio", "가" * 15 + "\n" + "가" * 16, 0.5, True),
        ("newline_word_ratio", "a b c d e f g h i j\n\n\n", 0.3, True),
        ("fineweb_duplicate_char_ratio", "ab\nab\n" + "x" * 16, 0.1, True),
        ("fineweb_duplicate_char_ratio_shipped", "ab\nab\n" + "x" * 16, 0.1, False),
        ("longest_word", "x" * 1001, 1001, False),
        ("longest_word", "漢" * 5000, 0, True),
        ("digit_ratio", "a1٣", 2 / 3, False),
        ("symbol_ratio", "한글。👍", 0.5, False),
        ("white_space_ratio", "a b ", 0.5, False),
        ("uppercase_ratio", "AB cd한글", 1 / 3, True),
        ("mojibake_ratio", "cafÃ© au lait", 1 / 13, False),
        ("boilerplate_line_ratio", "기사 본문입니다.\n무단전재 및 재배포 금지\nAll Rights Reserved", 2 / 3, False),
        ("policy_line_ratio", "Our Privacy Policy\nb", 0.5, True),
        ("javascript_line_ratio", "javascript:\nb", 0.5, True),
        ("korean_word_length", "나는 학교에 간다", 7 / 3, True),
        ("korean_word_length", "abc 가", None, True),
        ("korean_ending_count", "나는 학교에 간다.", 3, True),
        ("korean_ending_count", "로그인 회원가입 장바구니", 0, False),
        ("url_ratio", "see http://a.b/c ok", 12 / 19, False),
        ("url_ratio", "https://a.b and nothing more", 11 / 28, True),
    ],
)
def test_published_bounds_are_inclusive(rule, text, measured, stays):
    assert value(rule, text) == (None if measured is None else pytest.approx(measured, abs=1e-12))
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


def repeats(tokens: list[str], size: int) -> int:
    """Characters in n-grams that repeat an earlier one, written as the paper tells it."""
    seen, total, at = set(), 0, 0
    while at + size <= len(tokens):
        gram = tuple(tokens[at : at + size])
        if gram in seen:
            total += sum(map(len, gram))
            at += size
        else:
            seen.add(gram)
            at += 1
    return total


def top(tokens: list[str], size: int, gap: int) -> int:
    """Characters of the first of the most frequent n-grams, as often as it stands there."""
    grams = [tuple(tokens[at : at + size]) for at in range(len(tokens) - size + 1)]
    if not grams:
        return 0
    most = max(grams, key=grams.count)
    return (sum(map(len, most)) + gap * (size - 1)) * grams.count(most)


@given(words=st.lists(st.sampled_from(["a", "bb", "나는", "é", "👍"]), min_size=1, max_size=60))
@settings(max_examples=40)
def test_repeated_ngrams_are_those_of_the_definition(words):
    text = " ".join(words)
    for size in (2, 3, 4):
        expected = min(top(words, size, gap=1) / len(text), 1)
        assert value(f"top_{size}gram_char_ratio", text) == pytest.approx(expected)
    for size in range(5, 11):
        assert value(f"duplicate_{size}gram_char_ratio", text) == pytest.approx(repeats(words, size) / len(text))


@given(
    text=st.text(alphabet="天地人、", min_size=1, max_size=60), thai=st.text(alphabet="กขค", min_size=20, max_size=60)
)
@settings(max_examples=30)
def test_where_no_spaces_are_written_a_word_is_two_or_four_characters(text, thai):
    characters = list(text.replace("、", ""))
    if 2 * len(characters) >= len(text) and characters:
        assert value("top_2gram_char_ratio", text) == pytest.approx(min(top(characters, 4, gap=0) / len(text), 1))
        assert value("duplicate_5gram_char_ratio", text) == pytest.approx(repeats(characters, 10) / len(text))
    assert value("duplicate_5gram_char_ratio", thai) == pytest.approx(repeats(list(thai), 20) / len(thai))


@pytest.mark.parametrize("text", ["สวัสดีครับ", "မင်္ဂလာပါ"])
def test_a_full_stop_is_not_asked_of_scripts_that_write_none(text):
    lines = "\n".join(f"{text * 8}{'กขค'[at]}" for at in range(3))
    assert value("terminal_line_ratio", lines) is None
    assert value("c4_line_count", lines) == 3
    assert kept("c4_sentence_count", lines)


def test_chinese_japanese_and_korean_lines_may_end_in_their_own_marks():
    for line in (
        "今天天气很好，我们去公园散步吧。",
        "「今日は天気がいいので公園に行きます」",
        "그는 오늘 아침 “집에 간다고 말했다.”",
    ):
        assert value("c4_line_count", line) == 1
    assert value("c4_line_count", "He said that he would “go home today”") == 0


def test_mojibake_is_what_ftfy_takes_for_it():
    sources = [
        "안녕하세요 여러분",
        "今天天气很好",
        "naïve café “quoted” it’s",
        "Привет, мир",
        "œuvre °C ×² ГўВЂВ™ a",
        "à la â€™",
    ]
    texts = [text for source in sources for text in (source, *broken(source))]
    measured = measure(pl.Series(texts), ["mojibake_ratio", "char_count"])
    counts = (measured["mojibake_ratio"] * measured["char_count"]).round().to_list()
    assert counts == [badness(text) for text in texts]
    assert sum(counts) > 20


def broken(text: str) -> list[str]:
    return [
        text.encode().decode(encoding, errors="replace") for encoding in ("latin-1", "cp1252", "cp1251", "macroman")
    ]


def test_options_of_a_rule_are_measured_by_and_stored():
    config = RULES["listed_word_count"].configured({"words": ["Foo"], "maximum": 1})
    assert measure(pl.Series(["foo Foo", "food"]), {"listed_word_count": config})["listed_word_count"].to_list() == [
        2,
        0,
    ]
    recipe = Recipe(name="x", rules={"listed_word_count": config})
    assert recipe.canonical()["rules"]["listed_word_count"]["words"] == ("foo",)
    assert recipe_from_canonical(json.loads(json.dumps(recipe.canonical()))) == recipe


def test_word_lists_are_read_beside_the_recipe_and_an_empty_one_is_refused(tmp_path):
    (tmp_path / "bad.txt").write_text("# a comment\n바보\n\nterms of use\n", "utf-8")
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nrules:\n  listed_word_ratio: {files: [bad.txt], words: [Ass]}\n", "utf-8")
    rule = load_recipe(str(path)).rules["listed_word_ratio"]
    assert rule.words == ("ass", "terms of use", "바보")
    for options, message in (
        ("{}", "has no words; give words, lists"),
        ("{files: [none.txt]}", "none.txt cannot be read"),
        ("{lists: [stop-eng]}", "did you mean 'stop-en'"),
        ("{words: [no]}", "quote"),
    ):
        path.write_text(f"name: mine\nrules:\n  listed_word_ratio: {options}\n", "utf-8")
        with pytest.raises(ConfigError, match=message):
            load_recipe(str(path))
