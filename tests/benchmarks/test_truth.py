"""The yardstick of the deduplication benchmark, on examples small enough to work out by hand."""

import math
import re
import unicodedata

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import adjusted_rand_score

from benchmarks import truth
from benchmarks.planting import CJK_EDITS, EDITS, LOOK_ALIKES, chain, plant, renumber, respell, truncate
from curation.dedup.normalize import normalize
from curation.dedup.shingles import ShingleConfig, shingle

SHAPE = ShingleConfig(min_words=5)
TEXTS = pl.Series(
    [
        "a b c d e f g h",
        "A b, c d\u00a0e f g x",
        "b c d e f g",
        "one two",
        "오늘 날씨가 좋아서 가족과 함께 공원에 다녀왔습니다",
        "今天天气很好，我们去公园",
        "",
    ]
)
"""Four, four and two word 5-grams; one whole text; word 5-grams of Korean; character 5-grams of Chinese; one whole."""
LICENCE = " ".join(f"permission{number}" for number in range(90))


def prose(number: int, words: int) -> str:
    """A text whose words no other text has."""
    return " ".join(f"t{number}w{word}" for word in range(words))


def normalized(text: str) -> str:
    return pl.select(normalize(pl.lit(text))).item()


def test_jaccard_is_shared_by_all_shingles():
    matrix = truth.shingle_matrix(TEXTS, SHAPE)
    assert np.diff(matrix.indptr).tolist() == [4, 4, 2, 1, 3, 8, 1]
    # abcde bcdef cdefg of 4 + 4 - 3; bcdef cdefg of 4 + 2 - 2; of 4 + 2 - 2.
    expected = {(0, 1): 3 / 5, (0, 2): 2 / 4, (1, 2): 2 / 4}
    first, second, similarity = truth.similar_pairs(matrix)
    assert dict(zip(zip(first.tolist(), second.tolist(), strict=True), similarity.tolist(), strict=True)) == expected
    assert truth.jaccard(matrix, np.array([0, 0]), np.array([1, 3])).tolist() == [0.6, 0.0]


def test_reference_shingles_are_as_many_as_the_kernels():
    sizes = np.diff(truth.shingle_matrix(TEXTS, SHAPE).indptr)
    assert shingle(TEXTS, SHAPE).lengths.tolist() == sizes.tolist()


def test_short_texts_are_compared_by_characters():
    matrix = truth.shingle_matrix(pl.Series(["a b c d e", "a b"]), ShingleConfig(min_words=50))
    assert np.diff(matrix.indptr).tolist() == [len("a b c d e") - 4, 1]


def test_recall_is_binned_by_similarity_against_theory():
    similarity = np.array([0.5, 0.6, 0.8, 0.84, 1.0])
    found = np.array([False, True, True, False, True])
    bins = truth.recall_bins(similarity, found, bands=14, rows=8)
    assert [(one.low, one.pairs, one.found) for one in bins if one.pairs] == [
        (0.5, 1, 0),
        (0.6, 1, 1),
        (0.8, 2, 1),
        (0.95, 1, 1),
    ]
    theory = [1 - (1 - value**8) ** 14 for value in (0.8, 0.84)]
    assert bins[6].expected == pytest.approx(sum(theory))
    assert bins[-1].expected == 1.0


def test_keeper_takes_its_own_neighbours_and_no_chain():
    # 0~1~2 and 3~4: 2 is like 1, which left; so 2 stays.
    first, second = np.array([1, 0, 3]), np.array([2, 1, 4])
    assert truth.keepers(5, first, second).tolist() == [0, 0, 2, 3, 3]
    labels = truth.components(5, first, second)
    assert labels[0] == labels[2]
    assert truth.largest_cluster(labels) == 3


def test_keeper_that_leaves_hands_on_to_its_own():
    assert truth.final_keepers(["a", "b", "c", "d"], {"c": "b", "b": "a"}).tolist() == [0, 0, 0, 3]


def test_agreement_is_b_cubed_and_adjusted_rand():
    # Bagga and Baldwin's measure by hand: clusters {0, 1, 2} {3}, truth {0, 1} {2, 3}.
    predicted, true = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])
    found = truth.agreement(predicted, true)
    assert found.precision == pytest.approx((2 / 3 + 2 / 3 + 1 / 3 + 1) / 4)
    assert found.recall == pytest.approx((1 + 1 + 1 / 2 + 1 / 2) / 4)
    assert found.f1 == pytest.approx(2 * found.precision * found.recall / (found.precision + found.recall))
    assert found.ari == pytest.approx(0.0)


@pytest.mark.parametrize("seed", range(5))
def test_adjusted_rand_index_equals_that_of_scikit_learn(seed):
    predicted, true = np.random.default_rng(seed).integers(0, 4, (2, 30))
    assert truth.agreement(predicted, true).ari == pytest.approx(adjusted_rand_score(true, predicted))


def test_singletons_agree_completely():
    found = truth.agreement(np.arange(4), np.arange(4))
    assert (found.f1, found.ari) == (1.0, 1.0)


def test_wrongful_removal_is_one_whose_keeper_is_unlike_it():
    matrix = truth.shingle_matrix(TEXTS, SHAPE)
    kept = np.array([0, 0, 1, 3, 4, 4, 6])
    assert truth.wrongful_removals(matrix, kept, 0.55) == 2
    assert truth.wrongful_removals(matrix, kept, 0.5) == 1


def test_removals_without_keepers_are_judged_by_what_they_resemble():
    gone = np.array([False, True, True, False, False])
    unlike, left = truth.removal_quality(5, np.array([0, 3]), np.array([1, 4]), gone)
    assert (unlike, left) == (1, 1)


def test_respelled_text_is_equal_once_normalized():
    text = "Straße nach Ōsaka, 3 km – café 오늘 날씨"
    changed = respell(text, "", np.random.default_rng(3))
    assert changed != text
    assert normalized(changed) == normalized(text)


@pytest.mark.parametrize(("kind", "changes"), [("words 1 %", 1), ("words 5 %", 5), ("words 30 %", 30)])
def test_words_edited_are_the_share_asked_for(kind, changes):
    text = prose(0, 100)
    edited = EDITS[kind](text, "new", np.random.default_rng(1)).split()
    dropped = set(text.split()) - set(edited)
    assert len(dropped) + edited.count("new") >= changes
    assert len(dropped) <= changes
    assert edited.count("new") <= changes


def test_one_number_changes_and_no_word():
    text = "build 7 of 12 finished"
    edited = renumber(text, "", np.random.default_rng(1))
    assert edited != text
    assert re.sub(r"\d+", "#", edited) == "build # of # finished"


def test_truncated_text_is_a_beginning():
    text = prose(0, 100)
    cut = truncate(text, "", np.random.default_rng(1))
    assert text.startswith(cut)
    assert 50 <= len(cut.split()) <= 98


def test_chain_ends_are_less_alike_than_its_links():
    texts = [prose(number, 80) for number in range(3)]
    windows = chain(texts, "", np.random.default_rng(1))
    # 240 words: windows of 200 are 196 shingles, moved by 16.
    matrix = truth.shingle_matrix(pl.Series(windows), SHAPE)
    measured = truth.jaccard(matrix, np.array([0, 1, 0]), np.array([1, 2, 2]))
    assert measured.tolist() == pytest.approx([180 / 212, 180 / 212, 164 / 228])


@pytest.fixture(scope="module")
def planted() -> pl.DataFrame:
    plain = [prose(number, 100) for number in range(200)]
    korean = [
        " ".join(
            "".join(chr(0xAC00 + (number * 97 + at * 31 + part * 7) % 11_172) for part in range(3)) for at in range(40)
        )
        for number in range(12)
    ]
    return plant(pl.Series([*plain, *korean]), pl.Series([LICENCE]), np.random.default_rng(1), per_kind=2)


def test_every_kind_is_planted(planted):
    counts = dict(planted["kind"].value_counts().iter_rows())
    assert {kind: counts[kind] for kind in (*EDITS, *CJK_EDITS)} == dict.fromkeys((*EDITS, *CJK_EDITS), 2)
    assert {kind: counts[kind] for kind in LOOK_ALIKES} == dict.fromkeys(LOOK_ALIKES, 6)
    assert counts["original"] == 2 * (len(EDITS) + len(CJK_EDITS))
    assert planted["id"].n_unique() == len(planted)


def test_kinds_are_as_similar_as_their_names_say(planted):
    matrix = truth.shingle_matrix(planted["text"], SHAPE)
    rows = planted.with_row_index("row")
    similarity = {}
    for kind in (*EDITS, *CJK_EDITS, *LOOK_ALIKES):
        families = rows.filter(pl.col("family").is_in(rows.filter(pl.col("kind") == kind)["family"].implode()))
        pairs = families.join(families, on="family").filter(pl.col("row") < pl.col("row_right"))
        ends = [pairs[name].to_numpy().astype(np.int64) for name in ("row", "row_right")]
        similarity[kind] = truth.jaccard(matrix, *ends)
    for kind in ("exact", "respelled", "CJK respelled"):
        assert similarity[kind].tolist() == [1.0, 1.0], kind
    # One word of 100 is in at most five of the 96 shingles.
    assert similarity["words 1 %"].min() >= 91 / 101
    assert similarity["one number"].min() >= 91 / 101
    assert similarity["one number"].max() < 1
    for kind in ("words 30 %", "same boilerplate", "same licence", "same template"):
        assert similarity[kind].max() < 0.8, kind


def test_planting_repeats_under_one_seed():
    texts = pl.Series([prose(number, 100) for number in range(60)])
    one, other = (plant(texts, pl.Series([LICENCE]), np.random.default_rng(7), per_kind=2) for _ in range(2))
    assert one.equals(other)


def test_decomposed_korean_is_other_bytes_of_the_same_text():
    text = "오늘 날씨가 좋습니다"
    changed = CJK_EDITS["CJK respelled"](text, "", np.random.default_rng(1))
    assert len(changed) > len(text)
    assert unicodedata.normalize("NFC", re.sub(r"\s+", " ", changed)) == text


def test_theory_is_the_curve():
    assert truth.candidate_probabilities(np.array([0.8]), bands=14, rows=8)[0] == pytest.approx(
        1 - math.pow(1 - 0.8**8, 14)
    )
