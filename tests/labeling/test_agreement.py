"""Agreement: published figures, independent implementations, and what has no figure."""

import tracemalloc
from collections.abc import Sequence
from typing import Any

import krippendorff
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import aggregate_raters
from statsmodels.stats.inter_rater import fleiss_kappa as statsmodels_fleiss
from statsmodels.stats.proportion import confint_proportions_2indep

from catalog.errors import ConfigError, DataError
from labeling.agreement.annotators import (
    agreement_with_others,
    confusion_matrices,
    difference_interval,
    drift,
    share_right,
    speed,
)
from labeling.agreement.cohen import mean_kappa, pairwise_kappa
from labeling.agreement.figure import Agreement
from labeling.agreement.fleiss import fleiss_kappa
from labeling.agreement.krippendorff import krippendorff_alpha
from labeling.annotations import Annotations

# Krippendorff (2011), section C: four observers, twelve units, values missing.
FOUR_OBSERVERS = (
    "1 2 3 3 2 1 4 1 2 * * *",
    "1 2 3 3 2 2 4 1 2 5 * 3",
    "* 3 3 3 2 3 4 2 2 5 1 *",
    "1 2 3 3 2 4 4 1 2 5 1 *",
)
# Fleiss (1971), table 1: how many of six psychiatrists gave thirty patients each of five diagnoses.
FLEISS = (
    "00060 03003 01401 00006 03030 20400 00402 20310 20040 00006 10050 11040 03300 10050 02031 00501 30012 51000 02040 "
    "10203 00006 01050 02013 20040 10041 05010 40002 02040 10500 00006"
)
# Cohen (1960), table 1, of 200 patients; Cohen (1968) weighs its disagreements.
COHEN = ((88, 14, 18), (10, 40, 10), (2, 6, 12))
COHEN_WEIGHTS = ((0, 1, 3), (1, 0, 6), (3, 6, 0))
# Artstein and Poesio (2005): a hundred utterances, coder A down, B across: statement, request, check.
UTTERANCES = ((46, 0, 0), (6, 32, 6), (0, 0, 10))


def annotations(rows: Sequence[tuple[Any, Any, Any]], labels: Sequence[str] | None = None) -> Annotations:
    frame = pl.DataFrame(rows, schema=["item", "annotator", "label"], orient="row", strict=False)
    return Annotations.from_frame(frame, labels)


def of_lines(lines: Sequence[str]) -> Annotations:
    """One line an annotator, ``*`` where nothing was said."""
    given = [(f"{at:03}", f"a{who}", one) for who, line in enumerate(lines) for at, one in enumerate(line.split())]
    return annotations([row for row in given if row[2] != "*"])


def of_table(table: Sequence[Sequence[int]]) -> Annotations:
    rows: list[tuple[str, str, str]] = []
    for first, counts in enumerate(table):
        for second, times in enumerate(counts):
            for _ in range(times):
                item = f"{len(rows) // 2:04}"
                rows += [(item, "A", str(first)), (item, "B", str(second))]
    return annotations(rows)


def alpha(given: Annotations, level: str = "nominal", values: Any = None, num_replicates: int = 0) -> Agreement:
    return krippendorff_alpha(given, level, values, rng=np.random.default_rng(0), num_replicates=num_replicates)


def wide(given: Annotations) -> np.ndarray:
    table = np.full((given.num_annotators, given.num_items), np.nan)
    table[given.annotator, given.item] = [float(given.labels[one]) for one in given.label]
    return table


@pytest.mark.parametrize(("level", "published"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_is_krippendorffs_own_for_four_observers_with_gaps(level: str, published: float) -> None:
    given = of_lines(FOUR_OBSERVERS)
    values = [1, 2, 3, 4, 5] if level == "interval" else None
    found = alpha(given, level, values)
    assert found.value == pytest.approx(published, abs=5e-4)
    assert found.value == pytest.approx(krippendorff.alpha(wide(given), level_of_measurement=level), abs=1e-12)
    # The twelfth unit has one value, which cannot be paired.
    assert (found.num_items, found.num_annotations) == (11, 40)


def test_alpha_is_krippendorffs_own_for_two_observers() -> None:
    binary = of_lines(("0 1 0 0 0 0 0 0 1 0", "1 1 1 0 0 1 0 0 0 0"))
    nominal = of_lines(("a a b b d c c c e d d a", "b a b b b c c c e d d d"))
    assert alpha(binary).value == pytest.approx(0.095, abs=5e-4)
    assert alpha(nominal).value == pytest.approx(0.692, abs=5e-4)


@given(seed=st.integers(0, 2**32 - 1), level=st.sampled_from(["nominal", "ordinal", "interval"]))
@settings(max_examples=60)
def test_alpha_equals_an_independent_implementation(seed: int, level: str) -> None:
    rng = np.random.default_rng(seed)
    table = rng.integers(0, 5, (4, 25)).astype(float)
    table[rng.random(table.shape) < 0.3] = np.nan
    table[:2, :2] = [[0, 1], [2, 3]]
    rows = [(f"{i:02}", str(a), str(int(v))) for (a, i), v in np.ndenumerate(table) if not np.isnan(v)]
    given = annotations(rows, labels=["0", "1", "2", "3", "4"])
    found = alpha(given, level, range(5) if level == "interval" else None)
    assert found.value == pytest.approx(krippendorff.alpha(table, level_of_measurement=level), abs=1e-10)


def test_interval_of_alpha_covers_and_narrows_with_more_items() -> None:
    rng = np.random.default_rng(7)

    def drawn(num_items: int) -> Annotations:
        truth = rng.integers(0, 3, num_items)
        said = np.where(rng.random((3, num_items)) < 0.7, truth, rng.integers(0, 3, (3, num_items)))
        return annotations([(f"{i:06}", str(a), str(v)) for (a, i), v in np.ndenumerate(said)])

    # Agreement of two answers beyond chance is 0.7 squared.
    few = [alpha(drawn(100), num_replicates=400) for _ in range(40)]
    assert sum(one.low <= 0.49 <= one.high for one in few if one.low and one.high) >= 34
    many = alpha(drawn(10_000), num_replicates=400)
    assert many.low is not None
    assert many.high is not None
    assert many.low < many.value < many.high
    assert many.high - many.low < min(one.high - one.low for one in few if one.low and one.high) / 5


def test_interval_repeats_under_one_seed() -> None:
    given = of_lines(FOUR_OBSERVERS)
    assert alpha(given, num_replicates=50) == alpha(given, num_replicates=50)


def test_fleiss_kappa_of_his_own_patients() -> None:
    rows = []
    for patient, counts in enumerate(FLEISS.split()):
        said = [label for label, times in enumerate(counts) for _ in range(int(times))]
        rows += [(f"{patient:02}", f"r{rater}", str(label)) for rater, label in enumerate(said)]
    given = annotations(rows)
    found = fleiss_kappa(given)
    assert found.value == pytest.approx(0.430, abs=5e-4)
    table, _ = aggregate_raters(wide(given).T.astype(int))
    assert found.value == pytest.approx(statsmodels_fleiss(table), abs=1e-12)


def test_cohen_kappa_plain_and_weighted_is_his_own() -> None:
    given = of_table(COHEN)
    (plain,) = pairwise_kappa(given).rows(named=True)
    assert (plain["annotator"], plain["other"], plain["num_items"]) == ("A", "B", 200)
    assert plain["observed"] == pytest.approx(0.70)
    assert plain["kappa"] == pytest.approx(0.492, abs=5e-4)
    assert pairwise_kappa(given, COHEN_WEIGHTS)["kappa"][0] == pytest.approx(0.348, abs=5e-4)


def test_coefficients_of_artstein_and_poesio() -> None:
    given = of_table(UTTERANCES)
    (kappa,) = pairwise_kappa(given).rows(named=True)
    assert kappa["observed"] == pytest.approx(0.88)
    assert kappa["kappa"] == pytest.approx(0.80132, abs=5e-6)
    # Of two coders Fleiss' kappa is Scott's pi.
    assert fleiss_kappa(given).value == pytest.approx(0.79953, abs=5e-6)
    assert alpha(given).value == pytest.approx(0.80053, abs=5e-6)


@given(seed=st.integers(0, 2**32 - 1), weights=st.sampled_from(["none", "linear", "quadratic"]))
@settings(max_examples=40)
def test_pairwise_kappa_equals_an_independent_implementation(seed: int, weights: str) -> None:
    rng = np.random.default_rng(seed)
    table = rng.integers(0, 4, (3, 30)).astype(float)
    table[rng.random(table.shape) < 0.4] = np.nan
    rows = [(f"{i:02}", str(a), str(int(v))) for (a, i), v in np.ndenumerate(table) if not np.isnan(v)]
    for row in pairwise_kappa(annotations(rows, labels=["0", "1", "2", "3"]), weights).rows(named=True):
        first, second = table[int(row["annotator"])], table[int(row["other"])]
        both = ~np.isnan(first) & ~np.isnan(second)
        assert row["num_items"] == both.sum()
        if row["kappa"] is None:
            assert row["reason"]
            continue
        expected = cohen_kappa_score(
            first[both], second[both], labels=[0, 1, 2, 3], weights=None if weights == "none" else weights
        )
        assert row["kappa"] == pytest.approx(expected, abs=1e-12)


def test_mean_kappa_leaves_out_what_is_undefined() -> None:
    rows = [("1", "a", "x"), ("1", "b", "x"), ("2", "a", "x"), ("2", "c", "y"), ("3", "a", "y"), ("3", "c", "y")]
    pairs = pairwise_kappa(annotations(rows))
    assert pairs["kappa"].to_list() == [None, pytest.approx(0.0)]
    assert pairs["reason"].to_list()[0] == "both gave only 'x': no disagreement to be expected"
    assert mean_kappa(pairs) == pytest.approx(0.0)
    assert mean_kappa(pairs.head(1)) is None


MEASURES = (alpha, fleiss_kappa)


@pytest.mark.parametrize("measure", MEASURES)
def test_no_figure_where_one_annotator_worked_alone(measure: Any) -> None:
    found = measure(annotations([("1", "kim", "좋음"), ("2", "kim", "나쁨")]))
    assert (found.value, found.reason) == (None, "no item was answered by two annotators")
    assert pairwise_kappa(annotations([("1", "kim", "좋음")])).is_empty()


@pytest.mark.parametrize("measure", MEASURES)
def test_no_figure_where_one_label_was_given(measure: Any) -> None:
    rows = [(str(item), who, "좋음 😀") for item in range(5) for who in ("a", "b", "c")]
    found = measure(annotations(rows, labels=["나쁨", "좋음 😀"]))
    assert found.value is None
    assert found.reason == "only the label '좋음 😀' was given: chance alone explains that everybody agrees"
    assert found.num_items == 5


@pytest.mark.parametrize("measure", MEASURES)
def test_everybody_agreeing_on_several_labels_is_one(measure: Any) -> None:
    rows = [(str(item), who, "좋음" if item % 2 else "나쁨") for item in range(6) for who in ("a", "b", "c")]
    assert measure(annotations(rows)).value == pytest.approx(1.0)


@pytest.mark.parametrize("measure", MEASURES)
def test_labels_that_are_numbers_or_korean_are_all_the_same_to_it(measure: Any) -> None:
    # Argilla's server said 0.000 whatever the labels were (argilla-io/argilla#4396).
    names = {"1": "긍정", "2": "부정", "3": "중립", "4": "혼합", "5": "모름"}
    lines = [" ".join(names.get(one, one) for one in line.split()) for line in FOUR_OBSERVERS]
    value = measure(of_lines(lines)).value
    assert value == pytest.approx(measure(of_lines(FOUR_OBSERVERS)).value)
    assert value > 0.5


def test_the_last_of_several_answers_of_one_annotator_counts() -> None:
    once = annotations([("1", "a", "x"), ("1", "b", "y"), ("2", "a", "y"), ("2", "b", "y")])
    twice = annotations(
        [("1", "a", "y"), ("1", "b", "y"), ("2", "a", "y"), ("2", "b", "y"), ("1", "a", "x"), ("1", "a", "x")]
    )
    assert twice.num_repeated == 2
    assert alpha(twice).value == alpha(once).value
    assert fleiss_kappa(twice).value == fleiss_kappa(once).value
    assert pairwise_kappa(twice).rows() == pairwise_kappa(once).rows()


def test_rows_without_a_label_are_no_answers() -> None:
    given = annotations([("1", "a", "x"), ("1", "b", None), (None, "a", "x"), ("2", None, "x"), ("2", "a", "y")])
    assert len(given) == 2
    assert given.items.to_list() == ["1", "2"]


def test_what_cannot_be_encoded_is_refused() -> None:
    with pytest.raises(DataError, match="did you mean '긍정'"):
        annotations([("1", "a", "긍정적")], labels=["긍정", "부정"])
    with pytest.raises(DataError, match="lack the column 'annotator'"):
        Annotations.from_frame(pl.DataFrame({"item": ["1"], "label": ["x"]}))
    one = np.zeros(1, dtype=np.int32)
    with pytest.raises(DataError, match=r"label numbers from 0 to 0 must lie in \[0, 0\)"):
        Annotations.from_codes(item=one, annotator=one, label=one, items=pl.Series(["1"]), annotators=("a",), labels=())


def test_options_without_effect_are_refused() -> None:
    given = of_lines(FOUR_OBSERVERS)
    with pytest.raises(ConfigError, match="level='ordinl' is unknown; did you mean 'ordinal'"):
        alpha(given, "ordinl")
    with pytest.raises(ConfigError, match="takes no values"):
        alpha(given, "ordinal", [1, 2, 3, 4, 5])
    with pytest.raises(ConfigError, match="2 values for 5 labels"):
        alpha(given, "interval", [1, 2])
    with pytest.raises(ConfigError, match="must be 5 by 5"):
        pairwise_kappa(given, [[0, 1], [1, 0]])
    with pytest.raises(ConfigError, match="weights='square' is unknown"):
        pairwise_kappa(given, "square")


def test_agreement_with_others_counts_their_answers() -> None:
    given = annotations(
        [("1", "a", "x"), ("1", "b", "x"), ("1", "c", "y"), ("2", "a", "x"), ("2", "b", "y"), ("3", "d", "x")]
    )
    # a: b and c about 1, b about 2: one of three is the same.
    assert agreement_with_others(given)[:3] == pytest.approx([1 / 3, 1 / 3, 0.0])
    assert np.isnan(agreement_with_others(given)[3])


def test_confusion_and_share_right_are_against_the_consensus() -> None:
    given = annotations([("1", "김", "긍정"), ("2", "김", "부정"), ("3", "김", "부정"), ("3", "이", "긍정")])
    consensus = np.array([0, 0, 1], dtype=np.int32)
    assert confusion_matrices(given, consensus).rows() == [
        ("김", "긍정", "긍정", 1),
        ("김", "긍정", "부정", 1),
        ("김", "부정", "부정", 1),
        ("이", "부정", "긍정", 1),
    ]
    assert share_right(given, consensus) == pytest.approx([2 / 3, 0.0])
    assert share_right(given, consensus, shared_only=True) == pytest.approx([1.0, 0.0])


def test_speed_says_nothing_of_answers_that_were_not_timed() -> None:
    timed = pl.DataFrame({"annotator": ["a"] * 5 + ["b"], "seconds": [1.0, 2.0, 3.0, 100.0, None, None]})
    assert speed(timed).rows() == [("a", 4, 2.5, pytest.approx(1.3), pytest.approx(70.9)), ("b", 0, None, None, None)]


def test_drift_is_told_of_whoever_became_worse_and_of_nobody_else() -> None:
    rng = np.random.default_rng(0)
    worse = [("worse", at, bool(rng.random() < (0.95 if at < 100 else 0.6))) for at in range(200)]
    steady = [("steady", at, bool(rng.random() < 0.8)) for at in range(200)]
    few = [("few", at, at < 10) for at in range(29)]
    found = drift(pl.DataFrame(worse + steady + few, schema=["annotator", "at", "right"], orient="row"))
    by_name = {row["annotator"]: row for row in found.rows(named=True)}
    assert by_name["worse"]["drifts"] is True
    assert by_name["worse"]["high"] < 0
    assert by_name["steady"]["drifts"] is False
    assert by_name["few"]["drifts"] is None
    shuffled = pl.DataFrame(worse, schema=["annotator", "at", "right"], orient="row").sample(
        fraction=1.0, shuffle=True, seed=1
    )
    assert drift(shuffled).rows(named=True)[0] == by_name["worse"]


@pytest.mark.parametrize(("first", "second"), [((56, 70), (48, 80)), ((9, 10), (3, 10)), ((10, 10), (0, 20))])
def test_difference_of_proportions_is_newcombes_tenth(first: tuple[int, int], second: tuple[int, int]) -> None:
    expected = confint_proportions_2indep(*first, *second, method="newcomb", compare="diff")
    assert difference_interval(*first, *second) == pytest.approx(expected, abs=1e-9)


def test_memory_is_by_annotation_and_not_by_items_times_annotators() -> None:
    num, rng = 600_000, np.random.default_rng(0)
    item = np.repeat(np.arange(num // 3, dtype=np.int32), 3)
    annotator = rng.integers(0, 2_000, num).astype(np.int32)
    label = rng.integers(0, 5, num).astype(np.int32)
    names = tuple(str(one) for one in range(2_000))
    items = pl.Series(np.arange(num // 3))
    tracemalloc.start()
    try:
        given = Annotations.from_codes(
            item=item, annotator=annotator, label=label, items=items, annotators=names, labels=tuple("abcde")
        )
        _, built = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        alpha(given, num_replicates=100)
        fleiss_kappa(given)
        _, measured = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A dense table would take 200,000 by 2,000 cells: 3.2 GB, 5,300 bytes an annotation.
    assert built / num < 100
    assert (measured - before) / num < 200
