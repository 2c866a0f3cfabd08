"""New records matched against an index give what everything at once gives."""

import random
from dataclasses import replace
from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from curation.dedup.config import NearConfig
from curation.dedup.exact import exact_hash, find_exact_duplicates
from curation.dedup.index import Index, Links, Segment, merged_better, merged_parts, pack, to_merge, unpack
from curation.dedup.near import find_near_duplicates
from curation.dedup.stages import exact_pairs, follow, near_pairs
from curation.dedup.update import Old, Update, left_alone, match
from tests.workers.corpus import sentences

NOTHING = Links.between([])
EMPTY = Segment(
    first_row=0,
    num_rows=0,
    bands=[],
    exact=[],
    better=(np.empty(0, np.uint64), np.empty(0, np.uint32)),
    sketches=[(0, np.empty((0, 2), np.uint64))],
    measured=[NOTHING],
    similar=[NOTHING],
    hot=np.empty(0, np.uint64),
)


def corpus(seed: int) -> pl.DataFrame:
    """Sentences, chains, texts of one form (buckets of them grow hot, and their leaders change), equal ones of all."""
    rng = random.Random(seed)
    texts = [one["body"] for one in sentences(80, seed)]
    for chain in range(8):
        words = [f"link{chain}{number}" for number in range(24)]
        for place in range(0, 20, 3):
            words[place] = f"moved{place}"
            texts.append(" ".join(words))
    for _ in range(80):
        words = [f"word{number}" for number in range(22)]
        for _ in range(rng.randint(0, 5)):
            words[rng.randrange(len(words))] = f"{rng.choice('xyz')}{rng.randrange(4)}"
        texts.append(" ".join(words))
    for text in rng.choices(texts, k=50):
        texts.append(rng.choice([text, text.upper()]) + " " * rng.randint(0, 2))
    rng.shuffle(texts)
    ids = [f"{rng.random():.9f}" for _ in texts]
    return pl.DataFrame({"row": np.arange(len(texts), dtype=np.uint32), "id": ids, "text": texts})


def at_once(records: pl.DataFrame, config: NearConfig) -> pl.DataFrame:
    lengths = records["text"].str.len_chars()
    gone = find_exact_duplicates(records["id"], exact_hash(records["text"]), length=lengths)
    left = records.filter(~pl.col("id").is_in(gone["record_id"].implode()))
    near = find_near_duplicates(left["id"], left["text"], None, config).pairs
    return follow(exact_pairs(gone), near_pairs(near)).sort("record_id", "keeper_id")


def merged(segments: list[Segment], num_parts: int) -> Segment:
    """As one, in several parts."""
    return Segment(
        first_row=segments[0].first_row,
        num_rows=sum(one.num_rows for one in segments),
        bands=list(merged_parts([one.bands for one in segments], num_parts)),
        exact=list(merged_parts([one.exact for one in segments], num_parts)),
        better=merged_better([one.better for one in segments]),
        sketches=[part for one in segments for part in one.sketches],
        measured=[Links.between([(part.roots, part.members) for one in segments for part in one.measured])],
        similar=[Links.between([(part.roots, part.members) for one in segments for part in one.similar])],
        hot=np.unique(np.concatenate([one.hot for one in segments])),
    )


class Kept:
    """What an engine would store between updates."""

    def __init__(self, records: pl.DataFrame, config: NearConfig) -> None:
        self.records, self.config = records, config
        self.segments = [EMPTY]
        self.measured: list[pl.DataFrame] = []
        self.left: dict[str, dict[str, object]] = {}

    def add(self, start: int, end: int) -> Update:
        schema = at_once(self.records.head(2), self.config).schema
        old = Old(
            texts=lambda rows: self.records[rows.astype(np.int64)],
            ids=lambda rows: self.records[rows.astype(np.int64)].select("row", "id"),
            left=lambda ids: pl.DataFrame([self.left[one] for one in ids if one in self.left], schema=schema),
        )
        found = match(self.records[start:end].select("id", "text"), Index(self.segments), old, self.config)
        threshold = self.config.threshold
        self.measured = [left_alone(pairs, found.void, threshold) for pairs in self.measured] + [found.pairs]
        for record in found.changed["id"]:
            self.left.pop(record, None)
        for pair in found.decided.to_dicts():
            assert pair["record_id"] not in self.left
            self.left[pair["record_id"]] = pair
        self.segments.append(found.segment)
        return found


@pytest.mark.parametrize("seed", range(20))
def test_updates_in_any_pieces_give_the_pairs_of_one_batch(seed: int) -> None:
    rng = random.Random(seed)
    records = corpus(seed)
    # Short bands and a high threshold: buckets whose members are not all alike.
    threshold, bands, rows = rng.choice([(0.5, 20, 3), (0.6, 20, 3), (0.8, 20, 3), (0.85, 50, 2), (0.85, 50, 2)])
    config = NearConfig(
        threshold=threshold, bands=bands, rows=rows, min_words=5, max_bucket=rng.choice([4, 12, 30, 500])
    )
    kept = Kept(records, config)
    cuts = [0, *sorted(rng.sample(range(1, records.height), 4)), records.height]
    for start, end in pairwise(cuts):
        kept.add(start, end)
        if rng.random() < 0.5:
            kept.segments[-2:] = [merged(kept.segments[-2:], rng.choice([1, 3]))]
    batch = at_once(records, config)
    assert pl.concat(kept.measured).sort("record_id", "keeper_id").equals(batch)
    accepted = batch.filter("accepted").to_dicts()
    assert sorted(kept.left.values(), key=lambda pair: str(pair["record_id"])) == accepted
    assert len(accepted) > 30


def test_an_update_reads_little_of_what_does_not_concern_it() -> None:
    config = NearConfig(threshold=0.8, min_words=5)
    texts = [f"{one['body']} {number}" for number, one in enumerate(sentences(600, seed=3))]
    ids = [f"{number:04}" for number in range(len(texts))]
    records = pl.DataFrame({"row": np.arange(len(texts), dtype=np.uint32), "id": ids, "text": texts})
    kept = Kept(records, config)
    kept.add(0, 590)
    assert kept.add(590, 600).num_read < 20


def test_small_segments_are_merged_and_large_ones_left() -> None:
    assert [to_merge(sizes) for sizes in ([], [5], [100, 1], [100, 1, 1], [100, 2, 1], [100, 2, 1, 1], [3, 2])] == [
        0,
        0,
        0,
        2,
        0,
        3,
        2,
    ]


def test_packed_arrays_come_back_with_their_types() -> None:
    arrays = {"a": np.arange(3, dtype=np.uint64) + 2**63, "b": np.empty(0, np.uint32)}
    found = unpack(pack(arrays))
    assert {name: (values.dtype, values.tolist()) for name, values in found.items()} == {
        name: (values.dtype, values.tolist()) for name, values in arrays.items()
    }


def test_links_in_parts_connect_what_they_connect_at_once() -> None:
    rng = np.random.default_rng(1)
    pairs = [(part * 100 + rng.integers(0, 100, 30), part * 100 + rng.integers(0, 100, 30)) for part in (2, 0, 1)]
    apart = Index([replace(EMPTY, similar=[Links.between([one]) for one in pairs])])
    at_once = Index([replace(EMPTY, similar=[Links.between(pairs)])])
    for asked in ([205], [3, 299], list(range(300))):
        found = apart.connected(np.array(asked), similar=True)
        assert found.tolist() == at_once.connected(np.array(asked), similar=True).tolist()
    assert len(apart.connected(pairs[0][0][:1], similar=True)) > 1
