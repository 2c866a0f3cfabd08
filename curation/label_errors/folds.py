"""Folds for out-of-fold probabilities: near-duplicates stay together, so that none vouches for another's label."""

import numpy as np
import polars as pl

from curation.dedup.config import NearConfig
from curation.dedup.exact import exact_hash
from curation.dedup.near import find_near_duplicates

SIMILARITY = 0.6
"""Jaccard similarity from which two texts count as copies. Below what deduplication removes (0.8): after it, pairs
between the two are left, and each would tell the classifier the other's label."""
BANDS, ROWS = 28, 5
"""Finds 91 % of pairs at 0.6 and 99.9 % at 0.8 (S-curve of the banding)."""


def duplicate_groups(texts: pl.Series, *, threads: int = 1) -> np.ndarray:
    """Number the connected components of exact and near duplicates.

    Components are transitive, unlike clusters that records leave by: here a chain that goes too far costs nothing but
    a fold of another size.

    Parameters
    ----------
    texts : n texts, none null.

    Returns
    -------
    (n,) int64: the same number for texts of one group, in the order in which groups first stand.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows = pl.DataFrame({"hash": exact_hash(texts, threads=threads)}).with_row_index("row")
    firsts = rows.with_columns(first=pl.col("row").first().over("hash"))
    same = firsts["first"].to_numpy().astype(np.int64)
    distinct = np.unique(same)
    names = pl.Series([f"{row:012d}" for row in distinct.tolist()], dtype=pl.String)
    config = NearConfig(threshold=SIMILARITY, bands=BANDS, rows=ROWS)
    pairs = find_near_duplicates(names, texts.gather(distinct), None, config, threads=threads).pairs
    near = pairs.filter(pl.col("jaccard") >= SIMILARITY).select(pl.col("record_id", "keeper_id").cast(pl.Int64))
    one = np.concatenate([np.arange(len(texts)), near["record_id"].to_numpy()])
    other = np.concatenate([same, near["keeper_id"].to_numpy()])
    graph = coo_array((np.ones(len(one), np.int8), (one, other)), shape=(len(texts), len(texts)))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def grouped_folds(groups: np.ndarray, codes: np.ndarray, num_folds: int, seed: int) -> np.ndarray:
    """Deal groups out to folds, those of one label in turn, so that folds are alike in size and labels.

    Parameters
    ----------
    groups : (n,) int64, as of ``duplicate_groups``; a group goes with its first record's label.
    codes : (n,) int64 labels.
    seed : of the order within a label.

    Returns
    -------
    (n,) int64 in [0, num_folds).
    """
    _, first, member = np.unique(groups, return_index=True, return_inverse=True)
    sizes = np.bincount(member)
    # The large ones first, so that small ones even the folds out.
    order = np.lexsort((np.random.default_rng(seed).random(len(first)), -np.minimum(sizes, 8), codes[first]))
    fold = np.empty(len(first), dtype=np.int64)
    fold[order] = np.arange(len(first)) % num_folds
    return fold[member]
