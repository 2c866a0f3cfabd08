"""What is true of a sample small enough to measure every pair, and how far an answer is from it."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from curation.dedup.curve import candidate_probability
from curation.dedup.normalize import normalize
from curation.dedup.shingles import ShingleConfig
from curation.scripts import UNSPACED
from curation.tokens import TOKEN

LOWEST = 0.5
"""Pairs below it are not looked at."""
BIN_WIDTH = 0.05


def shingle_matrix(texts: pl.Series, shape: ShingleConfig) -> csr_matrix:
    """Shingle sets by the definition of ``curation.dedup.shingles.shingle``, from strings: a reference for its kernel.

    Parameters
    ----------
    texts : n raw texts.
    shape : what of a text is compared; digits are never folded here.

    Returns
    -------
    (n, number of distinct shingles) int32, 1 where the text has the shingle.
    """
    folded = texts.alias("text").to_frame().select(normalize(pl.col("text")))
    columns = folded.select(
        "text",
        tokens=pl.col("text").str.extract_all(TOKEN),
        unspaced=pl.col("text").str.count_matches(f"[{UNSPACED}]"),
        filled=pl.col("text").str.replace_all(" ", "", literal=True).str.len_chars(),
    )
    places: dict[tuple[str, ...], int] = {}
    indices: list[int] = []
    ends = [0]
    for text, tokens, unspaced, filled in columns.iter_rows():
        by_words = len(tokens) >= max(shape.word_ngram, shape.min_words) and unspaced * 2 < filled
        if by_words:
            found = _ngrams("words", tokens, shape.word_ngram)
        elif len(tokens) >= shape.word_ngram and len(text) >= shape.char_ngram:
            found = _ngrams("characters", text, shape.char_ngram)
        else:
            found = {("whole", text)}
        indices += sorted(places.setdefault(one, len(places)) for one in found)
        ends.append(len(indices))
    ones = np.ones(len(indices), dtype=np.int32)
    return csr_matrix((ones, np.asarray(indices), np.asarray(ends)), shape=(len(texts), len(places)))


def _ngrams(kind: str, items: Sequence[str], size: int) -> set[tuple[str, ...]]:
    return {(kind, *items[at : at + size]) for at in range(len(items) - size + 1)}


def jaccard(matrix: csr_matrix, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Exact Jaccard similarity of pairs of rows; (num_pairs,) float64."""
    sizes = np.diff(matrix.indptr)
    shared = np.asarray(matrix[first].multiply(matrix[second]).sum(axis=1), dtype=np.int64).ravel()
    similarity: np.ndarray = shared / (sizes[first] + sizes[second] - shared)
    return similarity


def similar_pairs(matrix: csr_matrix, lowest: float = LOWEST) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every pair of rows whose Jaccard similarity is at least ``lowest``.

    Returns
    -------
    first, second : (num_pairs,) int64, first < second, sorted.
    similarity : (num_pairs,) float64.
    """
    sizes = np.diff(matrix.indptr)
    shared = (matrix @ matrix.T).tocoo()
    first, second, common = shared.row.astype(np.int64), shared.col.astype(np.int64), shared.data
    similarity = common / (sizes[first] + sizes[second] - common)
    wanted = (first < second) & (similarity >= lowest)
    first, second, similarity = first[wanted], second[wanted], similarity[wanted]
    order = np.lexsort((second, first))
    return first[order], second[order], similarity[order]


@dataclass(frozen=True)
class Bin:
    """Pairs of about one similarity.

    Parameters
    ----------
    low : lower bound of the Jaccard similarity.
    pairs : how many there are.
    found : how many of them were found.
    expected : how many the banding finds by theory, summed over these very pairs.
    """

    low: float
    pairs: int
    found: int
    expected: float


def recall_bins(similarity: np.ndarray, found: np.ndarray, *, bands: int, rows: int) -> list[Bin]:
    """Recall per 0.05 of similarity from 0.5 to 1.0; 1.0 itself is in the last bin.

    Parameters
    ----------
    similarity : (num_pairs,) exact Jaccard similarities.
    found : (num_pairs,) bool.
    bands, rows : shape of the banding.
    """
    number = round((1 - LOWEST) / BIN_WIDTH)
    # 0.6 - 0.5 is a little less than two times 0.05: bounds are kept to a billionth.
    places = np.minimum(np.floor((similarity - LOWEST) / BIN_WIDTH + 1e-9), number - 1)
    expected = candidate_probabilities(similarity, bands=bands, rows=rows)
    bins = []
    for place in range(number):
        inside = places == place
        low = round(LOWEST + place * BIN_WIDTH, 2)
        bins.append(Bin(low, int(inside.sum()), int(found[inside].sum()), float(expected[inside].sum())))
    return bins


def candidate_probabilities(similarity: np.ndarray, *, bands: int, rows: int) -> np.ndarray:
    """``1 - (1 - s**rows)**bands`` for each similarity."""
    return np.asarray([candidate_probability(float(one), bands, rows) for one in similarity], dtype=np.float64)


def keepers(number: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The keeper of each record when every similar pair is known: the best takes all its neighbours, then the next.

    Parameters
    ----------
    number : number of records, numbered from the best.
    first, second : (num_pairs,) similar pairs, first < second, in any order.

    Returns
    -------
    (number,) int64: itself for a record that stays.
    """
    chosen = np.arange(number, dtype=np.int64)
    for one, other in sorted(zip(first.tolist(), second.tolist(), strict=True)):
        if chosen[one] == one and chosen[other] == other:
            chosen[other] = one
    return chosen


def final_keepers(ids: Sequence[str], removed: Mapping[str, str]) -> np.ndarray:
    """Number of the record that is kept for each: a keeper that leaves itself hands on to its own.

    Parameters
    ----------
    ids : n distinct ids.
    removed : keeper by id of the record that leaves.

    Returns
    -------
    (n,) int64 positions in ``ids``.
    """
    places = {record: place for place, record in enumerate(ids)}
    final = []
    for record in ids:
        kept = record
        for _ in ids:
            if kept not in removed:
                break
            kept = removed[kept]
        final.append(places[kept])
    return np.asarray(final, dtype=np.int64)


def components(number: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Label of the connected component of each record: what chains drag together; (number,) int."""
    graph = csr_matrix((np.ones(len(first)), (first, second)), shape=(number, number))
    labels: np.ndarray = connected_components(graph, directed=False)[1]
    return labels


@dataclass(frozen=True)
class Agreement:
    """How like two clusterings are.

    Parameters
    ----------
    precision, recall, f1 : B-cubed.
    ari : adjusted Rand index.
    """

    precision: float
    recall: float
    f1: float
    ari: float


def agreement(predicted: np.ndarray, true: np.ndarray) -> Agreement:
    """Compare two clusterings of the same records, given as labels.

    References
    ----------
    Bagga and Baldwin (1998), Entity-Based Cross-Document Coreferencing; Hubert and Arabie (1985), Comparing Partitions.
    """
    both = Counter(zip(predicted.tolist(), true.tolist(), strict=True))
    sizes, true_sizes = Counter(predicted.tolist()), Counter(true.tolist())
    # Each of the ``count`` records shares its cluster with ``count`` records of its own class.
    precision = sum(count * count / sizes[one] for (one, _), count in both.items()) / len(true)
    recall = sum(count * count / true_sizes[other] for (_, other), count in both.items()) / len(true)
    f1 = 2 * precision * recall / (precision + recall)
    together, one, other = (_num_pairs(counts.values()) for counts in (both, sizes, true_sizes))
    by_chance = one * other / max(math.comb(len(true), 2), 1)
    most = (one + other) / 2
    # Where no partition could agree less, as when all are singletons, agreement is complete.
    ari = 1.0 if most == by_chance else (together - by_chance) / (most - by_chance)
    return Agreement(precision, recall, f1, ari)


def _num_pairs(sizes: Iterable[int]) -> int:
    return sum(math.comb(size, 2) for size in sizes)


def largest_cluster(labels: np.ndarray) -> int:
    """Number of records with the commonest label."""
    return int(np.unique(labels, return_counts=True)[1].max())


def wrongful_removals(matrix: csr_matrix, kept: np.ndarray, threshold: float) -> int:
    """Number of records that left although they are less similar to their keeper than the threshold.

    Parameters
    ----------
    matrix : (n, number of shingles).
    kept : (n,) int64, the final keeper of each record, itself for one that stays.
    threshold : Jaccard similarity.
    """
    gone = np.flatnonzero(kept != np.arange(len(kept)))
    return int((jaccard(matrix, gone, kept[gone]) < threshold).sum())


def removal_quality(number: int, first: np.ndarray, second: np.ndarray, gone: np.ndarray) -> tuple[int, int]:
    """Judge removals of which no keeper is known, as other tools name them.

    Parameters
    ----------
    number : number of records.
    first, second : (num_pairs,) every pair at or above the threshold.
    gone : (number,) bool.

    Returns
    -------
    Removed records that are similar to none at all, and similar pairs of which both are still there.
    """
    has_similar = np.zeros(number, dtype=bool)
    has_similar[first] = has_similar[second] = True
    return int((gone & ~has_similar).sum()), int((~gone[first] & ~gone[second]).sum())
