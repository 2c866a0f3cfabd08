"""Terms are found as whole words of their script, and each text's depend on it alone."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.errors import ConfigError
from curation.bias.identity import IdentityTerms
from curation.rules import measure
from curation.terms import TermIndex, edged, edged_ascii

TERMS = IdentityTerms.configured()


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("A WOMAN’s right", ["gender/women"]),
        ("Menace, amen, commencement", []),
        ("gay men", ["gender/men", "orientation/homosexual"]),
        ("black coffee for black people", ["ethnicity/black"]),
        ("여성들에게도 중요하다", ["gender/women"]),
        ("여성복 매장의 남자친구", []),
        ("무슬림은 아니고 LGBT는", ["orientation/queer", "religion/muslims"]),
        ("여자다. 노인이", ["age/older", "gender/women"]),
        ("彼女は日本人です", ["gender/women", "nationality/japanese"]),
        ("我认识一个女孩子", ["gender/women"]),
        ("ｗｏｍｅｎ", ["gender/women"]),
        ("", []),
    ],
)
def test_groups_are_mentioned_by_whole_words(text: str, groups: list[str]) -> None:
    assert TERMS.index.mentioned(pl.Series([text])).to_list() == [groups]


def test_mentions_do_not_depend_on_neighbours() -> None:
    texts = pl.Series(["a man", "", "여성은", "👍", "two women and a man"])
    together = TERMS.index.mentioned(texts).to_list()
    assert together == [TERMS.index.mentioned(texts[row : row + 1]).to_list()[0] for row in range(len(texts))]
    assert together[4] == ["gender/men", "gender/women"]


@given(rows=st.lists(st.text(st.characters(max_codepoint=127), max_size=12), max_size=5))
def test_ascii_is_made_ready_as_any_text_is(rows: list[str]) -> None:
    texts = pl.Series("text", rows, dtype=pl.String)
    expected = texts.to_frame().select(edged(pl.col("text"))).to_series()
    assert edged_ascii(texts).str.replace_all("\x1f+", "\x1f").to_list() == expected.to_list()


def test_counts_say_how_often() -> None:
    counted = TermIndex({"a": ["x y", "y"], "b": ["Z"]}).counts(pl.Series(["x y, z z", "none"]))
    assert counted.rows() == [(0, "a", 2), (0, "b", 2)]


def test_added_terms_join_the_built_in_ones() -> None:
    terms = IdentityTerms.configured({"gender": {"women": {"hi": ["औरत"]}}, "team": {"blue": {"en": ["blue team"]}}})
    found = terms.index.mentioned(pl.Series(["एक औरत", "the Blue Team's women"])).to_list()
    assert found == [["gender/women"], ["gender/women", "team/blue"]]
    assert terms.canonical() != TERMS.canonical()


@pytest.mark.parametrize(
    ("added", "told"),
    [
        ({"gender": ["women"]}, "identity: gender="),
        ({"gender": {"women": {"en": "woman"}}}, "must be a list"),
        ({"gender": {"women": {"en": ["!"]}}}, "no letter or digit"),
        ({"religion": {"sikhs": {"swap": {"en": ["sikh"]}}}}, "equally many"),
    ],
)
def test_bad_terms_are_refused(added: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        IdentityTerms.configured(added)


def test_toxicity_is_that_of_the_worst_sentence_and_knows_only_english() -> None:
    page = "We went to the park. " * 40
    values = measure(pl.Series([page, page + "Fuck you!", "이 개새끼들아", ""]), ["toxicity"])["toxicity"].to_list()
    assert values[0] < 0.5 < 0.9 < values[1]
    assert values[2:] == [None, None]


def test_listed_words_are_counted_in_any_language() -> None:
    texts = pl.Series(["Fuck this shit", "이 개새끼들아 꺼져", "Scunthorpe", "你去死吧", "안녕"])
    assert measure(texts, ["toxic_term_count"])["toxic_term_count"].to_list() == [2.0, 2.0, 0.0, 1.0, 0.0]


def test_patterns_are_made_once_for_the_same_groups_and_anew_for_others() -> None:
    one, same, other, swapped = (
        TermIndex(groups)
        for groups in ({"a": ["men"], "b": ["여성"]}, {"a": ["men"], "b": ["여성"]}, {"a": ["men"]}, {"b": ["men"]})
    )
    assert one.patterns is same.patterns
    assert one.patterns["group"].unique().sort().to_list() == ["a", "b"]
    assert other.patterns.rows() == [("\x1fmen\x1f", "a")]
    assert swapped.patterns.rows() == [("\x1fmen\x1f", "b")]
