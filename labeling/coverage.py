"""Choosing points that stand for many others: what is far from anything chosen or labelled weighs most."""

import numpy as np
import numpy.typing as npt

from labeling.distances import nearest, squared_distances, squared_lengths

NUM_STOOD_FOR = 2_000
"""Points that stand for all in the sum: 40 MB beside a shortlist."""
WIDTH = 0.35
"""Of the kernel, in root mean square lengths: a cosine of 0.9 is a likeness of 0.44, one of 0.5 a likeness of 0.02."""


def stand_for_most(
    points: npt.NDArray[np.float32],
    others: npt.NDArray[np.float32],
    labelled: npt.NDArray[np.float32],
    batch_size: int,
) -> npt.NDArray[np.int64]:
    """Pick, one by one, the point by which the others' likeness to the nearest pick or labelled point rises most.

    Likeness is a Gaussian kernel of ``WIDTH``.

    Parameters
    ----------
    points : (n, dim) float32, n at least ``batch_size``; of equally good ones the first is taken.
    others : (m, dim) float32, each counted alike.
    labelled : (k, dim) float32, possibly empty.

    Returns
    -------
    (batch_size,) int64 distinct rows of ``points``; the first ones are those of a smaller batch.

    References
    ----------
    Bae, Oliveira and Sutherland (2024), Generalized Coverage for More Robust Low-Budget Active Learning, algorithm 1
    (MaxHerding). A gain never rises (Minoux 1978), so most are not computed again for a pick.
    """
    # Of points without any length all are alike at any scale.
    scale = -0.5 / (WIDTH**2 * (float(squared_lengths(others).mean()) or 1.0))
    likeness = np.exp(scale * squared_distances(points, others))
    best = np.zeros(len(others), dtype=np.float32)
    if len(labelled):
        best = np.exp(scale * nearest(others, labelled, 1)[1][:, 0])
    at_most = np.maximum(likeness - best, 0).sum(axis=1, dtype=np.float64)
    picks = np.empty(batch_size, dtype=np.int64)
    for number in range(batch_size):
        while True:
            row = int(at_most.argmax())
            at_most[row] = np.maximum(likeness[row] - best, 0).sum(dtype=np.float64)
            if at_most[row] >= at_most.max():
                break
        picks[number] = row
        best = np.maximum(best, likeness[row])
        # Below every gain.
        at_most[row] = -1.0
    return picks


def shares(
    picks: npt.NDArray[np.float32], others: npt.NDArray[np.float32], labelled: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """(batch_size,) float64: the share of ``others`` nearer to each pick than to the rest of them and ``labelled``."""
    own, _ = nearest(others, np.concatenate([picks, labelled]), 1)
    return np.bincount(own[:, 0], minlength=len(picks) + len(labelled))[: len(picks)] / len(others)
