"""The span model: exact sums over tag sequences, offsets in any script, and the same bits every time."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.errors import DataError
from labeling.crf import Chain, batches
from labeling.graphemes import is_boundary
from labeling.schema import parse_schema
from labeling.span_tokens import MAX_CHARS, tokens
from labeling.tagger import MAX_TOKENS, SpanModel

SCHEMA = parse_schema("task: spans\nlabels: [person, city]")
MARKED = (
    "[Ann Lee|person] moved to [Seoul|city], then to [Oslo|city].",
    "[김민수|person]는 [서울|city]에서 [이영희|person]를 만났다",
    "[王小明|person]住在[北京|city]。",
    "[田中|person]さんは[東京|city]に行った",
    "👩‍👧 [Ann 👩🏽‍🚀|person] went home 🇰🇷🇯🇵",
    "ฉันอยู่ [กรุงเทพ|city]",
    "nothing to see here",
)


def parsed(marked: str) -> tuple[str, list[dict[str, Any]]]:
    """A text in which ``[part|label]`` marks spans."""
    text, spans = "", []
    for at, piece in enumerate(marked.replace("]", "[").split("[")):
        part, _, label = piece.partition("|")
        if at % 2:
            spans.append({"start": len(text), "end": len(text) + len(part), "label": label})
        text += part
    return text, spans


TEXTS, ANSWERS = map(list, zip(*(parsed(marked) for marked in MARKED), strict=True))


def fitted(texts: Sequence[str] = TEXTS, answers: Sequence[Any] = ANSWERS, **options: Any) -> SpanModel:
    return SpanModel.fit(texts, answers, SCHEMA.names, 0, **options)


def test_sums_shares_and_the_likeliest_tags_are_those_of_all_sequences_written_out() -> None:
    rng = np.random.default_rng(0)
    lengths, num_tags = [4, 2, 0, 3, 1], 3
    emissions = rng.normal(size=(sum(lengths), num_tags)) * 3
    transitions, start = rng.normal(size=(num_tags, num_tags)), rng.normal(size=num_tags)
    transitions[0, 2] = start[2] = -np.inf
    chain = Chain(transitions, start)
    seen = []
    for batch in batches(lengths):
        log_sums, shares, moves = chain.expectations(emissions, batch)
        tags, scores = chain.likeliest(emissions, batch)
        expected_moves = np.zeros_like(transitions)
        for row, sequence in enumerate(batch.sequences):
            first, size = sum(lengths[:sequence]), lengths[sequence]
            ways = list(itertools.product(range(num_tags), repeat=size))
            of_way = np.array(
                [
                    start[way[0]]
                    + sum(emissions[first + place, tag] for place, tag in enumerate(way))
                    + sum(transitions[pair] for pair in itertools.pairwise(way))
                    for way in ways
                ]
            )
            total = np.logaddexp.reduce(of_way)
            assert log_sums[row] == pytest.approx(total)
            assert scores[row] == pytest.approx(of_way.max())
            assert tuple(tags[row, :size]) == ways[int(of_way.argmax())]
            for way, share in zip(ways, np.exp(of_way - total), strict=True):
                for pair in itertools.pairwise(way):
                    expected_moves[pair] += share
                for place, tag in enumerate(way):
                    shares[row, place, tag] -= share
            seen.append(int(sequence))
        assert np.abs(shares).max() < 1e-12
        assert moves == pytest.approx(expected_moves)
    assert sorted(seen) == [0, 1, 3, 4]


def test_spans_of_any_script_are_learned_and_told_with_offsets_that_the_schema_takes() -> None:
    model = fitted()
    said = model.predict(TEXTS)
    assert said == ANSWERS
    for text, spans in zip(TEXTS, said, strict=True):
        assert SCHEMA.validate(spans, text) == spans


def test_particle_behind_a_name_that_was_not_seen_is_left_out() -> None:
    names = ["김민수", "이영희", "박지훈", "최수진", "정하늘", "강도윤", "조은서", "윤서준"]
    cities = ["서울", "부산", "대구", "인천", "광주", "대전", "울산", "세종"]
    marked = [f"[{name}|person]는 [{city}|city]에서 산다" for name in names for city in cities]
    texts, answers = zip(*map(parsed, marked), strict=True)
    text, right = parsed("[한가람|person]는 [제주|city]에서 산다")
    assert fitted(texts, answers).predict([text]) == [right]


@given(st.text(alphabet=st.sampled_from("aB9 .,\n각가각서울王東京カสวัดี👩🏽‍🚀🇰🇷é́"), max_size=40))
@settings(max_examples=150)
def test_no_token_cuts_a_character_and_none_is_lost(text: str) -> None:
    found = tokens(text)
    assert all(is_boundary(text, one.start) and is_boundary(text, one.end) for one in found)
    assert [text[one.start : one.end] for one in found] == [one.look.text for one in found]
    places = [place for one in found for place in range(one.start, one.end)]
    assert places == sorted(set(places))
    assert all(char.isspace() for place, char in enumerate(text) if place not in set(places))


def test_same_labels_give_the_same_bits_and_the_seed_draws_from_what_is_too_much() -> None:
    first, again = (fitted().mean_log_proba(TEXTS).tobytes() for _ in range(2))
    assert first == again
    few = [SpanModel.fit(TEXTS, ANSWERS, SCHEMA.names, seed, max_tokens=30) for seed in (0, 0, 1)]
    assert few[0].columns == few[1].columns != few[2].columns
    assert len(few[0].columns) < len(fitted().columns)


def test_certainty_is_the_share_of_the_likeliest_tags_among_all_by_token() -> None:
    model = fitted(TEXTS[:2], ANSWERS[:2])
    text = "Ann in Oslo"
    (group,) = model.groups
    looks = [one.look for one in tokens(text)]
    from labeling.tagger import _design

    emissions = _design([looks], model.columns, {}) @ group.weights
    scores = np.array(
        [
            group.chain.start[way[0]]
            + sum(emissions[place, tag] for place, tag in enumerate(way))
            + sum(group.chain.transitions[pair] for pair in itertools.pairwise(way))
            for way in itertools.product(range(5), repeat=3)
        ]
    )
    assert model.mean_log_proba([text])[0] == pytest.approx((scores.max() - np.logaddexp.reduce(scores)) / 3)


def test_what_was_labelled_is_surer_than_what_was_never_seen() -> None:
    sure = fitted().mean_log_proba([*TEXTS, "Zlatan Ibrahimović besucht Kraków"])
    assert (sure <= 0).all()
    assert sure.argmin() == len(TEXTS)


def test_overlapping_labels_have_a_model_each_and_their_certainties_multiply() -> None:
    text = "Bank of Korea said"
    both = [{"start": 0, "end": 13, "label": "person"}, {"start": 8, "end": 13, "label": "city"}]
    model = fitted([text, *TEXTS], [both, *ANSWERS], overlapping=True)
    assert [group.labels for group in model.groups] == [("person",), ("city",)]
    assert model.predict([text]) == [both]
    alone = [SpanModel((group,), model.columns).mean_log_proba([text])[0] for group in model.groups]
    assert model.mean_log_proba([text])[0] == pytest.approx(sum(alone))
    # Without it the first span takes the text, and what is left of the other nothing.
    assert fitted([text, *TEXTS], [both, *ANSWERS]).predict([text]) == [both[:1]]


def test_span_that_ends_within_a_word_is_learned_as_the_word() -> None:
    text = "postwar Seoul"
    model = fitted([text, *TEXTS], [[{"start": 4, "end": 7, "label": "person"}], *ANSWERS])
    assert model.predict([text])[0][0] == {"start": 0, "end": 7, "label": "person"}


def test_long_empty_and_endless_texts_are_read() -> None:
    model = fitted()
    many = " ".join([TEXTS[0]] * (2 * MAX_TOKENS // len(tokens(TEXTS[0])) + 2))
    spans = model.predict([many])[0]
    assert len(tokens(many)) > 2 * MAX_TOKENS
    assert [many[one["start"] : one["end"]] for one in spans].count("Seoul") > 40
    assert model.predict(["", " \n"]) == [[], []]
    assert model.mean_log_proba(["", " \n"]).tolist() == [0.0, 0.0]
    for char in ("가", "a", "👩‍👧"):
        last = tokens(char * MAX_CHARS)[-1].end
        assert MAX_CHARS - 3 <= last <= MAX_CHARS


def test_nothing_to_learn_from_and_answers_that_are_missing_are_named() -> None:
    with pytest.raises(DataError, match="2 texts and 1 answers"):
        fitted(TEXTS[:2], ANSWERS[:1])
    for texts in ([], ["", "  "]):
        with pytest.raises(DataError, match="no labelled text has a word"):
            fitted(texts, [[] for _ in texts])
