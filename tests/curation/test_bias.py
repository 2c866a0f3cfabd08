"""Disparities, gaps, associations and counterfactual pairs are right, and quiet where little is known."""

import numpy as np
import polars as pl
import pytest
from scipy import stats

from curation.bias import intervals
from curation.bias.association import associations, words_of
from curation.bias.counterfactual import score_pairs, swapped_pairs
from curation.bias.gaps import count_mentions, label_gaps, representation
from curation.bias.identity import IdentityTerms
from curation.bias.removal import count_removals, disparities

TERMS = IdentityTerms.configured()


def judged(group: str, number: int, removed: int, rule: str = "r") -> pl.DataFrame:
    return pl.DataFrame(
        {
            "kept": [row >= removed for row in range(number)],
            "failed": [[rule] if row < removed else [] for row in range(number)],
            "identity": [[group] if group else []] * number,
            "language": ["en"] * number,
            "source": ["a.jsonl"] * number,
            "label": [None] * number,
        },
        schema_overrides={"failed": pl.List(pl.String), "identity": pl.List(pl.String), "label": pl.String},
    )


def test_disparity_of_a_group_is_called_and_counts_of_shards_add_up() -> None:
    records = pl.concat([judged("", 900, 90), judged("a/b", 100, 40)])
    whole = disparities(count_removals(records))
    parts = disparities(pl.concat([count_removals(records[:130]), count_removals(records[130:])]))
    assert parts.equals(whole)
    row = whole.filter((pl.col("value") == "a/b") & (pl.col("rule") == "r")).row(0, named=True)
    assert (row["records"], row["removed"], row["verdict"]) == (100, 40, "more")
    assert (row["removed_ratio"], row["others_ratio"]) == (0.4, 0.1)
    assert (row["share_before"], row["share_after"]) == (0.1, 60 / 870)
    assert row["low"] < 4 < row["high"]


@pytest.mark.parametrize(("number", "removed"), [(1, 1), (4, 3), (100, 12)])
def test_few_records_and_small_differences_are_not_called(number: int, removed: int) -> None:
    table = disparities(count_removals(pl.concat([judged("", 900, 90), judged("a/b", number, removed)])))
    assert table.filter(pl.col("value") == "a/b")["verdict"].null_count() == 2 * 1


def test_nobody_is_compared_with_nobody() -> None:
    table = disparities(count_removals(judged("", 20, 5)))
    assert table.is_empty()


def test_intervals_agree_with_scipy() -> None:
    low, high = intervals.wilson([8], [263])
    expected = stats.binomtest(8, 263).proportion_ci(method="wilson")
    assert (low[0], high[0]) == pytest.approx((expected.low, expected.high))
    one, other = np.arange(12.0), np.arange(30.0) ** 1.1
    sums = [len(one), one.sum(), (one**2).sum(), len(other), other.sum(), (other**2).sum()]
    welch = stats.ttest_ind(one, other, equal_var=False).confidence_interval()
    assert intervals.mean_difference(*sums)[1:] == pytest.approx((welch.low, welch.high))
    adjusted = stats.false_discovery_control([0.01, 0.3, 0.02, 0.9])
    assert intervals.false_discovery([0.01, 0.3, 0.02, 0.9]).tolist() == pytest.approx(adjusted.tolist())


def test_share_difference_is_that_of_newcombe() -> None:
    # Newcombe (1998), table II, example (a): 56/70 - 48/80, method 10.
    found = intervals.share_difference(56, 70, 48, 80)
    assert [round(float(one), 4) for one in found] == [0.2, 0.0524, 0.3339]


def test_gaps_are_to_the_records_that_do_not_mention_the_group() -> None:
    records = pl.DataFrame(
        {
            "identity": [["a/b"]] * 4 + [[]] * 6,
            "label": ["x", "x", "x", "y", "x", "y", "y", "y", "y", None],
            "kept": [True] * 9 + [False],
            "toxicity": [0.9, 0.8, 0.7, None] + [0.1] * 6,
        },
        schema_overrides={"identity": pl.List(pl.String)},
    )
    counted = pl.concat([count_mentions(records[:3]), count_mentions(records[3:])])
    row = representation(counted).row(0, named=True)
    assert (row["records"], row["share"], row["kept"], row["kept_share"]) == (4, 0.4, 4, 4 / 9)
    assert row["toxicity_gap"] == pytest.approx(0.7)
    gap = label_gaps(counted).filter(pl.col("label") == "x").row(0, named=True)
    assert (gap["share"], gap["others_share"]) == (0.75, 0.2)


def test_association_finds_the_word_that_goes_with_a_group() -> None:
    texts = pl.Series(["the nurse helps"] * 30 + ["the engineer helps"] * 70)
    identity = pl.Series([["g/w"]] * 28 + [[]] * 72, dtype=pl.List(pl.String))
    found = associations(identity, words_of(texts))
    top = found.row(0, named=True)
    assert (top["group"], top["word"], top["both"], top["of_group"], top["of_word"]) == ("g/w", "nurse", 28, 28, 30)
    assert top["pmi"] == pytest.approx(np.log2(28.5 * 102 / (29.0 * 31.0)))
    assert top["q"] < 1e-6
    assert found.filter(pl.col("word") == "the")["q"][0] > 0.9


def test_words_of_unspaced_scripts_are_neighbouring_characters() -> None:
    assert sorted(words_of(pl.Series(["日本人! ok"]))["word"]) == ["ok", "日本", "本人"]


@pytest.mark.parametrize(
    ("text", "other", "swapped"),
    [
        ("He met an atheist and A MUSLIM, a Muslim.", "religion/jews", "He met an atheist and A JEW, a Jew."),
        ("A woman, and girls", "gender/men", "A man, and boys"),
        ("a gay person", "orientation/heterosexual", "a straight person"),
        ("An american friend", "nationality/koreans", "A korean friend"),
        ("여자는 남고 여성들이", "gender/men", "남자는 남고 남성들이"),
        ("무슬림은 왔다. 무슬림이", "religion/buddhists", "불교인은 왔다. 불교인이"),
        ("동양인과 동양인으로", "ethnicity/black", "흑인과 흑인으로"),
        ("어머니를 이슬람교도가", "gender/men", "아버지를 이슬람교도가"),
        ("소녀가 왔다", "gender/men", "소년이 왔다"),
        ("彼は韓国人です", "nationality/japanese", "彼は日本人です"),
    ],
)
def test_swapping_keeps_the_rest_right(text: str, other: str, swapped: str) -> None:
    pairs = swapped_pairs([text], TERMS)
    assert swapped in pairs.filter(pl.col("other") == other)["swapped"].to_list()


def test_what_is_part_of_a_longer_word_is_not_swapped() -> None:
    assert swapped_pairs(["womanly wiles, 여성복"], TERMS).is_empty()


def test_scores_of_pairs_are_compared_and_the_worst_comes_first() -> None:
    pairs = swapped_pairs(["the muslim market", "a christian muslim", "no answer, woman"], TERMS)

    def scorer(texts: pl.Series) -> np.ndarray:
        return np.where(texts.str.contains("woman|man").to_numpy(), np.nan, texts.str.contains("muslim").to_numpy())

    scored, table = score_pairs(pairs, scorer)
    row = table.filter((pl.col("group") == "religion/muslims") & (pl.col("other") == "religion/jews")).row(
        0, named=True
    )
    assert (row["pairs"], row["change"]) == (2, -1.0)
    assert abs(scored["change"][0]) == 1.0
    assert not scored["group"].str.starts_with("gender").any()
