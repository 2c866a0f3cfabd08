"""A flat picture of directions in which neighbours stay neighbours."""

import numpy as np

LEAST_FOR_TSNE = 50
AXES = 50
PERPLEXITY = 30.0
TRUSTED_NEIGHBOURS = 10


def lay_out(grid: np.ndarray, seed: int) -> tuple[np.ndarray, float | None]:
    """Two coordinates a row by t-SNE from its principal axes, and how far they can be trusted.

    On one thread, so that sums have one order: the same rows give the same picture on one kind of machine.

    Parameters
    ----------
    grid : (n, d) int16, centred; zero rows lie in the middle.

    Returns
    -------
    (n, 2) float64 in [0, 1]; trustworthiness in [0, 1] (share of neighbours in the picture that are real ones, ranked;
    a random picture has about 0.5), None for fewer than 50 rows, which are laid out by their principal axes alone.

    References
    ----------
    van der Maaten and Hinton (2008), Visualizing Data using t-SNE; Kobak and Berens (2019), The Art of Using t-SNE for
    Single-Cell Transcriptomics, for the start from principal axes; Venna and Kaski (2001) for trustworthiness.
    """
    from sklearn.manifold import TSNE, trustworthiness
    from threadpoolctl import threadpool_limits

    rows = grid.astype(np.float64) / 4096
    with threadpool_limits(1):
        axes = _principal(rows, min(AXES, rows.shape[1], len(rows)))
        if len(rows) < LEAST_FOR_TSNE:
            flat = axes[:, :2] if axes.shape[1] > 1 else np.column_stack([axes, np.zeros((len(rows), 2))])[:, :2]
            return _unit(flat), None
        start = axes[:, :2] / max(axes[:, 0].std(), 1e-12) * 1e-4
        flat = TSNE(
            perplexity=min(PERPLEXITY, (len(rows) - 1) / 3), init=start, random_state=seed, n_jobs=1, max_iter=750
        ).fit_transform(axes)
        trusted = trustworthiness(axes, flat, n_neighbors=min(TRUSTED_NEIGHBOURS, len(rows) // 2 - 1))
    return _unit(flat.astype(np.float64)), round(float(trusted), 3)


def _principal(rows: np.ndarray, count: int) -> np.ndarray:
    """Coordinates along the principal axes, largest first; each axis points to where its largest entry is positive."""
    centred = rows - rows.mean(axis=0) if len(rows) else rows
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1][:, :count]
    signs = np.where(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])] < 0, -1.0, 1.0)
    turned: np.ndarray = centred @ (axes * signs)
    return turned


def _unit(flat: np.ndarray) -> np.ndarray:
    if not len(flat):
        return flat
    low, span = flat.min(axis=0), max(float(np.ptp(flat, axis=0).max()), 1e-12)
    middle = (1 - np.ptp(flat, axis=0) / span) / 2
    placed: np.ndarray = np.round((flat - low) / span + middle, 4)
    return placed
