"""k-means, the same whatever the number of threads."""

import warnings

import numpy as np
import numpy.typing as npt

from labeling.determinism import one_thread

MINI_BATCH_FROM = 10_000
"""Pools from this size up are clustered by mini-batches."""


def k_means(
    points: npt.NDArray[np.float32],
    num_clusters: int,
    seed: int,
    *,
    num_init_rows: int | None = None,
    weights: npt.NDArray[np.float64] | None = None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Cluster points.

    Parameters
    ----------
    points : (n, dim) float32; from ``MINI_BATCH_FROM`` up they are taken by mini-batches.
    num_clusters : 1 to n.
    num_init_rows : points that the first centres of mini-batches are drawn among, at least ``num_clusters``; default
        12,288. Drawing takes longer than all that follows where clusters are many.
    weights : (n,) float64, not negative, not all 0: how much each point pulls at its centre; default 1.

    Returns
    -------
    (n,) int64 cluster of every point and (num_clusters, dim) float32 centres. Fewer distinct points than clusters leave
    clusters empty.
    """
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    if len(points) < MINI_BATCH_FROM:
        model = KMeans(n_clusters=num_clusters, n_init=1, random_state=seed)
    else:
        model = MiniBatchKMeans(
            n_clusters=num_clusters,
            n_init=1,
            batch_size=4096,
            max_iter=20,
            init_size=num_init_rows,
            random_state=seed,
        )
    with one_thread(), warnings.catch_warnings():
        # Empty clusters are nothing that the strategies mind.
        warnings.simplefilter("ignore", ConvergenceWarning)
        cluster = model.fit_predict(points, sample_weight=weights)
    return cluster.astype(np.int64), model.cluster_centers_
