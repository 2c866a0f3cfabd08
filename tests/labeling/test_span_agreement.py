"""Agreement on spans: F1 by hand, gamma against every alignment there is and against pygamma-agreement."""

from functools import cache
from itertools import combinations, product
from typing import Any

import numpy as np
import polars as pl
import pytest

from catalog.errors import ConfigError, DataError
from labeling.agreement import gamma as gamma_module
from labeling.agreement.figure import Agreement
from labeling.agreement.gamma import Track, disorder, gamma
from labeling.agreement.spans import span_f1

COLUMNS = ["item", "annotator", "start", "end", "label"]
LENGTH = 200
# Nobody's data: three readers of one text of 200 characters.
READERS = {
    "kim": [(0, 8, "PER"), (20, 34, "ORG"), (50, 62, "LOC"), (90, 97, "PER"), (120, 140, "ORG")],
    "lee": [(0, 8, "PER"), (22, 34, "ORG"), (50, 60, "PER"), (118, 140, "ORG"), (160, 170, "LOC")],
    "park": [(0, 6, "PER"), (20, 30, "LOC"), (50, 62, "LOC"), (92, 97, "PER")],
}


def marked(*rows: tuple[str, str, int, int, str]) -> pl.DataFrame:
    schema = {"item": pl.String, "annotator": pl.String, "start": pl.Int64, "end": pl.Int64, "label": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


def seen(*rows: tuple[str, str]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"item": pl.String, "annotator": pl.String}, orient="row")


def read_by(*names: str) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    spans = marked(*[("t", name, *span) for name in names for span in READERS[name]])
    return spans, seen(*[("t", name) for name in names]), pl.DataFrame({"item": ["t"], "length": [LENGTH]})


def f1(spans: pl.DataFrame, answered: pl.DataFrame, match: str = "exact", **options: Any) -> Agreement:
    return span_f1(spans, answered, match, rng=np.random.default_rng(0), **options)


def test_f1_of_two_readers_by_hand() -> None:
    spans, answered, _ = read_by("kim", "lee")
    # Exactly alike: one span of five and five. In part: those at 0, 20 and 120; the one at 50 has another label.
    assert f1(spans, answered).value == pytest.approx(2 * 1 / 10)
    assert f1(spans, answered, "overlap").value == pytest.approx(2 * 3 / 10)
    # 12 of 14 characters at 20, 20 of 22 at 120.
    assert f1(spans, answered, "overlap", min_iou=0.87).value == pytest.approx(2 * 2 / 10)


def test_f1_pools_all_pairs_of_readers() -> None:
    spans, answered, _ = read_by("kim", "lee", "park")
    pairs = [(("kim", "lee"), 1, 10), (("kim", "park"), 1, 9), (("lee", "park"), 0, 9)]
    assert [f1(*read_by(*names)[:2]).value for names, _, _ in pairs] == [
        pytest.approx(2 * matches / total) for _, matches, total in pairs
    ]
    assert f1(spans, answered).value == pytest.approx(2 * 2 / 28)


def test_whoever_marked_nothing_was_asked_all_the_same() -> None:
    spans = marked(("1", "a", 0, 4, "X"), ("1", "b", 0, 4, "X"))
    both, third = seen(("1", "a"), ("1", "b")), seen(("1", "a"), ("1", "b"), ("1", "c"))
    assert f1(spans, both).value == 1.0
    assert f1(spans, third).value == pytest.approx(2 * 1 / 4)


def test_a_span_matches_one_other_at_most_and_as_many_as_can_be() -> None:
    # One long span lies over two short ones: one match of three spans.
    long = marked(("1", "a", 0, 10, "X"), ("1", "b", 0, 4, "X"), ("1", "b", 5, 9, "X"))
    answered = seen(("1", "a"), ("1", "b"))
    assert f1(long, answered, "overlap").value == pytest.approx(2 / 3)
    # Whoever matches the first best leaves the second without.
    chain = marked(("1", "a", 0, 10, "X"), ("1", "a", 10, 12, "X"), ("1", "b", 0, 11, "X"), ("1", "b", 3, 9, "X"))
    assert f1(chain, answered, "overlap").value == 1.0


def test_no_f1_where_there_is_nothing_to_compare() -> None:
    spans = marked(("1", "a", 0, 4, "X"))
    assert f1(spans, seen(("1", "a"), ("2", "b"))).reason == "no item was answered by two annotators"
    assert f1(marked(), seen(("1", "a"), ("1", "b"))).reason == (
        "nobody marked anything in an item that two annotators answered"
    )


def test_spans_that_are_none_and_options_without_effect_are_refused() -> None:
    answered = seen(("1", "a"), ("1", "b"))
    with pytest.raises(DataError, match="span 4 to 4 of item '1' must end behind its start"):
        f1(marked(("1", "a", 4, 4, "X")), answered)
    with pytest.raises(DataError, match="lack the column 'end'"):
        f1(marked().drop("end"), answered)
    with pytest.raises(ConfigError, match="is for overlapping spans only"):
        f1(marked(), answered, min_iou=0.5)
    with pytest.raises(ConfigError, match="did you mean 'overlap'"):
        f1(marked(), answered, "overlaps")


def test_interval_of_f1_holds_the_figure() -> None:
    rng = np.random.default_rng(3)
    rows = [
        (f"{item:03}", who, at, at + 5, "X")
        for item in range(200)
        for at in (0, 20)
        for who in ("a", "b")
        if rng.random() < 0.8
    ]
    found = f1(marked(*rows), seen(*[(f"{item:03}", who) for item in range(200) for who in ("a", "b")]))
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high
    assert 0.02 < found.high - found.low < 0.15


# Observed disorder and gamma by pygamma-agreement 0.5.9: CombinedCategoricalDissimilarity(alpha=1, beta=1),
# ShuffleContinuumSampler, precision 1 %, numpy seed 0.
@pytest.mark.parametrize(
    ("names", "published_disorder", "published_gamma"),
    [(("kim", "lee"), 0.603290, 0.578), (("kim", "lee", "park"), 0.799676, 0.543)],
)
def test_gamma_is_that_of_pygamma(names: tuple[str, ...], published_disorder: float, published_gamma: float) -> None:
    spans, answered, lengths = read_by(*names)
    found = gamma(spans, answered, lengths, rng=np.random.default_rng(0))
    # Shifts are drawn: their mean is known to 2 %.
    assert found.value == pytest.approx(published_gamma, abs=0.02)
    assert disorder(track_of(names), len(names)) / (spans.height / len(names)) == pytest.approx(
        published_disorder, abs=1e-5
    )


def track_of(names: tuple[str, ...]) -> Track:
    labels = ["LOC", "ORG", "PER"]
    rows = [
        (who, start, end, labels.index(label)) for who, name in enumerate(names) for start, end, label in READERS[name]
    ]
    annotator, start, end, label = (np.array(column) for column in zip(*rows, strict=True))
    return Track(annotator=annotator, start=start, end=end, label=label, text=np.zeros_like(label))


def least_disorder(tracks: list[list[tuple[int, int, int]]]) -> float:
    """By trying every alignment, as the definition says."""
    num = len(tracks)

    def apart(first: tuple[int, int, int] | None, second: tuple[int, int, int] | None) -> float:
        if first is None or second is None:
            return 1.0
        far = abs(first[0] - second[0]) + abs(first[1] - second[1])
        return (far / (first[1] - first[0] + second[1] - second[0])) ** 2 + (first[2] != second[2])

    @cache
    def rest(left: tuple[tuple[int, ...], ...]) -> float:
        first = next((who for who in range(num) if left[who]), None)
        if first is None:
            return 0.0
        choices: list[list[int | None]] = [[None, *one] for one in left]
        choices[first] = [left[first][0]]
        best = float("inf")
        for chosen in product(*choices):
            units = [None if at is None else tracks[who][at] for who, at in enumerate(chosen)]
            cost = sum(apart(*pair) for pair in combinations(units, 2)) / (num * (num - 1) / 2)
            remaining = tuple(tuple(at for at in one if at != chosen[who]) for who, one in enumerate(left))
            best = min(best, cost + rest(remaining))
        return best

    return rest(tuple(tuple(range(len(one))) for one in tracks))


@pytest.mark.parametrize("num", [2, 3, 4])
def test_alignment_is_the_best_there_is(num: int) -> None:
    rng = np.random.default_rng(num)
    for _ in range(6):
        tracks = [
            [(int(at), int(at + rng.integers(3, 15)), int(rng.integers(2))) for at in rng.choice(40, 3, replace=False)]
            for _ in range(num)
        ]
        rows = [(who, *span) for who, spans in enumerate(tracks) for span in spans]
        annotator, start, end, label = (np.array(column) for column in zip(*rows, strict=True))
        track = Track(annotator=annotator, start=start, end=end, label=label, text=np.zeros_like(label))
        assert disorder(track, num) == pytest.approx(least_disorder(tracks), abs=1e-9)


def test_gamma_is_one_where_all_agree_and_near_zero_by_chance() -> None:
    rng = np.random.default_rng(5)
    spans = [(int(at), int(at) + 6, "AB"[int(at) % 2]) for at in range(0, 600, 20)]
    length = pl.DataFrame({"item": ["t"], "length": [620]})
    answered = seen(("t", "a"), ("t", "b"))
    alike = marked(*[("t", who, *one) for who in ("a", "b") for one in spans])
    assert gamma(alike, answered, length, rng=rng).value == 1.0
    other = sorted(rng.choice(610, 30, replace=False))
    chance = marked(
        *[("t", "a", *one) for one in spans], *[("t", "b", int(at), int(at) + 6, "AB"[int(at) % 2]) for at in other]
    )
    assert gamma(chance, answered, length, rng=rng).value == pytest.approx(0.0, abs=0.2)


def test_spans_of_different_texts_are_never_aligned() -> None:
    # The end of one text and the start of the next: beside each other on the line, and still apart.
    spans = marked(("1", "a", 90, 100, "X"), ("2", "b", 0, 10, "X"))
    answered = seen(("1", "a"), ("1", "b"), ("2", "a"), ("2", "b"))
    lengths = pl.DataFrame({"item": ["1", "2"], "length": [100, 100]})
    found = gamma(spans, answered, lengths, rng=np.random.default_rng(0))
    assert found.value is not None
    assert found.value <= 0.0
    assert found.num_items == 2


def test_gamma_says_why_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    spans, answered, lengths = read_by("kim", "lee")
    rng = np.random.default_rng(0)
    assert gamma(spans, seen(("t", "kim")), lengths, rng=rng).reason == "no item was answered by two annotators"
    assert gamma(marked(), answered, lengths, rng=rng).reason == (
        "nobody marked anything in an item that two annotators answered"
    )
    crowd = seen(*[("t", f"a{who}") for who in range(9)])
    assert gamma(spans, crowd, lengths, rng=rng).reason == "over 8 annotators answered every item"
    with pytest.raises(DataError, match="span 160 to 170 lies outside item 't' of 165"):
        gamma(spans, answered, pl.DataFrame({"item": ["t"], "length": [165]}), rng=rng)
    monkeypatch.setattr(gamma_module, "MAX_ALIGNMENTS", 10)
    found = gamma(spans, answered, lengths, rng=rng)
    assert (found.value, found.reason) == (None, "more than 10 alignments of spans are possible: they lie too close")


def test_large_corpora_are_measured_on_items_drawn_by_chance() -> None:
    items = [f"{item:04}" for item in range(200)]
    rows = [(item, who, at, at + 4, "인물") for item in items for at in (0, 10) for who in ("a", "b")]
    answered = seen(*[(item, who) for item in items for who in ("a", "b")])
    lengths = pl.DataFrame({"item": items, "length": [20] * len(items)})
    found = gamma(marked(*rows), answered, lengths, rng=np.random.default_rng(0))
    assert found.num_items == 125
    assert found.value == 1.0
