"""What a record's neighbours are labelled: evidence that a linear classifier does not see."""

from typing import Any

import numpy as np

NUM_NEIGHBOURS = 10
SPARE = 20
"""Further neighbours that are looked at, because those of the record's own group do not vote."""
EXACT_ROWS = 50_000
"""Up to so many records all are compared; beyond, those of the nearest cells."""
PROBES = 16
BLOCK_ROWS = 8_192


def neighbour_votes(vectors: np.ndarray, codes: np.ndarray, groups: np.ndarray, num_classes: int) -> np.ndarray:
    """Share of each label among the ten nearest records outside the record's own group, weighted by cosine.

    Parameters
    ----------
    vectors : (n, d) float32, rows of length 1.
    codes : (n,) int64 labels.
    groups : (n,) int64; near-duplicates have one number, and do not vote for one another.

    Returns
    -------
    (n, num_classes) float64, rows summing to 1; a tenth of a vote is spread evenly, so no share is 0.

    References
    ----------
    Bahri, Jiang and Gupta (2020), Deep k-NN for Noisy Labels, section 3.
    """
    import faiss

    size, dim = vectors.shape
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    index: Any
    if size <= EXACT_ROWS:
        index = faiss.IndexFlatIP(dim)
    else:
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, int(np.sqrt(size)), faiss.METRIC_INNER_PRODUCT)
        index.train(vectors)
        index.nprobe = PROBES
    index.add(vectors)
    votes = np.full((size, num_classes), 0.1 / num_classes)
    wanted = min(size, NUM_NEIGHBOURS + SPARE + 1)
    for start in range(0, size, BLOCK_ROWS):
        near, places = index.search(vectors[start : start + BLOCK_ROWS], wanted)
        rows = np.arange(start, start + len(places))
        counts = (places >= 0) & (groups[places] != groups[rows, None])
        counts &= np.cumsum(counts, axis=1) <= NUM_NEIGHBOURS
        weights = np.where(counts, np.clip(near, 0.0, None), 0.0)
        np.add.at(votes, (rows[:, None], codes[places]), weights)
    return np.asarray(votes / votes.sum(axis=1, keepdims=True))
