"""Deduplication: exact decisions, direct keepers, the same answer for any order."""

import random

import numpy as np
import polars as pl
import pytest
import xxhash
from datasketch import MinHash
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from scipy.stats import binom

from catalog.errors import ConfigError, DataError
from curation.dedup.banding import allowed_differences, candidate_pairs
from curation.dedup.characters import DROP, HARD, KIND_SHIFT, POINT, table
from curation.dedup.cluster import assign_keepers
from curation.dedup.config import PRESETS, NearConfig
from curation.dedup.exact import exact_hash, find_exact_duplicates
from curation.dedup.kernels import settle_roots, unite
from curation.dedup.minhash import band_hashes, signatures
from curation.dedup.near import find_near_duplicates
from curation.dedup.normalize import normalize
from curation.dedup.rows import portions
from curation.dedup.shingles import ShingleConfig, shingle
from curation.dedup.verify import jaccard
from curation.tokens import Ragged, hash_tokens, offsets_of

WORDS = [f"w{number}" for number in range(3_000)]
KOREAN = "지난 주말에 가족과 함께 다녀온 숙소는 지하철역에서 걸어서 십 분 거리였고 호스트분들이 정말 친절하셨습니다"
CHINESE = "今天天气很好，我们一家人去公园散步，看到了很多漂亮的花，孩子们玩得非常开心，晚上一起吃了火锅"
THAI = "วันนี้อากาศดีมากครอบครัวของเราไปเดินเล่นที่สวนสาธารณะและเด็กๆสนุกกันมาก"


def near(texts: dict[str, str], quality: list[float] | None = None, **config):
    series = None if quality is None else pl.Series(quality, dtype=pl.Float64)
    return find_near_duplicates(pl.Series(list(texts)), pl.Series(list(texts.values())), series, NearConfig(**config))


def removed(found) -> dict[str, str]:
    accepted = found.pairs.filter("accepted")
    return dict(zip(accepted["record_id"], accepted["keeper_id"], strict=True))


def prose(seed: int, number: int) -> list[str]:
    return random.Random(seed).choices(WORDS, k=number)


def edited(words: list[str], seed: int, number: int) -> list[str]:
    rng = random.Random(seed)
    changed = list(words)
    for position in rng.sample(range(len(words)), number):
        changed[position] = f"edit{rng.random()}"
    return changed


def ragged(*sets: set[int]) -> Ragged:
    rows = [sorted(one) for one in sets]
    values = np.array([value for row in rows for value in row], dtype=np.uint64)
    return Ragged(values, offsets_of(np.array([len(row) for row in rows])))


def normalized(*texts: str) -> list[str]:
    return pl.DataFrame({"text": texts}, schema={"text": pl.String}).select(normalize(pl.col("text")))["text"].to_list()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Ｈello\u3000 World\n", "hello world"),
        ("STRASSE", "straße"),
        ("ΟΔΟΣ", "οδος"),
        ("한글", "한글"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
        ("① ﬁne", "1 fine"),
        ("㎒™", "mhztm"),
    ],
)
def test_spelling_variants_normalize_to_the_same_text(one, other):
    assert normalized(one) == normalized(other)
    assert exact_hash(pl.Series([one]))[0] == exact_hash(pl.Series([other]))[0]


def test_digits_and_punctuation_stay():
    assert normalized("Order 12!") == ["order 12!"]
    assert exact_hash(pl.Series(["order 12", "order 13"])).n_unique() == 2


@given(st.text())
def test_normalizing_twice_changes_nothing(text):
    (once,) = normalized(text)
    assert normalized(once) == [once]


def test_shingles_are_sorted_unique_and_never_empty():
    texts = pl.Series(["", "ab", "abcde", "👍🏽", KOREAN, CHINESE, THAI, " ".join(prose(1, 200)), "a a a a a a " * 20])
    sets = shingle(texts, ShingleConfig())
    assert sets.lengths.min() >= 1
    for row in range(len(sets)):
        values = sets.values[sets.offsets[row] : sets.offsets[row + 1]]
        assert (values[1:] > values[:-1]).all()
    assert sets.lengths[:3].tolist() == [1, 1, 1]
    assert sets.lengths[7] == 196


def test_shingles_of_a_text_do_not_depend_on_the_others():
    texts = ["short one", KOREAN, " ".join(prose(2, 80)), "", CHINESE * 5]
    together = shingle(pl.Series(texts), ShingleConfig())
    for row, text in enumerate(texts):
        alone = shingle(pl.Series([text]), ShingleConfig())
        assert together.values[together.offsets[row] : together.offsets[row + 1]].tolist() == alone.values.tolist()


def test_word_shingles_are_the_word_5_grams_of_the_text():
    words = prose(3, 60)
    (number,) = shingle(pl.Series([" ".join(words)]), ShingleConfig()).lengths
    assert number == len({tuple(words[start : start + 5]) for start in range(56)})


def test_long_text_without_spaces_is_shingled_by_character():
    text = CHINESE + "另一天下雨了，我们留在家里看书、喝茶、聊天"
    assert shingle(pl.Series([text]), ShingleConfig()).lengths.tolist() == [
        len({text[at : at + 5] for at in range(len(text) - 4)})
    ]


def test_scripts_without_spaces_are_tokenized_by_character():
    assert hash_tokens(pl.Series(["今天 ok", "안녕 하세요", "สวย", "!?"])).lengths.tolist() == [3, 2, 3, 0]


@given(texts=st.lists(st.text(), min_size=1, max_size=4), fold_digits=st.booleans())
@example(texts=["ＡＢＣ ﬁne 가 e\u0301 \u1100\u1161\u11a8 ｶﾞ İ ẞ ΟΔΟΣ x\u200by \x01 \ud7a3\U00010400"], fold_digits=True)
def test_kernels_read_the_characters_that_normalize_makes(texts, fold_digits):
    shape = ShingleConfig(fold_digits=fold_digits, min_words=1)
    given_texts = pl.Series(texts)
    plain = pl.Series(normalized(*texts))
    raw, once = shingle(given_texts, shape), shingle(plain, shape)
    assert raw.values.tolist() == once.values.tolist()
    assert raw.offsets.tolist() == once.offsets.tolist()
    assert exact_hash(given_texts).to_list() == [xxhash.xxh3_128_hexdigest(text.encode()) for text in plain]


def test_table_folds_every_standalone_character_as_normalize_does():
    entries = table()
    easy = [point for point in range(0x110000) if not entries[point] & HARD]
    assert len(easy) > 120_000
    framed = "\x01".join(["", *map(chr, easy), ""])
    (folded,) = normalized(framed)
    made = ["" if entries[point] >> KIND_SHIFT == DROP else chr(entries[point] & POINT) for point in easy]
    assert "\x01".join(["", *made, ""]) == folded


def test_kinds_are_the_tokens_that_are_counted_elsewhere():
    texts = ["Ünïcode wörds, 12 of_them!", KOREAN, CHINESE, THAI, "ひらがなカタカナー混ぜ", "👍🏽 done", "a\u0301b ﬁ"]
    for text in normalized(*texts):
        (number,) = hash_tokens(pl.Series([text])).lengths
        shape = ShingleConfig(word_ngram=1, min_words=1)
        (shingles,) = shingle(pl.Series([text]), shape).lengths
        unspaced = sum(table()[ord(character)] >> KIND_SHIFT == 2 for character in text)
        assert shingles <= number if not unspaced else shingles > 1


def test_digits_are_folded_only_when_asked():
    texts = pl.Series(["order 12 of 34 came too late ٣", "order 77 of 90 came too late ٤"])
    kept, folded = (shingle(texts, ShingleConfig(fold_digits=one)) for one in (False, True))
    assert jaccard(kept, np.array([0]), np.array([1]))[0] < 1
    assert jaccard(folded, np.array([0]), np.array([1]))[0] == 1


def test_signatures_are_datasketchs_own():
    texts = pl.Series([" ".join(prose(11, 300)), KOREAN, "👍", ""])
    sets = shingle(texts, ShingleConfig())
    for threads in (1, 2):
        signed = signatures(texts, ShingleConfig(), num_perm=24, seed=9, threads=threads)
        for row in range(len(texts)):
            reference = MinHash(num_perm=24, seed=9, hashfunc=int)
            halves = sets.values[sets.offsets[row] : sets.offsets[row + 1]] >> np.uint64(32)
            reference.update_batch(halves.tolist())
            assert signed[row].tolist() == reference.hashvalues.tolist()
    assert not np.array_equal(signed, signatures(texts, ShingleConfig(), num_perm=24, seed=10))


def test_result_does_not_depend_on_threads():
    texts = pl.Series([" ".join(prose(number, 400)) + " é" + "e\u0301" * (number % 2) for number in range(300)])
    one, three = (band_hashes(texts, ShingleConfig(), bands=14, rows=8, seed=1, threads=threads) for threads in (1, 3))
    assert np.array_equal(one[0], three[0])
    assert np.array_equal(one[1], three[1])
    sets = [shingle(texts, ShingleConfig(), threads=threads) for threads in (1, 3)]
    assert np.array_equal(sets[0].values, sets[1].values)
    assert exact_hash(texts, threads=3).equals(exact_hash(texts))


def test_slice_of_a_column_is_read_from_its_own_beginning():
    texts = pl.Series(["first text of all", "second text which is it", "third and last of them"])
    for cut in (texts.slice(1), texts.slice(1, 1), texts.slice(3)):
        alone = pl.Series(cut.to_list(), dtype=pl.String)
        assert shingle(cut, ShingleConfig()).values.tolist() == shingle(alone, ShingleConfig()).values.tolist()
        assert exact_hash(cut).equals(exact_hash(alone))


def test_null_text_is_refused():
    with pytest.raises(DataError, match="1 of 2 texts"):
        shingle(pl.Series(["a", None]), ShingleConfig())


@given(st.integers(0, 2**32), st.floats(0.05, 0.95))
def test_minhash_estimate_tracks_exact_jaccard(seed, share):
    words, cut = prose(seed, 400), int(200 * share)
    texts = pl.Series([" ".join(words[:200]), " ".join(words[200 - cut : 400 - cut])])
    exact = jaccard(shingle(texts, ShingleConfig()), np.array([0]), np.array([1]))[0]
    signed = signatures(texts, ShingleConfig(), num_perm=512, seed=1)
    # Standard error of 512 permutations is at most 0.0221; five of them, for many examples.
    assert abs((signed[0] == signed[1]).mean() - exact) < 0.11


@given(st.lists(st.sets(st.integers(0, 30), min_size=1), min_size=2, max_size=8))
def test_jaccard_is_exact(sets):
    first, second = np.triu_indices(len(sets), 1)
    expected = [len(sets[i] & sets[j]) / len(sets[i] | sets[j]) for i, j in zip(first, second, strict=True)]
    assert jaccard(ragged(*sets), first, second).tolist() == expected


ANY = 128


def pairs_of(hashes: np.ndarray, sketches: np.ndarray | None = None, **options) -> dict[tuple[int, int], int]:
    sketches = np.zeros((len(hashes), 2), dtype=np.uint64) if sketches is None else sketches
    first, second, shared = candidate_pairs(hashes, sketches, **{"max_bucket": 100, "allowed": ANY} | options)
    assert list(zip(first, second, strict=True)) == sorted(zip(first, second, strict=True))
    return dict(zip(zip(first.tolist(), second.tolist(), strict=True), shared.tolist(), strict=True))


def test_candidates_are_the_pairs_that_share_a_band():
    hashes = np.random.default_rng(3).integers(4, size=(40, 3)).astype(np.uint64)
    assert pairs_of(hashes) == {
        (i, j): int((hashes[i] == hashes[j]).sum())
        for i in range(40)
        for j in range(i + 1, 40)
        if (hashes[i] == hashes[j]).any()
    }


def test_pairs_with_unlike_sketches_are_not_candidates():
    sketches = np.array([[0, 0], [0b111, 0], [0, 2**63]], dtype=np.uint64)
    same = np.zeros((3, 2), dtype=np.uint64)
    assert pairs_of(same, sketches, allowed=3) == {(0, 1): 2, (0, 2): 2}
    assert pairs_of(same, sketches, allowed=4) == {(0, 1): 2, (0, 2): 2, (1, 2): 2}


def test_hot_bucket_pairs_everyone_with_the_best_behind_the_same_leader():
    sketches = np.zeros((50, 2), dtype=np.uint64)
    sketches[1::2] = 2**64 - 1
    found = pairs_of(np.zeros((50, 2), dtype=np.uint64), sketches, max_bucket=10, allowed=5)
    assert found == {(number % 2, number): 2 for number in range(2, 50)}


@given(st.integers(0, 1000), st.integers(2, 12))
def test_connected_parts_give_their_pairs_by_themselves(seed, max_bucket):
    rng = np.random.default_rng(seed)
    hashes = rng.integers(3, size=(30, 2)).astype(np.uint64) + np.array([0, 10], dtype=np.uint64)
    sketches = rng.integers(4, size=(30, 2)).astype(np.uint64)
    whole = pairs_of(hashes, sketches, max_bucket=max_bucket, allowed=1)
    values, counts = np.unique(hashes, return_counts=True)
    hot = values[counts > max_bucket]
    parents = np.arange(30)
    unite(parents, *(np.array([pair[side] for pair in whole], dtype=np.int64) for side in (0, 1)))
    settle_roots(parents)
    for root in set(parents.tolist()):
        part = np.flatnonzero(parents == root)
        alone = pairs_of(hashes[part], sketches[part], max_bucket=max_bucket, allowed=1, hot=hot)
        named = {(int(part[one]), int(part[other])): shared for (one, other), shared in alone.items()}
        assert named == {pair: shared for pair, shared in whole.items() if parents[pair[0]] == root}


@pytest.mark.parametrize("num_perm", [24, 112, 260])
def test_sketch_check_lets_pairs_at_the_threshold_pass(num_perm):
    agree = 0.9
    places = min(num_perm, 128)
    misses = binom.sf(allowed_differences(0.8, num_perm), places, 1 - agree)
    assert misses < 1e-3
    assert allowed_differences(0.8, num_perm) < places * 0.4


def test_bands_agree_exactly_when_their_rows_do():
    words = prose(12, 100)
    texts = pl.Series([" ".join(words), " ".join(edited(words, 1, 2)), " ".join(prose(13, 100))])
    signed = signatures(texts, ShingleConfig(), num_perm=60, seed=1).reshape(3, 20, 3)
    hashes, sketches = band_hashes(texts, ShingleConfig(), bands=20, rows=3, seed=1)
    bits = signed.reshape(3, 60) & 1
    assert sketches[:, 0].tolist() == [sum(int(bit) << place for place, bit in enumerate(row)) for row in bits]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (hashes[one] == hashes[other]).tolist() == (signed[one] == signed[other]).all(axis=1).tolist()
    assert np.unique(hashes[0]).size == 20


def test_chain_does_not_drag_its_far_end():
    words = prose(4, 200)
    texts = {
        "a": " ".join(words),
        "b": " ".join(edited(words, 1, 3)),
        "c": " ".join(edited(edited(words, 1, 3), 2, 3)),
    }
    found = near(texts, quality=[3.0, 2.0, 1.0])
    measured = {(row["record_id"], row["keeper_id"]): row["jaccard"] for row in found.pairs.to_dicts()}
    assert measured[("b", "a")] >= 0.8
    assert measured[("c", "b")] >= 0.8
    assert measured.get(("c", "a"), 0.0) < 0.8
    assert removed(found) == {"b": "a"}


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)).filter(lambda pair: pair[0] < pair[1]), unique=True))
def test_every_removed_record_was_verified_against_a_keeper_that_stays(pairs):
    pairs = sorted(pairs)
    first, second = (np.array([pair[side] for pair in pairs], dtype=np.int64) for side in (0, 1))
    keepers = assign_keepers(10, first, second)
    for record, keeper in enumerate(keepers.tolist()):
        assert keeper < 0 or ((keeper, record) in pairs and keepers[keeper] < 0)
    for one, other in pairs:
        assert keepers[one] >= 0 or keepers[other] >= 0


def test_korean_chinese_and_thai_near_duplicates_are_found():
    texts = {
        "ko": KOREAN,
        "ko2": KOREAN.replace("정말", "매우"),
        "zh": CHINESE,
        "zh2": CHINESE.replace("火锅", "面条"),
        "th": THAI,
        "th2": THAI + "ครับ",
        "other": "전혀 다른 이야기를 하는 문장이므로 아무것과도 비슷하지 않아야 합니다",
    }
    assert {frozenset(pair) for pair in removed(near(texts, threshold=0.7, bands=30, rows=4)).items()} == {
        frozenset({"ko", "ko2"}),
        frozenset({"zh", "zh2"}),
        frozenset({"th", "th2"}),
    }


def test_short_texts_do_not_collapse_into_one():
    assert removed(near({"a": "ok", "b": "no", "c": "👍", "d": "네", "e": "아니요"})) == {}


def test_recall_follows_the_banding_curve():
    base = [prose(100 + number, 120) for number in range(300)]
    texts = {f"o{number}": " ".join(words) for number, words in enumerate(base)}
    texts |= {f"e{number}": " ".join([*words[:-8], *prose(900 + number, 8)]) for number, words in enumerate(base)}
    found = near(texts)
    similar = found.pairs.filter(pl.col("jaccard") >= 0.8)
    # 108 of 124 shingles stay: J = 0.87, found with probability 1 - (1 - 0.87**8)**14 = 0.994.
    assert 290 <= similar.height <= 300
    assert found.num_candidates == found.pairs.height


def corpus(seed: int) -> dict[str, str]:
    rng = random.Random(seed)
    texts: dict[str, str] = {}
    for family in range(6):
        words = prose(seed * 100 + family, rng.choice([8, 60, 150]))
        for member in range(rng.randint(1, 4)):
            texts[f"{family}-{member}"] = " ".join(edited(words, rng.randint(0, 9), min(member, 3)))
    return texts


@given(st.integers(0, 10_000), st.randoms())
def test_result_does_not_depend_on_the_order_of_records(seed, rng):
    texts = corpus(seed)
    mixed = dict(rng.sample(list(texts.items()), len(texts)))
    assert near(texts).pairs.equals(near(mixed).pairs)


@given(st.integers(0, 10_000))
def test_deduplicating_twice_finds_nothing_more(seed):
    texts = corpus(seed)
    gone = removed(near(texts))
    assert removed(near({one: text for one, text in texts.items() if one not in gone})) == {}


def test_keeper_has_the_best_quality_then_length_then_smallest_id():
    text = " ".join(prose(5, 100))
    texts = {"c": text, "a": text, "b": text + "!!"}
    assert removed(near(texts)) == {"a": "b", "c": "b"}
    assert removed(near(texts, quality=[0.0, 1.0, 0.0])) == {"b": "a", "c": "a"}
    assert removed(near({"c": text, "a": text})) == {"c": "a"}


def test_measured_pairs_below_the_threshold_are_reported_and_not_accepted():
    words = prose(6, 200)
    found = near({"a": " ".join(words), "b": " ".join(edited(words, 1, 2))}, threshold=0.95, rows=4)
    assert found.pairs["accepted"].to_list() == [False]
    assert 0.85 < found.pairs["jaccard"][0] < 0.95


def test_nothing_and_one_record_have_no_pairs():
    empty = pl.Series([], dtype=pl.String)
    assert find_near_duplicates(empty, empty, None, NearConfig()).pairs.height == 0
    assert near({"a": "one"}).pairs.height == 0


def test_exact_duplicates_share_the_keeper_rule():
    ids, hashes = pl.Series(["r3", "r1", "r2", "r4"]), pl.Series(["x", "x", "x", "y"])
    length = pl.Series([5, 5, 5, 5])
    assert find_exact_duplicates(ids, hashes, length=length).rows() == [("r2", "r1"), ("r3", "r1")]
    quality = pl.Series([0.0, 0.0, 1.0, 0.0])
    assert find_exact_duplicates(ids, hashes, length=length, quality=quality).rows() == [("r1", "r2"), ("r3", "r2")]


def test_record_id_that_stands_twice_is_refused():
    with pytest.raises(DataError, match="r1"):
        find_exact_duplicates(pl.Series(["r1", "r1"]), pl.Series(["x", "y"]), length=pl.Series([1, 1]))


@pytest.mark.parametrize(
    "given_value",
    [
        {"threshold": 0},
        {"threshold": 1.3},
        {"threshold": "0.8"},
        {"bands": 0},
        {"rows": 2.5},
        {"seed": -1},
        {"max_bucket": True},
        {"fold_digits": 1},
    ],
)
def test_config_out_of_range_is_refused(given_value):
    with pytest.raises(ConfigError, match=next(iter(given_value))):
        NearConfig(**given_value)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"bands": 200, "rows": 100}, "bands=10 works"),
        (
            {"bands": 8, "rows": 16, "recall": 0.95},
            "find 0.204 of pairs at threshold=0.8; bands=67, rows=14 find enough",
        ),
        ({"recall": 1.0}, "between 0 and 1"),
        ({"rows": 100, "recall": 0.95}, "out of reach"),
        ({"preset": "fine-web"}, "fineweb"),
        ({"preset": "fineweb", "bands": 3}, "leave those out"),
        ({"treshold": 0.8}, "threshold"),
    ],
)
def test_parameters_that_cannot_work_are_refused_with_what_does(wanted, message):
    with pytest.raises(ConfigError, match=message):
        NearConfig.configured(wanted)


def test_presets_and_recall_targets_choose_the_banding():
    assert {name: (one.bands, one.rows) for name in PRESETS for one in [NearConfig.configured({"preset": name})]} == (
        dict(PRESETS)
    )
    chosen = NearConfig.configured({"threshold": 0.7, "recall": 0.99})
    assert chosen.recall(0.7) >= 0.99
    assert chosen.num_perm <= 256


def test_texts_are_shingled_and_signed_alike_however_much_is_taken_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = pl.Series([f"{'한국어 문장 ' * (n % 5)}line {n} of some words ﬁne" * (n % 7 + 1) for n in range(60)])
    config = NearConfig()
    whole = shingle(texts, config), band_hashes(texts, config, bands=14, rows=8, seed=1)
    for size in (1, 100, 1000):
        monkeypatch.setattr("curation.dedup.rows.PORTION_BYTES", size)
        assert portions(texts)[-1][1] == len(texts)
        assert (len(portions(texts)) == len(texts)) == (size == 1)
        parts = shingle(texts, config), band_hashes(texts, config, bands=14, rows=8, seed=1)
        assert_array_equal(parts[0].values, whole[0].values)
        assert_array_equal(parts[0].offsets, whole[0].offsets)
        assert_array_equal(parts[1][0], whole[1][0])
        assert_array_equal(parts[1][1], whole[1][1])
