"""TypiClust: the most typical record of every region that has no label yet."""

import numpy as np
import numpy.typing as npt

from labeling.candidates import Candidates, Selection
from labeling.clustering import k_means, spread_centres
from labeling.distances import nearest
from labeling.shortlist import by_chance
from labeling.strategies import STRATEGIES, AnyTask

MAX_CLUSTERS = 500
"""As the paper has it: with more, clusters are a handful of records."""
NUM_NEIGHBOURS = 20
MIN_CLUSTER_SIZE = 5
"""Smaller clusters are outliers; they come last."""
MAX_REFERENCES = 2_000
"""Typicality in a larger cluster is measured among so many of its records."""


@STRATEGIES.register("typiclust", AnyTask)
def typiclust(candidates: Candidates, batch_size: int, rng: np.random.Generator) -> Selection:
    """Typical records of clusters without labels first, larger clusters first.

    Of a pool above ``SHORTLIST_ROWS`` a uniform sample of so many is looked at.

    Parameters
    ----------
    candidates : only ``embeddings`` and ``labelled_embeddings`` are used.

    Returns
    -------
    Selection : utility is the cluster's share of the sample divided by 1 + the labels and picks it has, made never to
        rise.

    References
    ----------
    Hacohen, Dekel and Weinshall (2022), Active Learning on a Budget: Opposite Strategies Suit High and Low Budgets,
    section 3 (TPC_RP).
    """
    rows = by_chance(len(candidates), batch_size, rng)
    picks, sizes, places = typical(candidates.embeddings[rows], candidates.labelled_embeddings, batch_size, rng)
    utility = np.minimum.accumulate(sizes / (len(rows) * (1.0 + places)))
    why = [_why(int(size), int(place)) for size, place in zip(sizes, places, strict=True)]
    return Selection(indices=rows[picks], utility=utility, why=why)


def typical(
    points: npt.NDArray[np.float32], labelled: npt.NDArray[np.float32], batch_size: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The most typical points of clusters, one a cluster and round again.

    Parameters
    ----------
    points : (n, dim) float32; of equally typical ones the first is taken.
    labelled : (m, dim) float32, possibly empty; at most ``MAX_CLUSTERS`` of them are clustered along.

    Returns
    -------
    (batch_size,) int64 distinct rows; (batch_size,) int64 points in the cluster of each; and (batch_size,) int64 labels
    and earlier picks in that cluster.
    """
    labelled = labelled[:: max(1, -(-len(labelled) // MAX_CLUSTERS))]
    everything = np.concatenate([points, labelled])
    num_clusters = min(len(labelled) + batch_size, MAX_CLUSTERS, len(everything))
    centres = spread_centres(everything, num_clusters, rng)
    cluster, _ = k_means(everything, num_clusters, int(rng.integers(2**31)), centres=centres)
    own = cluster[: len(points)]
    sizes = np.bincount(own, minlength=num_clusters)
    covered = np.bincount(cluster[len(points) :], minlength=num_clusters)
    first = np.lexsort((-sizes, covered, sizes < MIN_CLUSTER_SIZE))
    members = {int(code): np.flatnonzero(own == code) for code in first if sizes[code]}
    picks: list[int] = []
    of: list[int] = []
    places: list[int] = []
    ranked: dict[int, npt.NDArray[np.int64]] = {}
    for turn in range(len(points)):
        for code, group in members.items():
            if turn >= len(group):
                continue
            if code not in ranked:
                ranked[code] = group[np.argsort(-typicality(points[group]), kind="stable")]
            picks.append(int(ranked[code][turn]))
            of.append(code)
            places.append(int(covered[code]) + turn)
            if len(picks) == batch_size:
                return np.array(picks), sizes[of], np.array(places)
    raise AssertionError("a batch is no larger than the pool")


def typicality(points: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Inverse of the mean distance to the nearest ``NUM_NEIGHBOURS`` other points.

    Returns
    -------
    (n,) float64, finite; of a single point, 1.
    """
    if len(points) == 1:
        return np.ones(1)
    references = points[:: max(1, -(-len(points) // MAX_REFERENCES))]
    # The nearest of all is the point itself, or a copy.
    num_neighbours = min(NUM_NEIGHBOURS + 1, len(references))
    _, squared = nearest(points, references, num_neighbours)
    total = np.sqrt(squared).sum(axis=1, dtype=np.float64)
    return np.asarray(max(1, num_neighbours - 1) / (total + 1e-7), dtype=np.float64)


def _why(size: int, place: int) -> str:
    if place == 0:
        return f"typical of a region without labels: {size} records"
    return f"typical of a region with {place} asked about: {size} records"
