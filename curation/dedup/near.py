"""Near-duplicates: MinHash finds candidates, exact Jaccard decides."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from curation.dedup.banding import allowed_differences, candidate_pairs
from curation.dedup.cluster import assign_keepers
from curation.dedup.config import NearConfig
from curation.dedup.keeper import keeper_order
from curation.dedup.minhash import band_hashes
from curation.dedup.verify import verified

METHOD = "minhash/2"
"""Method and version stored beside every pair; raise the number when the same input gives other pairs."""

PAIR_SCHEMA = {
    "record_id": pl.String,
    "keeper_id": pl.String,
    "jaccard": pl.Float64,
    "bands_shared": pl.Int64,
    "accepted": pl.Boolean,
}


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
    ids: pl.Series,
    texts: pl.Series,
    quality: pl.Series | None,
    config: NearConfig,
    *,
    threads: int = 1,
    hot: np.ndarray | None = None,
    scope: np.ndarray | None = None,
    within: bool = True,
) -> NearDuplicates:
    """Find records that leave because a better record's shingles are the same up to the threshold.

    Remove exact duplicates first: thousands of equal texts make one hot bucket. The result depends on neither the
    order of the rows nor the number of threads. Deduplicating what remains finds nothing more, as long as no bucket
    is larger than ``max_bucket``.

    Parameters
    ----------
    ids : n distinct record ids.
    texts : n texts as they are; they are normalized here.
    quality : n numbers, higher is kept first, or None; ties go to the longer text, then the smaller id. A record of
        infinite quality is a reference: it never leaves, and others leave because of it.
    config : threshold, banding, shingles.
    threads : at most so many cores are used.
    hot : sorted band hashes of the buckets that are larger than ``max_bucket`` in the whole of which these records are
        a part; see ``candidate_pairs``.
    scope : (n,) uint64; only records of one scope are compared. None: all are.
    within : whether records that are no references remove each other.

    Raises
    ------
    DataError : an id stands twice, or a text is null.

    References
    ----------
    Broder (1997), On the resemblance and containment of documents; Penedo et al. (2024), The FineWeb Datasets,
    section 3.4. Unlike FineWeb, candidates are verified and clusters are not transitive.
    """
    order = keeper_order(ids, texts.str.len_chars(), quality)
    ranked = texts.gather(order["row"])
    hashes, sketches = band_hashes(
        ranked, config, bands=config.bands, rows=config.rows, seed=config.seed, threads=threads
    )
    if scope is not None:
        hashes ^= scope[order["row"].to_numpy(), None]
    allowed = allowed_differences(config.threshold, config.num_perm)
    first, second, bands_shared = candidate_pairs(
        hashes, sketches, max_bucket=config.max_bucket, allowed=allowed, hot=hot
    )
    num_fixed = 0 if quality is None else int((quality == np.inf).sum())
    useful = (second >= num_fixed) & (within | (first < num_fixed))
    first, second, bands_shared = first[useful], second[useful], bands_shared[useful]
    similarity = verified(ranked, first, second, config, threads=threads)
    similar = similarity >= config.threshold
    keepers = assign_keepers(len(ids), first[similar], second[similar], num_fixed=num_fixed)
    ranked_ids = order["id"]
    # Numbers are sorted rather than the names that they become: a frame of names is ten times as large.
    place = ranked_ids.rank("ordinal").to_numpy()
    by_name = np.lexsort((place[first], place[second]))
    first, second, bands_shared = first[by_name], second[by_name], bands_shared[by_name]
    similarity, similar = similarity[by_name], similar[by_name]
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
    return NearDuplicates(pairs, len(first))
