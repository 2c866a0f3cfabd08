"""Repeated passages: all of them, nothing else, cut where a reader would cut, the same for any order."""

import random
import unicodedata
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
import regex
from hypothesis import example, given
from hypothesis import strategies as st

from catalog.errors import ConfigError, DataError
from curation.dedup.breaks import mark_breaks
from curation.dedup.cutting import remove_spans
from curation.dedup.normalize import normalize
from curation.dedup.places import place_tokens
from curation.dedup.rows import utf8
from curation.dedup.substring import (
    BATCH_BYTES,
    CANDIDATE_SCHEMA,
    SubstringConfig,
    find_repeated_spans,
    first_occurrences,
    sample_windows,
    shared_anchors,
    verified_spans,
    windows_at,
)
from curation.dedup.substring_kernels import GRAPHEME, SENTENCE
from curation.tokens import TOKEN

Spot = tuple[int, int]
WORDS = [f"w{number}" for number in range(3_000)]
KOREAN = "지난 주말에 가족과 함께 다녀온 숙소는 지하철역에서 걸어서 십 분 거리였고 호스트분들이 정말 친절하셨습니다"
CHINESE = "今天天气很好，我们一家人去公园散步，看到了很多漂亮的花，孩子们玩得非常开心，晚上一起吃了火锅"
THAI = "วันนี้อากาศดีมากครอบครัวของเราไปเดินเล่นที่สวนสาธารณะและเด็กๆสนุกกันมาก"
JAPANESE = (
    "窓の外では雨が静かに降り続いていた。彼女は古い手紙を何度も読み返し、"
    "あの夏のことを思い出していたのだが、誰にも話せずにいた。"
)


def prose(seed: int, number: int) -> list[str]:
    return random.Random(seed).choices(WORDS, k=number)


EMOJI = " ".join(f"👍🏽{word.upper()}👨\u200d👩\u200d👧" for word in prose(19, 60)) + "!"


def series(texts: list[str]) -> pl.Series:
    return pl.Series("text", texts, dtype=pl.String)


def find(texts: dict[str, str], quality: list[float] | None = None, threads: int = 1, **config) -> pl.DataFrame:
    given_quality = None if quality is None else pl.Series(quality, dtype=pl.Float64)
    return find_repeated_spans(
        pl.Series(list(texts), dtype=pl.String),
        series(list(texts.values())),
        given_quality,
        SubstringConfig(**config),
        threads=threads,
    )


def removed(texts: dict[str, str], spans: pl.DataFrame) -> dict[str, str]:
    ids = pl.Series(list(texts), dtype=pl.String)
    return dict(zip(texts, remove_spans(ids, series(list(texts.values())), spans).to_list(), strict=True))


def passages(texts: dict[str, str], spans: pl.DataFrame) -> list[tuple[str, str, str]]:
    return [
        (row["record_id"], texts[row["record_id"]][row["start"] : row["end"]], row["keeper_id"])
        for row in spans.to_dicts()
    ]


def placed(text: str) -> list[tuple[str, int, int]]:
    tokens = place_tokens(utf8(series([text])))
    return list(zip(tokens.spelled(0), tokens.starts.tolist(), tokens.ends.tolist(), strict=True))


def flagged(text: str, flag: int) -> list[int]:
    return np.flatnonzero(mark_breaks(utf8(series([text]))).values & flag).tolist()


def sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in pairwise(flagged(text, SENTENCE))]


def normalized(text: str) -> str:
    return pl.select(normalize(pl.lit(text))).item()


def sentence(seed: int, number: int) -> str:
    return " ".join(prose(seed, number)).capitalize() + "."


# What must be found, by comparing every window with every other.


def in_keeper_order(texts: dict[str, str]) -> list[str]:
    return sorted(texts, key=lambda one: (-len(texts[one]), one))


def windows_of(tokens: list[str], size: int) -> list[tuple[str, ...]]:
    return [tuple(tokens[at : at + size]) for at in range(len(tokens) - size + 1)]


def repeated_windows(records: list[list[str]], size: int, passed: frozenset[Spot] = frozenset()) -> set[Spot]:
    first: dict[tuple[str, ...], Spot] = {}
    found = set()
    for row, tokens in enumerate(records):
        for at, window in enumerate(windows_of(tokens, size)):
            if (row, at) in passed:
                continue
            origin = first.setdefault(window, (row, at))
            if origin[0] < row or origin[1] + size <= at:
                found.add((row, at))
    return found


def regions_of(covered: set[int]) -> list[tuple[int, int]]:
    ordered = sorted(covered)
    starts = [at for at in ordered if at - 1 not in covered]
    ends = [at + 1 for at in ordered if at + 1 not in covered]
    return list(zip(starts, ends, strict=True))


def expected_cut(text: str, begin: int, end: int, size: int) -> tuple[int, int]:
    """The largest run of whole sentences among the tokens; a side that would keep ``size`` tokens is cut at a token."""
    tokens = placed(text)
    breaks = flagged(text, SENTENCE)
    inside = range(begin, end)
    best: tuple[int, int, int, list[int]] = (0, 0, 0, [])
    for start in breaks:
        for stop in breaks:
            touched = [at for at, (_, first, last) in enumerate(tokens) if first < stop and last > start]
            whole = all(at in inside and tokens[at][1] >= start and tokens[at][2] <= stop for at in touched)
            if touched and whole:
                best = max(best, (len(touched), start, -stop, touched))
    _, start, stop, touched = best
    if len(touched) == len(tokens):
        return 0, len(text)
    if not touched or touched[0] - begin >= size:
        start = tokens[begin][1]
    if not touched or end - 1 - touched[-1] >= size:
        stop = -tokens[end - 1][2]
    return start, -stop


def expected_spans(texts: dict[str, str], size: int) -> set[tuple[str, int, int]]:
    order = in_keeper_order(texts)
    records = [[token for token, _, _ in placed(texts[one])] for one in order]
    covered: dict[str, set[int]] = {one: set() for one in order}
    for row, at in repeated_windows(records, size):
        covered[order[row]] |= set(range(at, at + size))
    return {
        (one, *expected_cut(texts[one], begin, end, size)) for one in order for begin, end in regions_of(covered[one])
    }


def joined(spans: pl.DataFrame) -> set[tuple[str, int, int]]:
    whole: list[tuple[str, int, int]] = []
    for one, start, end in spans.select("record_id", "start", "end").rows():
        if whole and whole[-1][0] == one and whole[-1][2] == start:
            whole[-1] = (one, whole[-1][1], end)
        else:
            whole.append((one, start, end))
    return set(whole)


def within(text: str, start: int, end: int) -> range:
    inside = [at for at, (_, first, last) in enumerate(placed(text)) if first >= start and last <= end]
    return range(inside[0], inside[-1] + 1) if inside else range(0)


def hold_the_laws(texts: dict[str, str], spans: pl.DataFrame, size: int) -> None:
    """Spans are exact copies of what comes earlier, apart from one another, and lead to text that stays."""
    order = in_keeper_order(texts)
    rank = {one: row for row, one in enumerate(order)}
    spelled = {one: [token for token, _, _ in placed(text)] for one, text in texts.items()}
    repeated = repeated_windows([spelled[one] for one in order], size)
    origin: dict[tuple[str, int], tuple[str, int]] = {}
    for row in spans.to_dicts():
        one, other = row["record_id"], row["keeper_id"]
        here = within(texts[one], row["start"], row["end"])
        there = within(texts[other], row["keeper_start"], row["keeper_end"])
        assert len(here) == row["num_tokens"] > 0
        tokens = [spelled[one][at] for at in here]
        # Several tokens may stand in one character of the keeper's, the first or last of them outside.
        begins = [at for at in range(there.start, there.stop) if spelled[other][at : at + len(tokens)] == tokens]
        assert begins
        assert (rank[other], begins[0]) < (rank[one], here.start)
        for at in here:
            assert any((rank[one], start) in repeated for start in range(at - size + 1, at + 1))
            assert (one, at) not in origin
            origin[one, at] = other, begins[0] + at - here.start
    for spot in origin:
        end = spot
        while end in origin:
            end = origin[end]
        assert spelled[end[0]][end[1]] == spelled[spot[0]][spot[1]]


pieces = st.tuples(st.sampled_from("abc"), st.sampled_from([" ", " ", " ", ", ", ". ", "! ", "\n"]))
plain_texts = st.lists(pieces, max_size=40).map(lambda some: "".join(word + mark for word, mark in some))
MARKED = ["e\u0301", "각", "\u1100\u1161\u11a8", "ㅠ", "か\u3099", "ที่", "👨\u200d👩\u200d👧", "👍🏽", "🇰🇷", "क्ष"]
SIGNS = [*MARKED, "½", "…", "ﬁ", "a", "B", "ß", "今", "한", " ", " ", "\r\n", "。", ". ", "\u200b", "\ufe0f", "\x01"]
any_texts = st.lists(st.sampled_from(SIGNS), max_size=30).map("".join)


def corpora(texts: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, str]]:
    """Up to four records of up to three passages out of three: much repeats."""
    mixed = st.lists(texts, min_size=1, max_size=3).flatmap(
        lambda known: st.lists(st.lists(st.sampled_from(known), max_size=3).map("".join), min_size=1, max_size=4)
    )
    return mixed.map(lambda records: {f"r{number}": text for number, text in enumerate(records)})


@given(corpora(plain_texts), st.integers(2, 7))
def test_spans_are_those_of_comparing_everything_with_everything(texts, size):
    spans = find(texts, min_tokens=size)
    assert joined(spans) == expected_spans(texts, size)
    hold_the_laws(texts, spans, size)


@given(corpora(any_texts), st.integers(2, 7))
def test_spans_of_any_script_are_exact_and_break_no_character(texts, size):
    spans = find(texts, min_tokens=size)
    hold_the_laws(texts, spans, size)
    for row in spans.to_dicts():
        clusters = {0, *(match.end() for match in regex.finditer(r"\X", texts[row["record_id"]]))}
        assert {row["start"], row["end"]} <= clusters
    before, after = pl.Series(list(texts.values())), removed(texts, spans)
    for one, text in zip(texts, before, strict=True):
        gone = {at for row in spans.filter(record_id=one).to_dicts() for at in within(text, row["start"], row["end"])}
        left = [token for at, (token, _, _) in enumerate(placed(text)) if at not in gone]
        assert [token for token, _, _ in placed(after[one])] == left
        kept_clusters = {cluster.strip() for cluster in regex.findall(r"\X", after[one])}
        assert kept_clusters <= {cluster.strip() for cluster in regex.findall(r"\X", text)} | {""}


@given(st.one_of(any_texts, st.text()))
def test_tokens_are_those_of_the_normalized_text(text):
    expected = series([normalized(text)]).str.extract_all(TOKEN).to_list()[0]
    assert [token for token, _, _ in placed(text)] == expected


@given(st.one_of(any_texts, st.text(st.characters(exclude_categories=["Cs", "Cn", "Co"]))))
@example("か\u3099ㅠ")
def test_places_are_those_of_the_text_as_it_is(text):
    tokens, cuts = placed(text), set(flagged(text, GRAPHEME))
    for (_, _, end), (_, start, _) in pairwise(tokens):
        # They follow one another, unless one character became several, or a vowel that joins some characters (a Jamo,
        # ㅠ too) stands behind one that must be normalized and does not join it: they have one place.
        joining = any("\u1161" <= unicodedata.normalize("NFKD", one)[0] <= "\u11ff" for one in text[start:end])
        assert end <= start or joining or cuts.isdisjoint(range(start + 1, end))
    for token, start, end in tokens:
        assert token in normalized(f"x {text[start:end]} x")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ab, cd", [("ab", 0, 2), ("cd", 4, 6)]),
        ("\u1112\u1161\u11ab\u1100\u1173\u11af e\u0301 x", [("한글", 0, 6), ("é", 7, 9), ("x", 10, 11)]),
        ("(ﬁn) 오늘", [("fin", 1, 3), ("오늘", 5, 7)]),
        ("ze\u200bro \u200bx", [("zero", 0, 5), ("x", 7, 8)]),
        ("今天 ok", [("今", 0, 1), ("天", 1, 2), ("ok", 3, 5)]),
        ("ㅠㅠ ㅋㅏ", [("ᅲᅲ", 0, 2), ("카", 3, 5)]),
        ("👍 x½…y", [("x1", 2, 4), ("2", 3, 4), ("y", 5, 6)]),
    ],
)
def test_tokens_stand_where_they_came_from(text, expected):
    assert [(unicodedata.normalize("NFC", token), start, end) for token, start, end in placed(text)] == expected


@given(st.one_of(any_texts, st.text()))
def test_clusters_are_never_finer_than_unicodes(text):
    ends = {0, *(match.end() for match in regex.finditer(r"\X", text))}
    assert set(flagged(text, GRAPHEME)) <= ends
    assert set(flagged(text, SENTENCE)) <= set(flagged(text, GRAPHEME))


@pytest.mark.parametrize(
    "expected",
    [
        ["Hello there. ", "How are you? ", "e.g. this. ", "No"],
        ["Take U.S. law, version 3.14, at example.com/a?b=c!d now. ", "Next"],
        ['He said "Stop!" ', "(See.) ", "«Oui.» ", "So?! ", "Wait... what"],
        ["one line\n", "another\r\n", "\n", "last"],
        ["숙소가 좋았습니다. ", "다시 갈까요?", "네!", "좋아요."],
        ["今天。", "明天！", "「好。」", "后天？", "（完。）", "了"],
        ["行った。", "「まだ？」", "見た｡", "終"],
        ["สวัสดี ", "ครับ ", "ผมชื่อ abc"],
        ["वह गया। ", "फिर"],
        ["No. 5 is lower. ", "5 Is not"],
        ["A.\u0301 b"],
    ],
)
def test_sentences_end_where_readers_see_them_end(expected):
    assert sentences("".join(expected)) == expected


def test_planted_passages_are_found_at_their_places():
    shared = sentence(1, 60)
    texts = {
        "whole": shared,
        "keeper": sentence(2, 70) + " " + shared + " " + sentence(3, 80),
        "start": shared + " " + sentence(4, 20),
        "end": sentence(5, 30) + "\r\n" + shared,
        "middle": sentence(6, 10) + " " + shared + " " + sentence(7, 10),
        "near": " ".join(shared.split()[:49]),
    }
    spans = find(texts)
    at = texts["keeper"].index(shared)
    middle = texts["middle"].index(shared)
    assert spans.select("record_id", "start", "end", "keeper_start", "keeper_end").rows() == [
        ("end", texts["end"].index(shared), len(texts["end"]), at, at + len(shared) - 1),
        ("middle", middle, middle + len(shared) + 1, at, at + len(shared) - 1),
        ("start", 0, len(shared) + 1, at, at + len(shared) - 1),
        ("whole", 0, len(shared), at, at + len(shared) - 1),
    ]
    assert spans["num_tokens"].to_list() == [60] * 4
    assert spans["keeper_id"].unique().to_list() == ["keeper"]
    assert removed(texts, spans) == texts | {
        "end": sentence(5, 30),
        "middle": sentence(6, 10) + " " + sentence(7, 10),
        "start": sentence(4, 20),
        "whole": "",
    }


@pytest.mark.parametrize(("number", "found"), [(49, 0), (50, 1)])
def test_fifty_tokens_are_enough_and_forty_nine_are_not(number, found):
    shared = " ".join(prose(8, number))
    texts = {"a": f"A b {shared} c d e", "b": f"F g {shared} h i"}
    spans = find(texts)
    assert spans.height == found
    assert passages(texts, spans) == [("b", shared, "a")] * found


def test_passage_is_cut_to_whole_sentences():
    first, second, third = sentence(11, 30), sentence(12, 30), sentence(13, 30)
    texts = {
        "a": f"{first} {second} {third} {sentence(14, 50)}",
        "b": f"But {first} {second} {third[:-1]} and more of it.",
    }
    (passage,) = passages(texts, find(texts))
    assert passage == ("b", second + " ", "a")


def test_half_a_sentence_of_many_tokens_leaves_too():
    long, short = sentence(15, 60), sentence(16, 30)
    texts = {"a": f"{long} {short} {sentence(17, 60)}", "b": f"But {long} {short} And so on."}
    (passage,) = passages(texts, find(texts))
    assert passage == ("b", f"{long} {short} ", "a")


def test_case_width_and_punctuation_do_not_hide_a_passage():
    words = prose(18, 60)
    wide = "\u3000".join("".join(chr(ord(letter) + 0xFEE0) for letter in word) for word in words)
    texts = {"a": "Other words. " + " ".join(words), "b": ", ".join(words).upper() + "!", "c": wide}
    assert passages(texts, find(texts)) == [("a", " ".join(words), "b"), ("c", wide, "b")]


@pytest.mark.parametrize(
    ("shared", "before", "after"),
    [
        (". ".join([KOREAN, KOREAN[::-1], KOREAN[9:], KOREAN[4:]]) + "!", "비가 왔습니다. ", " 맑겠습니다."),
        (CHINESE + "。" + CHINESE[::-1] + "！", "昨天下雨了。", "明天是晴天。"),
        (JAPANESE, "これは別の話です。", "終わり。"),
        (THAI, "เมื่อวานฝนตก ", " พรุ่งนี้แดดออก"),
        (EMOJI, "So it was. ", " It is over."),
        ("\r\n".join(prose(20, 60)) + "\r\n", "One line\r\n", "Last line"),
    ],
    ids=["korean", "chinese", "japanese", "thai", "emoji", "crlf"],
)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_passages_of_any_script_are_cut_out_whole(shared, before, after, form):
    shared, before, after = (unicodedata.normalize(form, part) for part in (shared, before, after))
    texts = {"a": unicodedata.normalize("NFC", f"{sentence(21, 90)}\n{shared}"), "b": before + shared + after}
    spans = find(texts)
    (passage,) = passages(texts, spans)
    assert passage[0] == "b"
    assert passage[1].strip() == shared.strip()
    assert removed(texts, spans)["b"] == before + after.lstrip()


def test_passage_that_stands_twice_in_one_record_leaves_once():
    shared = sentence(22, 55)
    text = f"{shared} {sentence(23, 10)} {shared} {sentence(24, 10)}"
    spans = find({"a": text})
    start = text.rindex(shared)
    assert spans.drop("num_tokens").rows() == [("a", start, start + len(shared) + 1, "a", 0, len(shared) - 1)]


def test_text_that_repeats_itself_without_end_keeps_one_window():
    texts = {"a": "word " * 20_000}
    spans = find(texts)
    assert spans["num_tokens"].sum() == 20_000 - 50
    assert removed(texts, spans)["a"].split() == ["word"] * 50


def test_overlapping_passages_of_two_records_are_one_cut_with_two_origins():
    words = prose(25, 150)
    texts = {
        "a": " ".join(["Alpha", *prose(26, 200), *words[:90]]),
        "b": " ".join(["beta", *words[60:], *prose(27, 90)]),
        "c": " ".join(["gamma", *words, "omega"]),
    }
    spans = find(texts)
    assert joined(spans.filter(record_id="c")) == {("c", 6, 6 + len(" ".join(words)))}
    assert spans.filter(record_id="c")["keeper_id"].to_list() == ["a", "b"]


def test_short_boilerplate_inside_a_copy_does_not_split_it():
    words, boilerplate = prose(28, 300), prose(29, 60)
    copy = " ".join([*words[:150], *boilerplate, *words[150:]])
    texts = {"a": " ".join([*prose(30, 900), *boilerplate]), "b": f"Beta {copy} more of it", "c": f"gamma {copy}"}
    spans = find(texts).filter(record_id="c")
    assert spans.select("keeper_id", "num_tokens").rows() == [("b", 360)]


def test_keeper_has_the_best_quality_then_length_then_smallest_id():
    shared = " ".join(prose(31, 60))
    texts = {"c": shared, "a": shared, "b": shared + "!!"}
    assert dict(find(texts).select("record_id", "keeper_id").rows()) == {"a": "b", "c": "b"}
    ranked = find(texts, quality=[0.0, 1.0, None])
    assert dict(ranked.select("record_id", "keeper_id").rows()) == {"b": "a", "c": "a"}


@given(corpora(plain_texts), st.randoms())
def test_result_does_not_depend_on_the_order_of_records(texts, rng):
    mixed = dict(rng.sample(list(texts.items()), len(texts)))
    assert find(texts, min_tokens=3).equals(find(mixed, min_tokens=3))


@given(corpora(plain_texts), st.integers(1, 3), st.integers(1, 4))
def test_stages_in_shards_and_parts_give_the_same_spans(texts, num_shards, num_parts):
    config = SubstringConfig(min_tokens=3)
    order = in_keeper_order(texts)
    rows = np.arange(len(order), dtype=np.uint32)
    ranked = series([texts[one] for one in order])
    shards = [(ranked[at::num_shards], rows[at::num_shards]) for at in range(num_shards)]

    def parts(frames: list[pl.DataFrame]) -> list[pl.DataFrame]:
        return [pl.concat(frames).filter(pl.col("hash") % num_parts == part) for part in range(num_parts)]

    anchors = pl.concat([shared_anchors(part) for part in parts([sample_windows(*one, config) for one in shards])])
    windows = [windows_at(*one, anchors, config) for one in shards]
    candidates = pl.concat([first_occurrences(part, config) for part in parts(windows)]).sample(
        fraction=1, shuffle=True
    )
    found = []
    for _, numbers in shards:
        own = candidates.filter(pl.col("row").is_in(numbers.tolist()))
        involved = np.unique(np.concatenate([own["row"].to_numpy(), own["keeper_row"].to_numpy()]))
        found.append(verified_spans(ranked.gather(involved), involved, own, config).spans)
    spans = pl.concat(found).with_columns(
        record_id=pl.Series(order, dtype=pl.String).gather(pl.concat(found)["row"]),
        keeper_id=pl.Series(order, dtype=pl.String).gather(pl.concat(found)["keeper_row"]),
    )
    whole = find(texts, min_tokens=3)
    assert spans.select(whole.columns).sort("record_id", "start").equals(whole)


def test_texts_of_many_batches_and_several_threads_give_the_same_spans():
    shared = " ".join(prose(32, 200))
    filler = [" ".join(f"{number}x{word}" for word in range(BATCH_BYTES // 16)) for number in range(4)]
    texts = {f"r{number}": f"{text} {shared} end{number}" for number, text in enumerate(filler)}
    spans = find(texts)
    assert spans["num_tokens"].to_list() == [200] * 3
    assert spans["keeper_id"].unique().to_list() == in_keeper_order(texts)[:1]
    assert spans.equals(find(texts, threads=2))


@pytest.mark.parametrize("number", [1_000, 5_000])
def test_boilerplate_of_many_records_is_compared_with_its_first_place_only(number):
    config = SubstringConfig()
    boilerplate = prose(33, 60)
    texts = series([" ".join([f"{row}a", *boilerplate, f"{row}b"]) for row in range(number)])
    rows = np.arange(number, dtype=np.uint32)
    windows = windows_at(texts, rows, shared_anchors(sample_windows(texts, rows, config)), config)
    candidates = first_occurrences(windows, config)
    verified = verified_spans(texts, rows, candidates, config)
    assert candidates.height == (number - 1) * 11
    assert verified.num_compared == (number - 1) * 60
    assert verified.spans.height == number - 1
    assert verified.spans["keeper_row"].unique().to_list() == [0]


def test_anchors_are_few():
    texts = series([" ".join(f"{number}" for number in range(100_000))])
    anchors = sample_windows(texts, np.zeros(1, np.uint32), SubstringConfig())
    # Of 26 hashes one is chosen; a window further on it is the same with probability 25/27.
    assert abs(anchors.height / 100_000 - 2 / 27) < 0.002
    assert shared_anchors(anchors).height == 0


@given(corpora(plain_texts), st.integers(2, 7))
def test_equal_windows_have_their_anchor_at_the_same_distance(texts, size):
    config = SubstringConfig(min_tokens=size)
    column = series(list(texts.values()))
    anchors = sample_windows(column, np.arange(len(texts), dtype=np.uint32), config)
    places = {(row, at): hashed for hashed, row, at in anchors.rows()}
    seen: dict[tuple[str, ...], list[tuple[int, int]]] = {}
    for row, text in enumerate(texts.values()):
        for at, window in enumerate(windows_of([token for token, _, _ in placed(text)], size)):
            inside = [
                (step, places[row, at + step])
                for step in range(config.anchors_per_window)
                if (row, at + step) in places
            ]
            assert inside
            known = seen.setdefault(window, inside)
            assert set(known) & set(inside)


def test_candidate_that_is_not_equal_is_refused():
    words = prose(34, 60)
    changed = [*words[:55], words[55].replace("w", "v"), *words[56:]]
    texts, rows = series([" ".join(words), " ".join(changed)]), np.arange(2, dtype=np.uint32)
    claimed = pl.DataFrame([(1, at, 0, at) for at in range(11)], schema=list(CANDIDATE_SCHEMA), orient="row")
    found = verified_spans(texts, rows, claimed.cast(CANDIDATE_SCHEMA), SubstringConfig()).spans
    assert found["num_tokens"].to_list() == [55]
    shifted = claimed.with_columns(keeper_position=pl.col("keeper_position") + 1).slice(0, 10)
    assert verified_spans(texts, rows, shifted.cast(CANDIDATE_SCHEMA), SubstringConfig()).spans.height == 0


def test_candidate_without_its_text_is_refused():
    candidates = pl.DataFrame([(1, 0, 0, 0)], schema=CANDIDATE_SCHEMA, orient="row")
    with pytest.raises(DataError, match="texts of both"):
        verified_spans(series(["one"]), np.ones(1, np.uint32), candidates, SubstringConfig(min_tokens=2))


@given(corpora(plain_texts), st.integers(2, 7))
def test_what_is_found_after_removal_crosses_a_seam(texts, size):
    """Idempotent but for seams: where a span was cut out, its neighbours meet, and may by chance repeat something."""
    spans = find(texts, min_tokens=size)
    after = removed(texts, spans)
    crossing = set()
    order = in_keeper_order(after)
    for row, one in enumerate(order):
        gone = {
            at
            for span in spans.filter(record_id=one).to_dicts()
            for at in within(texts[one], span["start"], span["end"])
        }
        kept = [at for at in range(len(placed(texts[one]))) if at not in gone]
        seams = [at for at, (left, right) in enumerate(pairwise(kept), 1) if right != left + 1]
        crossing |= {(row, at) for at in range(len(kept)) for seam in seams if at < seam < at + size}
    records = [[token for token, _, _ in placed(after[one])] for one in order]
    assert repeated_windows(records, size, frozenset(crossing)) == set()


def test_nothing_is_left_to_remove_from_passages_among_distinct_text():
    rng = random.Random(35)
    shared = [sentence(40 + number, rng.randint(50, 90)) for number in range(8)]
    texts = {}
    for record in range(60):
        parts = [" ".join(f"r{record}n{number}x{word}" for word in range(20)) + "." for number in range(5)]
        for passage in rng.sample(shared, 2):
            parts.insert(rng.randint(0, 5), passage)
        texts[f"r{record:02}"] = " ".join(parts)
    spans = find(texts)
    assert spans.height == 120 - 8
    assert find(removed(texts, spans)).height == 0


@pytest.mark.parametrize(
    ("text", "cut", "expected"),
    [
        ("One. Two. Three.", "Two. ", "One. Three."),
        ("One\n\nTwo\nThree", "Two\n", "One\n\nThree"),
        ("One Two\n\nThree", "Two", "One\n\nThree"),
        ("One two three", "two", "One three"),
        ("One-two-three", "two", "One--three"),
        ("One_two_three", "_two_", "One three"),
        ("今天。明天。后天。", "明天。", "今天。后天。"),
        ("  One. Two.  ", "One. ", "Two.  "),
        ("One. Two. ", "Two. ", "One."),
        ("🇰🇷one🇫🇷", "one", "🇰🇷 🇫🇷"),
        ("a\u200bone b", "one ", "a\u200b b"),
        ("ㄱone\u1161", "one", "ㄱ \u1161"),
        ("One.\r\nTwo.\r\nThree.", "Two.\r\n", "One.\r\nThree."),
        ("x one\n\u0301y", "one\n", "x\n\u0301y"),
        ("One.", "One.", ""),
    ],
)
def test_removal_mends_white_space_and_joins_nothing(text, cut, expected):
    start = text.index(cut)
    spans = pl.DataFrame({"record_id": ["a"], "start": [start], "end": [start + len(cut)]})
    assert removed({"a": text, "b": text}, spans) == {"a": expected, "b": text}


def test_removal_of_several_spans_passes_over_other_records():
    spans = pl.DataFrame({"record_id": ["a", "z", "a", "a"], "start": [8, 0, 4, 0], "end": [12, 9, 8, 2]})
    assert removed({"a": "a b c d e f g h"}, spans) == {"a": "b g h"}
    assert removed({}, spans) == {}


@pytest.mark.parametrize("bounds", [(2, 9), (3, 3), (-1, 2), (1, 3)])
def test_span_that_the_text_cannot_have_is_refused(bounds):
    spans = pl.DataFrame({"record_id": ["a", "a"], "start": [0, bounds[0]], "end": [2, bounds[1]]})
    with pytest.raises(DataError, match="record a: span"):
        removed({"a": "some"}, spans)


def test_nothing_short_and_empty_texts_have_no_spans():
    assert find({}).height == 0
    assert find({}).schema == find({"a": "x " * 200}).schema
    assert find({"a": "", "b": "one", "c": "", "d": "one"}).height == 0
    assert find({"a": "!? " * 99, "b": "!? " * 99}).height == 0


def test_null_text_and_id_that_stands_twice_are_refused():
    texts = pl.Series(["x", None])
    with pytest.raises(DataError, match="null"):
        find_repeated_spans(pl.Series(["a", "b"]), texts, None, SubstringConfig())
    with pytest.raises(DataError, match="twice"):
        find_repeated_spans(pl.Series(["a", "a"]), series(["x", "y"]), None, SubstringConfig())


@pytest.mark.parametrize(
    "given_value",
    [{"min_tokens": 1}, {"min_tokens": 10_001}, {"min_tokens": True}, {"min_tokens": 50.0}, {"action": "delete"}],
)
def test_config_out_of_range_is_refused(given_value):
    with pytest.raises(ConfigError, match=f"{next(iter(given_value))}=.* must be"):
        SubstringConfig(**given_value)
