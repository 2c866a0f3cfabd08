"""Cold start: one record from the middle of each region of the pool."""

import numpy as np
import numpy.typing as npt

from labeling.candidates import Candidates, Selection
from labeling.clustering import k_means
from labeling.strategies import STRATEGIES, AnyTask

MAX_CLUSTERS = 256
"""A larger batch takes several records a cluster: the first few hundred labels are where a cold start pays."""


@STRATEGIES.register("kmeans", AnyTask)
def kmeans(candidates: Candidates, batch_size: int, rng: np.random.Generator) -> Selection:
    """Nearest to each k-means centroid first, larger clusters first; then second nearest, and so on.

    Parameters
    ----------
    candidates : only ``embeddings`` are used.

    Returns
    -------
    Selection : utility is the cluster's share of the pool divided by the place in the cluster, made never to rise.

    References
    ----------
    Yuan, Lin and Boyd-Graber (2020), Cold-start Active Learning through Self-supervised Language Modeling, section 4
    (embedding k-means baseline); Yu et al. (2023), PATRON, table 1: it beats uncertainty while there are no labels.
    """
    num_clusters = min(batch_size, MAX_CLUSTERS)
    cluster, centres = k_means(candidates.embeddings, num_clusters, int(rng.integers(2**31)))
    distance = _distances(candidates.embeddings, cluster, centres)
    sizes = np.bincount(cluster, minlength=num_clusters)
    by_cluster = np.lexsort((np.arange(len(cluster)), distance, cluster))
    starts = np.concatenate(([0], np.cumsum(sizes)[:-1]))
    place = np.empty(len(cluster), dtype=np.int64)
    place[by_cluster] = np.arange(len(cluster)) - starts[cluster[by_cluster]]
    indices = np.lexsort((cluster, -sizes[cluster], place))[:batch_size].astype(np.int64)
    utility = np.minimum.accumulate(sizes[cluster[indices]] / (len(cluster) * (1.0 + place[indices])))
    why = [_why(int(place[row]), int(sizes[cluster[row]])) for row in indices]
    return Selection(indices=indices, utility=utility, why=why)


def _why(place: int, size: int) -> str:
    if place == 0:
        return f"represents a cluster of {size} unlabelled records"
    return f"number {place + 1} from the middle of a cluster of {size} unlabelled records"


def _distances(
    embeddings: npt.NDArray[np.float32], cluster: npt.NDArray[np.int64], centres: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    distance = np.empty(len(embeddings))
    for code, centre in enumerate(centres):
        rows = np.flatnonzero(cluster == code)
        distance[rows] = ((embeddings[rows].astype(np.float64) - centre) ** 2).sum(axis=1)
    return distance
