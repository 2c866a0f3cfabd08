"""ProbCover: the record whose surroundings hold most of what nothing labelled is near to."""

import numpy as np
import numpy.typing as npt

from labeling.candidates import Candidates, Selection
from labeling.clustering import k_means
from labeling.distances import squared_distances
from labeling.shortlist import by_chance
from labeling.strategies import STRATEGIES, AnyTask

POOL_ROWS = 4_000
"""Every pair of the sample is compared: 64 MB of distances."""
RADII = tuple(round(0.05 * step, 2) for step in range(1, 41))
"""On the unit sphere nothing is farther apart than 2."""
PURITY = 0.95
"""Share of balls that must hold one cluster alone."""


@STRATEGIES.register("probcover", AnyTask)
def probcover(candidates: Candidates, batch_size: int, rng: np.random.Generator) -> Selection:
    """Most uncovered records within a radius first; what is near a labelled or chosen record is covered.

    Directions are compared: embeddings are scaled to length 1. The radius is the largest of ``RADII`` up to which
    ``PURITY`` of the balls lie in one of as many k-means clusters as there are classes. Of a pool above ``POOL_ROWS`` a
    uniform sample of so many is looked at.

    Parameters
    ----------
    candidates : ``embeddings``, ``labelled_embeddings`` and the number of ``classes`` are used.

    Returns
    -------
    Selection : utility is the share of the sample that is newly covered.

    References
    ----------
    Yehuda et al. (2022), Active Learning Through a Covering Lens, algorithm 1 and section 3.3 (the radius).
    """
    rows = by_chance(len(candidates), batch_size, rng, POOL_ROWS)
    points, labelled = _unit(candidates.embeddings[rows]), _unit(candidates.labelled_embeddings)
    distances = np.sqrt(squared_distances(points, points))
    radius = pure_radius(points, distances, len(candidates.classes), int(rng.integers(2**31)))
    near = distances <= radius
    covered = np.zeros(len(rows), dtype=bool)
    for start in range(0, len(labelled), POOL_ROWS):
        covered |= (np.sqrt(squared_distances(points, labelled[start : start + POOL_ROWS])) <= radius).any(axis=1)
    picks, gains = greedy_cover(near, covered, batch_size)
    why = [f"{gain} records within {radius:.2f} that no labelled one is near to" for gain in gains]
    return Selection(indices=rows[picks], utility=gains / len(rows), why=why)


def greedy_cover(
    near: npt.NDArray[np.bool_], covered: npt.NDArray[np.bool_], batch_size: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Greedy maximum coverage; the first of equally good ones is taken.

    Parameters
    ----------
    near : (n, n) bool, symmetric.
    covered : (n,) bool, before the first pick.

    Returns
    -------
    (batch_size,) int64 distinct rows and (batch_size,) int64 newly covered, never rising.
    """
    gain = near[:, ~covered].sum(axis=1, dtype=np.int64)
    covered = covered.copy()
    picks, gains = np.empty(batch_size, dtype=np.int64), np.empty(batch_size, dtype=np.int64)
    for number in range(batch_size):
        pick = int(gain.argmax())
        picks[number], gains[number] = pick, gain[pick]
        new = np.flatnonzero(near[pick] & ~covered)
        gain -= near[new].sum(axis=0, dtype=np.int64)
        covered[new] = True
        # Below every gain, whatever is still to be taken off.
        gain[pick] = -(len(near) + 1)
    return picks, gains


def pure_radius(
    points: npt.NDArray[np.float32], distances: npt.NDArray[np.float32], num_classes: int, seed: int
) -> float:
    """The largest of ``RADII`` up to which ``PURITY`` of the balls hold one cluster only; else the smallest."""
    cluster, _ = k_means(points, min(num_classes, len(points)), seed)
    to_others = np.where(cluster[:, None] == cluster[None, :], np.inf, distances).min(axis=1)
    radius = RADII[0]
    for tried in RADII:
        if (to_others > tried).mean() < PURITY:
            break
        radius = tried
    return radius


def _unit(points: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    return np.asarray(points / np.where(lengths > 0, lengths, 1), dtype=np.float32)
