"""k-means, the same whatever the number of threads."""

import warnings

import numpy as np
import numpy.typing as npt

from labeling.determinism import one_thread

MINI_BATCH_FROM = 10_000
"""Pools from this size up are clustered by mini-batches."""


def k_means(
    points: npt.NDArray[np.float32], num_clusters: int, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Cluster points.

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
        model = MiniBatchKMeans(n_clusters=num_clusters, n_init=1, batch_size=4096, max_iter=20, random_state=seed)
    with one_thread(), warnings.catch_warnings():
        # Empty clusters are nothing that the strategies mind.
        warnings.simplefilter("ignore", ConvergenceWarning)
        cluster = model.fit_predict(points)
    return cluster.astype(np.int64), model.cluster_centers_
