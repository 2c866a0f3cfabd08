"""Task types: what an answer is, in one normal form, and what is refused with which words."""

import json
import unicodedata

import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st

from catalog.errors import ConfigError, DataError
from labeling.graphemes import is_boundary, snapped, words
from labeling.schema import LabelSchema, parse_schema
from labeling.tasks import TASKS, canonical
from labeling.tasks.pairwise import pair_text, split_pair

PIECES = [
    *("a", " ", "\n", "\r\n", "\r", "é", "e\u0301", "서울", "각", "ᄀ", "ᅡ", "ᆨ", "我爱", "。", "สวัสดี", "ำ", "ั"),
    *("👍", "👍🏽", "🇰🇷", "🇯🇵", "🇰", "👩\u200d👩\u200d👧", "❤️", "1️⃣", "\u200d", "\ufe0f", "\u0300"),
    *("क्षि", "\u0600", "؀1", "🏽", "Ａ", "ß"),
]
texts = st.one_of(st.lists(st.sampled_from(PIECES), max_size=12).map("".join), st.text(max_size=12))

SCHEMAS = {
    "single_choice": "labels: [긍정, 부정]",
    "multi_label": "task: multi_label\nlabels: [b, a, 다]\nmin_labels: 0\nmax_labels: 2",
    "spans": "task: spans\nlabels: [도시, 사람]\noverlapping: true",
    "pairwise": "task: pairwise\na: chosen\nb: rejected\nties: true",
    "rating": "task: rating\nmin: 0\nmax: 1\nstep: 0.1\nlow: 나쁨\nhigh: 좋음",
    "free_text": "task: free_text\nmin_chars: 0\nmax_chars: 20",
}


def spans(*found):
    return [{"start": start, "end": end, "label": label} for start, end, label in found]


# ---- where a text may be cut -----------------------------------------------------------------------------------------


@given(texts)
@example("🇰🇷🇯🇵🇰")
@example("가" + "ᆨ" * 3)
@example("👩‍👩‍👧👩")
def test_boundaries_are_those_of_unicode_wherever_one_looks(text):
    whole = {0, len(text)} | {found.start() for found in regex.finditer(r"\X", text)}
    assert {at for at in range(len(text) + 1) if is_boundary(text, at)} == whole


@given(texts, st.data())
def test_snapped_span_contains_the_span_and_cuts_nothing(text, data):
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    first, last = snapped(text, start, end)
    assert first <= start
    assert end <= last
    assert is_boundary(text, first)
    assert is_boundary(text, last)
    assert all(not is_boundary(text, at) for at in (*range(first + 1, start + 1), *range(end, last)))


@given(texts)
def test_words_are_in_order_cover_all_but_white_space_and_cut_no_character(text):
    found = words(text)
    covered = {at for start, end in found for at in range(start, end)}
    assert all(text[at].isspace() for at in range(len(text)) if at not in covered)
    assert sorted(found) == found
    assert len(covered) == sum(end - start for start, end in found)
    assert all(is_boundary(text, at) for one in found for at in one)


# ---- answers ---------------------------------------------------------------------------------------------------------


def test_every_task_type_has_a_schema_here():
    assert set(SCHEMAS) == set(TASKS)


@pytest.mark.parametrize("text", SCHEMAS.values(), ids=SCHEMAS)
def test_json_of_a_schema_gives_it_back(text):
    schema = parse_schema(text)
    again = LabelSchema.from_json(json.loads(json.dumps(schema.to_json())))
    assert again == schema
    assert again.to_json() == schema.to_json()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["a", "b", "긍정"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["start", "end", "label", "x"]), inner),
    max_leaves=8,
)


@pytest.mark.parametrize("task", SCHEMAS)
@settings(max_examples=50)
@given(value=json_values, text=texts)
def test_any_json_is_a_normal_form_or_refused_in_few_words(task, value, text):
    schema = parse_schema(SCHEMAS[task])
    answer, refusal = None, None
    try:
        answer = schema.validate(value, text)
    except DataError as error:
        refusal = str(error)
    if refusal is not None:
        assert 0 < len(refusal) < 1000
        return
    assert schema.validate(json.loads(canonical(answer)), text) == answer
    assert schema.kind.counted(answer)
    assert schema.kind.in_words(answer, text)
    assert schema.kind.renamed(answer, {}) == answer


@pytest.mark.parametrize(
    ("schema", "value", "answer"),
    [
        ("labels: [긍정, 부정]", unicodedata.normalize("NFD", " 긍정 "), "긍정"),
        ("task: multi_label\nlabels: [b, a, 다]", ["다", "b", "b", " a"], ["a", "b", "다"]),
        ("task: multi_label\nlabels: [a, b]\nmin_labels: 0", [], []),
        ("task: pairwise", "b", "b"),
        ("task: pairwise\nties: true", "tie", "tie"),
        ("task: rating", 3.0, 3),
        ("task: rating\nmin: 0\nmax: 1\nstep: 0.1", 0.3, 0.3),
        ("task: rating\nmin: -1.5\nmax: 1.5\nstep: 0.5", -0.0, 0),
        ("task: free_text", " 한\r\n글\r ", "한\n글"),
        ("task: free_text", unicodedata.normalize("NFD", "각"), "각"),
        ("task: free_text\nmin_chars: 0", "  ", ""),
    ],
)
def test_answer_is_stored_in_one_normal_form(schema, value, answer):
    found = parse_schema(schema).validate(value)
    assert (found, type(found)) == (answer, type(answer))


@pytest.mark.parametrize(
    ("schema", "value", "message"),
    [
        ("labels: [refund, other]", "refnud", "did you mean 'refund'"),
        ("task: multi_label\nlabels: [a, b]", "a", "must be a list of labels"),
        ("task: multi_label\nlabels: [a, b]", ["c"], "'c' is no label of this queue; allowed: a, b"),
        ("task: multi_label\nlabels: [a, b]", [], "0 labels; this queue takes 1 to 2"),
        ("task: multi_label\nlabels: [a, b, c]\nmax_labels: 2", ["a", "b", "c"], "3 labels; this queue takes 1 to 2"),
        ("task: pairwise", "tie", "allowed: a, b"),
        ("task: pairwise", {"winner": "a"}, "allowed: a, b"),
        ("task: rating", 0, "from 1 to 5"),
        ("task: rating", 2.5, "from 1 to 5"),
        ("task: rating", True, "from 1 to 5"),
        ("task: rating", "3", "from 1 to 5"),
        ("task: rating", float("nan"), "from 1 to 5"),
        ("task: rating", 10**400, "from 1 to 5"),
        ("task: rating\nmin: 0\nmax: 1\nstep: 0.25", 0.3, "in steps of 0.25"),
        ("task: free_text", "", "0 characters; this queue takes 1 to 10000"),
        ("task: free_text\nmax_chars: 3", "네 글자다", "5 characters; this queue takes 1 to 3"),
        ("task: free_text", "a\x00", "NUL"),
        ("task: free_text", "\ud800", "surrogate"),
        ("task: free_text", 3, "must be text"),
    ],
)
def test_refused_answer_says_value_limit_and_remedy(schema, value, message):
    with pytest.raises(DataError, match=message):
        parse_schema(schema).validate(value)


def test_enormous_answer_is_refused_by_its_size():
    names = ["각" * 190 + str(number) for number in range(600)]
    schema = parse_schema("task: multi_label\nlabels: [" + ", ".join(names) + "]")
    with pytest.raises(DataError, match="at most 262144 are stored"):
        schema.validate(names)


TEXT = "김민수는 👩‍👩‍👧와 서울🇰🇷에 산다"


def test_spans_are_sorted_and_each_is_there_once():
    schema = parse_schema("task: spans\nlabels: [사람, 도시]")
    city = TEXT.index("서울")
    given_ = spans((city, city + 2, "도시"), (0, 3, "사람"), (0, 3, unicodedata.normalize("NFD", "사람")))
    assert schema.validate(given_, TEXT) == spans((0, 3, "사람"), (city, city + 2, "도시"))
    assert schema.validate([], TEXT) == []


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"start": 0}, "must be a list of spans"),
        ([[0, 3, "사람"]], "exactly the keys start, end, label"),
        ([{"start": 0, "end": 3, "label": "사람", "text": "김민수"}], "exactly the keys start, end, label"),
        (spans((0, 3, "동물")), "'동물' is no label"),
        (spans((3, 3, "사람")), "0 <= start < end <= 20"),
        (spans((3, 2, "사람")), "0 <= start < end <= 20"),
        (spans((-1, 2, "사람")), "0 <= start < end <= 20"),
        (spans((0, 21, "사람")), "Unicode code points"),
        (spans((0, True, "사람")), "whole number"),
        (spans((0, 1.0, "사람")), "whole number"),
        (spans((0, "3", "사람")), "whole number"),
        (spans((4, 5, "사람")), "marks only white space"),
        (spans((5, 6, "사람")), r"use start=5, end=10, which is '👩"),
        (spans((7, 10, "사람")), r"use start=5, end=10"),
        (spans((14, 15, "도시")), "use start=14, end=16"),
        (spans((0, 4, "사람"), (3, 5, "도시")), "overlap in '는'"),
        (spans((0, 3, "사람"), (0, 3, "도시")), "overlap in '김민수'"),
        (spans(*[(0, 1, "사람")] * 10_001), "10001 spans; at most 10000"),
    ],
)
def test_refused_span_says_what_would_do(value, message):
    with pytest.raises(DataError, match=message):
        parse_schema("task: spans\nlabels: [사람, 도시]").validate(value, TEXT)


def test_syllable_of_jamo_is_not_cut():
    text = unicodedata.normalize("NFD", "한국")
    schema = parse_schema("task: spans\nlabels: [나라]")
    assert schema.validate(spans((0, 6, "나라")), text) == spans((0, 6, "나라"))
    with pytest.raises(DataError, match="use start=0, end=6"):
        schema.validate(spans((1, 5, "나라")), text)


def test_spans_may_touch_and_overlap_where_the_schema_says_so():
    touching, crossing = spans((0, 2, "사람"), (2, 3, "도시")), spans((0, 2, "사람"), (1, 3, "도시"))
    assert parse_schema("task: spans\nlabels: [사람, 도시]").validate(touching, TEXT) == touching
    overlapping = parse_schema("task: spans\nlabels: [사람, 도시]\noverlapping: true")
    assert overlapping.validate(crossing, TEXT) == crossing


@given(text=texts, data=st.data())
def test_span_is_kept_exactly_when_both_ends_lie_between_characters(text, data):
    start = data.draw(st.integers(-1, len(text) + 1))
    end = data.draw(st.integers(-1, len(text) + 1))
    value = spans((start, end, "x"))
    cuts = {0, len(text)} | {found.start() for found in regex.finditer(r"\X", text)}
    allowed = start < end and {start, end} <= cuts and not text[start:end].isspace()
    try:
        kept = parse_schema("task: spans\nlabels: [x]").validate(value, text) == value
    except DataError:
        kept = False
    assert kept is allowed


# ---- schemas ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: multi_label\nlabels: []", r"0 label\(s\); a multi_label task needs at least one label"),
        ("task: multi_label\nlabels: [a, b]\nmax_labels: 3", "max_labels=3 must be at most the 2 labels"),
        ("task: multi_label\nlabels: [a, b]\nmin_labels: 2\nmax_labels: 1", "min_labels=2 must be at most 1"),
        ("task: multi_label\nlabels: [a, b]\nmax_labels: 0", "max_labels=0 must be at least 1"),
        ("task: multi_label\nlabels: [a, b]\nmin_labels: -1", "min_labels=-1 must be at least 0"),
        ("task: multi_label\nlabels: [a, b]\nmin_labels: 1.5", "must be a whole number"),
        ("task: multi_label\nlabels: [a, b]\nmax_lables: 1", "did you mean 'max_labels'"),
        ("labels: [a, b]\nmax_labels: 1", "unknown key 'max_labels'"),
        ("task: spans\nlabels: [a]\noverlapping: perhaps", "must be true or false"),
        ("task: rating\nlabels: [a, b]", "a rating task has no labels"),
        ("task: rating\nmin: 5", "min=5 must be below max=5"),
        ("task: rating\nstep: 0", "step=0 must be above 0"),
        ("task: rating\nmax: inf", "finite"),
        ("task: rating\nstep: 3", "do not reach max=5"),
        ("task: rating\nmax: 5000", "at most 1001 points"),
        ("task: rating\nmax: five", "must be a number"),
        ("task: pairwise\na: x\nb: x", "two different columns"),
        ("task: free_text\nmin_chars: 9\nmax_chars: 3", r"must lie in \[9, 50000\]"),
        ("task: free_txt", "did you mean 'free_text'"),
        ("task: [free_text]", "must be text"),
        ("labels: [a, b]\nexamples: [{text: t, answer: c}]", "example 1: answer 'c' is no label"),
        ("labels: [a, b]\nexamples: [{text: t}]", "example 1 has no 'answer'"),
        ("labels: [a, b]\nexamples: [{answer: a}]", "must have a 'text'"),
        ("labels: [a, b]\nexamples: {text: t}", "must be a list"),
        ("task: pairwise\nexamples: [{text: t, answer: a}]", "no 'a' and 'b'"),
        ("task: spans\nlabels: [x]\nexamples: [{text: aba, answer: [{quote: a, label: x}]}]", "occurs 2 times"),
        ("labels: [{name: a, was: c}, {name: b, was: c}]", "both were 'c'"),
    ],
)
def test_bad_schema_of_a_task_is_refused_with_what_is_wrong(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_schema(text)


def test_examples_are_kept_as_answers_of_the_task():
    schema = parse_schema(
        "task: spans\nlabels: [도시]\nexamples:\n- text: '서울 🇰🇷 서울역 '\n  note: 둘 다\n"
        "  answer: [{quote: 서울역, label: 도시}, {start: 0, end: 2, label: 도시}]"
    )
    (one,) = schema.examples
    assert (one.text, one.note) == ("서울 🇰🇷 서울역 ", "둘 다")
    assert one.answer == spans((0, 2, "도시"), (6, 9, "도시"))
    rated = parse_schema("task: rating\nexamples: [{text: t, answer: 4}]")
    assert rated.examples[0].answer == 4
    compared = parse_schema("task: pairwise\nexamples: [{a: x, b: y, answer: a}]")
    assert LabelSchema.from_json(compared.to_json()) == compared


def test_classes_are_what_a_classifier_can_choose_from():
    classes = {task: parse_schema(text).classes for task, text in SCHEMAS.items()}
    assert classes.pop("single_choice") == ("긍정", "부정")
    assert classes.pop("rating") == ("0", "0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "1")
    assert set(classes.values()) == {()}
    assert parse_schema("task: rating\nmax: 100").classes == ()
    assert [parse_schema("task: rating").class_of(one) for one in (1, 5)] == ["1", "5"]


@given(st.text(max_size=9), st.text(max_size=9), st.none() | st.text(max_size=9))
def test_pair_is_one_text_and_comes_apart_again(a, b, prompt):
    assert split_pair(pair_text(a, b, prompt)) == {"a": a, "b": b, "prompt": prompt}


@pytest.mark.parametrize("text", ["", "{}", "[]", "3", '{"a": "x"}', "[" * 100_000])
def test_text_that_is_no_pair_is_refused(text):
    with pytest.raises(DataError, match="no pair of texts"):
        split_pair(text)
