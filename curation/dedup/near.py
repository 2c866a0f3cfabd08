"""Near-duplicates: MinHash finds candidates, exact Jaccard decides."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from curation.dedup.banding import band_hashes, candidate_pairs
from curation.dedup.cluster import assign_keepers
from curation.dedup.keeper import keeper_order
from curation.dedup.minhash import signatures
from curation.dedup.normalize import normalize
from curation.dedup.shingles import shingle
from curation.dedup.verify import jaccard

METHOD = "minhash/1"
"""Method and version stored beside every pair; raise the number when the same input gives other pairs."""

PAIR_SCHEMA = {
    "record_id": pl.String,
    "keeper_id": pl.String,
    "jaccard": pl.Float64,
    "bands_shared": pl.Int64,
    "accepted": pl.Boolean,
}


@dataclass(frozen=True, kw_only=True)
class NearConfig:
    """How near-duplicates are found.

    Parameters
    ----------
    threshold : exact Jaccard similarity of the shingle sets from which a record leaves, in (0, 1].
    bands, rows : shape of the banding; a pair of similarity s becomes a candidate with probability
        ``1 - (1 - s**rows)**bands``. 14 by 8 finds 92 % of pairs at 0.8 and 99.9 % at 0.9 (FineWeb's choice).
    word_ngram, char_ngram : shingle length, in words and in characters.
    min_words : texts with fewer words are compared by characters. One changed word breaks five word 5-grams, so a
        text of fewer than 50 words could never stay above 0.8.
    max_bucket : records in a bucket up to which all pairs are measured; above it, each against the best only.
    seed : of the permutations.
    """

    threshold: float = 0.8
    bands: int = 14
    rows: int = 8
    word_ngram: int = 5
    char_ngram: int = 5
    min_words: int = 50
    max_bucket: int = 1_000
    seed: int = 1

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        if isinstance(self.threshold, bool) or not 0 < self.threshold <= 1:
            raise ValueError(f"threshold={self.threshold} must lie in (0, 1]; 0.8 is usual")
        limits = {"bands": 256, "rows": 256, "word_ngram": 100, "char_ngram": 100, "min_words": 10**6}
        for name, highest in {**limits, "max_bucket": 10**6}.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= highest:
                raise ValueError(f"{name}={value!r} must be a whole number from 1 to {highest}")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < 2**32:
            raise ValueError(f"seed={self.seed!r} must be a whole number from 0 to {2**32 - 1}")


@dataclass(frozen=True)
class NearDuplicates:
    """What was measured.

    Parameters
    ----------
    pairs : every measured pair, sorted by (record_id, keeper_id): ``record_id`` str, ``keeper_id`` str (the better of
        the two), ``jaccard`` f64, ``bands_shared`` i64, ``accepted`` bool. Accepted means that the record leaves
        because of this keeper: at most one row a record. A pair at or above the threshold is not accepted when its
        record left to a better keeper, or its keeper left itself.
    num_candidates : number of pairs measured.
    """

    pairs: pl.DataFrame
    num_candidates: int


def find_near_duplicates(
    ids: pl.Series, texts: pl.Series, quality: pl.Series | None, config: NearConfig
) -> NearDuplicates:
    """Find records that leave because a better record's shingles are the same up to the threshold.

    Remove exact duplicates first: thousands of equal texts make one hot bucket. The result depends on neither the
    order of the rows nor the number of threads. Deduplicating what remains finds nothing more, as long as no bucket
    is larger than ``max_bucket``.

    Parameters
    ----------
    ids : n distinct record ids.
    texts : n texts as they are; they are normalized here.
    quality : n numbers, higher is kept first, or None; ties go to the longer text, then the smaller id.
    config : threshold, banding, shingles.

    Raises
    ------
    DataError : an id stands twice.

    References
    ----------
    Broder (1997), On the resemblance and containment of documents; Penedo et al. (2024), The FineWeb Datasets,
    section 3.4. Unlike FineWeb, candidates are verified and clusters are not transitive.
    """
    order = keeper_order(ids, texts.str.len_chars(), quality)
    ranked = texts.gather(order["row"]).alias("text").to_frame().select(normalize(pl.col("text")))["text"]
    shingles = shingle(ranked, word_ngram=config.word_ngram, char_ngram=config.char_ngram, min_words=config.min_words)
    signed = signatures(shingles, num_perm=config.bands * config.rows, seed=config.seed)
    hashes = band_hashes(signed, bands=config.bands, rows=config.rows)
    first, second, bands_shared = candidate_pairs(hashes, max_bucket=config.max_bucket)
    similarity = jaccard(shingles, first, second)
    similar = similarity >= config.threshold
    keepers = assign_keepers(len(ids), first[similar], second[similar])
    ranked_ids = order["id"]
    pairs = pl.DataFrame(
        {
            "record_id": ranked_ids.gather(second),
            "keeper_id": ranked_ids.gather(first),
            "jaccard": similarity,
            "bands_shared": bands_shared.astype(np.int64),
            "accepted": similar & (keepers[second] == first),
        },
        schema=PAIR_SCHEMA,
    )
    return NearDuplicates(pairs.sort("record_id", "keeper_id"), len(first))
