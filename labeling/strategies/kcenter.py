"""k-center: ask about what lies farthest from everything labelled."""

import numpy as np
import numpy.typing as npt

from labeling.candidates import Candidates, Selection
from labeling.distances import nearest, squared_distances, squared_lengths
from labeling.shortlist import by_chance
from labeling.strategies import STRATEGIES, AnyTask

MIN_AWAKE = 1_024
"""Records whose distances are kept up to date from the start."""


@STRATEGIES.register("kcenter", AnyTask)
def kcenter(candidates: Candidates, batch_size: int, rng: np.random.Generator) -> Selection:
    """Farthest from the nearest labelled or chosen record first (core-set).

    Of a pool above ``SHORTLIST_ROWS`` a uniform sample of so many is looked at.

    Parameters
    ----------
    candidates : only ``embeddings`` and ``labelled_embeddings`` are used.

    Returns
    -------
    Selection : utility is the Euclidean distance to the nearest labelled or chosen record, at least 0.

    References
    ----------
    Sener and Savarese (2018), Active Learning for Convolutional Neural Networks: A Core-Set Approach, algorithm 1.
    """
    rows = by_chance(len(candidates), batch_size, rng)
    picks, distances = farthest_first(candidates.embeddings[rows], candidates.labelled_embeddings, batch_size)
    why = [f"new region: nearest labelled item {distance:.2f} away" for distance in distances]
    if not len(candidates.labelled_embeddings):
        why = ["new region: nothing is labelled yet"] + [line.replace("labelled", "chosen") for line in why[1:]]
    return Selection(indices=rows[picks], utility=distances, why=why)


def farthest_first(
    points: npt.NDArray[np.float32], centres: npt.NDArray[np.float32], batch_size: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Greedy k-center: each pick is the point farthest from the centres and the picks before it.

    Parameters
    ----------
    points : (n, dim) float32; the first of equally far ones is picked, so an order by chance breaks ties by chance.
    centres : (m, dim) float32, possibly empty: then the first point is picked first.

    Returns
    -------
    (batch_size,) int64 rows and (batch_size,) float64 distances, never rising.
    """
    unseen = np.full(len(points), np.inf, dtype=np.float32)
    bound = nearest(points, centres, 1)[1][:, 0] if len(centres) else unseen
    picks, distances = np.empty(batch_size, dtype=np.int64), np.empty(batch_size)
    # Distances only fall as picks are added, so a record is looked at again only once its last known distance, an upper
    # bound, could be the largest: few of a large pool ever are.
    order = np.argsort(-bound, kind="stable")
    num_awake, awake, lengths, squared = 0, points[:0], bound[:0], bound[:0]
    for number in range(batch_size):
        while num_awake < len(points) and not (num_awake and squared.max() >= bound[order[num_awake]]):
            some = order[num_awake : num_awake + max(MIN_AWAKE, num_awake)]
            known = bound[some]
            if number:
                known = np.minimum(known, nearest(points[some], points[picks[:number]], 1)[1][:, 0])
            num_awake += len(some)
            awake, squared = np.concatenate([awake, points[some]]), np.concatenate([squared, known])
            lengths = squared_lengths(awake)
        pick = int(squared.argmax())
        picks[number], distances[number] = order[pick], np.sqrt(squared[pick])
        np.minimum(squared, squared_distances(awake, awake[pick : pick + 1], lengths)[:, 0], out=squared)
        squared[pick] = -np.inf
    if not len(centres):
        distances[0] = distances[1] if batch_size > 1 else 0.0
    return picks, np.minimum.accumulate(distances)
