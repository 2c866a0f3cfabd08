"""Label schemas: read strictly, shown with hotkeys, stored as JSON."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.errors import ConfigError, DataError
from labeling.schema import RESERVED_HOTKEYS, Label, LabelSchema, parse_schema

FULL = """
task: single_choice
question: 이 글의 기분은?
guidelines: |
  좋으면 긍정.
  나쁘면 부정.
version: 3
labels:
  - name: 긍정
    hotkey: p
    description: 좋은 기분
  - 부정
  - name: ท่าที 😐
"""


def test_schema_is_read_whole() -> None:
    schema = parse_schema(FULL)
    assert schema == LabelSchema(
        task="single_choice",
        question="이 글의 기분은?",
        guidelines="좋으면 긍정.\n나쁘면 부정.",
        version=3,
        labels=(
            Label(name="긍정", hotkey="p", description="좋은 기분"),
            Label(name="부정", hotkey="2"),
            Label(name="ท่าที 😐", hotkey="3"),
        ),
    )
    assert schema.names == ("긍정", "부정", "ท่าที 😐")


def test_words_that_yaml_would_turn_into_other_things_stay_labels() -> None:
    assert parse_schema("labels: [no, yes, on, 1, 1.0, null, ~, 2020-01-01]").names == (
        *("no", "yes", "on", "1", "1.0", "null", "~", "2020-01-01"),
    )


def test_default_hotkeys_are_digits_then_letters_the_page_does_not_use() -> None:
    schema = parse_schema("labels: [" + ", ".join(f"label {number}" for number in range(40)) + "]")
    keys = [label.hotkey for label in schema.labels]
    assert keys[:10] == ["1", "2", "3", "4", "5", "6", "7", "8", "9", "a"]
    assert not RESERVED_HOTKEYS & set(keys[:32])
    assert len(set(keys[:32])) == 32
    assert keys[32:] == [None] * 8


def test_default_hotkey_is_the_labels_position_unless_another_label_took_that_key() -> None:
    def keys(text: str) -> list[str | None]:
        return [label.hotkey for label in parse_schema(text).labels]

    assert keys("labels: [{name: a, hotkey: e}, b, c]") == ["e", "2", "3"]
    assert keys("labels: [a, {name: b, hotkey: e}, c]") == ["1", "e", "3"]
    assert keys("labels: [{name: a, hotkey: '2'}, b, c, d]") == ["2", "1", "3", "4"]
    many = ", ".join(f"l{number}" for number in range(10))
    assert keys(f"labels: [{{name: a, hotkey: a}}, {many}]")[8:] == ["9", "1", "b"]


def test_composed_and_decomposed_hangul_are_one_label() -> None:
    decomposed = unicodedata.normalize("NFD", "긍정")
    schema = parse_schema(f"labels: [{decomposed}, 부정]")
    assert schema.names[0] == "긍정"
    assert schema.validate(decomposed) == "긍정"
    with pytest.raises(ConfigError, match="twice"):
        parse_schema(f"labels: [긍정, {decomposed}]")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected keys and values, got nothing"),
        ("- a\n- b", "expected keys and values, got list"),
        ("labels: [a, b\n", "does not parse as YAML"),
        ("question: why", "'labels' is missing"),
        ("labels: a", "'labels' is missing"),
        ("labels: []", r"0 label\(s\)"),
        ("labels: [a]", r"1 label\(s\)"),
        ("lables: [a, b]", "unknown key 'lables'; did you mean 'labels'"),
        ("labels: [{name: a, hotky: x}, b]", "unknown key 'hotky'; did you mean 'hotkey'"),
        ("labels: [{hotkey: x}, b]", "no 'name'"),
        ("labels: [a, a]", "'a' is given twice"),
        ("labels: [a, ' a ']", "'a' is given twice"),
        ("labels: [a, '']", "1 to 200 characters"),
        ("labels: [[a], b]", "got list"),
        ("labels: [{name: [a]}, b]", "must be text"),
        ("labels: [a, b]\nlabels: [c, d]", "label schema: key 'labels' is given twice, in lines 1 and 2"),
        ("labels: [a, b]\nquestion: [x]", "must be text"),
        ("labels: [a, b]\ntask: multi_choice", "did you mean 'single_choice'"),
        ("labels: [a, b]\nversion: two", "version='two'"),
        ("labels: [a, b]\nversion: 0", "version=0"),
        ("labels: [{name: a, hotkey: s}, b]", "taken by the page"),
        ("labels: [{name: a, hotkey: Z}, b]", "taken by the page"),
        ("labels: [{name: a, hotkey: xy}, b]", "one printable character"),
        ("labels: [{name: a, hotkey: x}, {name: b, hotkey: X}]", "given to both 'a' and 'b'"),
        ('labels: ["a\\0b", c]', "NUL"),
        ("[a, b]: c\nlabels: [a, b]", "not text"),
    ],
)
def test_bad_schema_is_refused_with_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_schema(text)


def test_enormous_schema_is_refused_unread() -> None:
    with pytest.raises(ConfigError, match="at most 1000000"):
        parse_schema("labels: [a, b]" + " " * 1_000_000)


@pytest.mark.parametrize("value", ["긍정적", "", None, 1, True, ["긍정"], {"name": "긍정"}, "x" * 10_000])
def test_value_outside_the_schema_is_refused_with_the_allowed_labels(value: object) -> None:
    with pytest.raises(DataError, match="allowed: 긍정, 부정") as caught:
        parse_schema("labels: [긍정, 부정]").validate(value)
    assert len(str(caught.value)) < 400


names = st.text(st.characters(exclude_categories=("Cs", "Cc", "Z")), min_size=1, max_size=20)


@given(
    labels=st.lists(names, min_size=2, max_size=40, unique_by=lambda one: unicodedata.normalize("NFC", one)),
    question=names,
    version=st.integers(1, 99),
)
def test_json_gives_the_same_schema_back(labels: list[str], question: str, version: int) -> None:
    document = {"labels": labels, "question": question, "version": version}
    schema = LabelSchema.from_json(document)
    assert LabelSchema.from_json(schema.to_json()) == schema
    assert [schema.validate(one) for one in labels] == list(schema.names)
