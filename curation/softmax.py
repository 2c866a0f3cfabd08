"""Softmax regression on fixed vectors, dense or sparse: the cheap classifier behind label errors."""

from contextlib import AbstractContextManager
from typing import Any, TypeAlias

import numpy as np

Features: TypeAlias = Any
"""(n, d) float32 array, or a scipy CSR matrix of that shape."""

MAX_ITERATIONS = 60
TOLERANCE = 1e-4
"""Largest partial derivative of the mean loss at which the fit is done."""
FLOOR = 1e-12


def one_thread() -> AbstractContextManager[Any]:
    """A block in which numeric libraries use one thread: sums of parts depend on how many threads made the parts."""
    import threadpoolctl

    limits: AbstractContextManager[Any] = threadpoolctl.threadpool_limits(limits=1)
    return limits


def softmax(logits: np.ndarray) -> np.ndarray:
    """Rows of probabilities, float64."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    np.exp(shifted, out=shifted)
    shifted /= shifted.sum(axis=1, keepdims=True)
    return np.asarray(shifted, dtype=np.float64)


def fit_softmax(
    features: Features, codes: np.ndarray, num_classes: int, *, c: float, start: np.ndarray | None = None
) -> np.ndarray:
    """Fit by L-BFGS: the sum of cross entropies times ``c``, and half the squared weights; the bias is free.

    Parameters
    ----------
    features : (n, d); products are in float32, the loss and the weights in float64.
    codes : (n,) int64 in [0, num_classes); a class may lack.
    c : inverse strength of the penalty, above 0, as scikit-learn's ``C``.
    start : weights to begin with, of a fit to the same shape; zeros without.

    Returns
    -------
    (d + 1, num_classes) float64, the bias last. The same input gives the same bits within ``one_thread``.
    """
    from scipy.optimize import minimize

    size, dim = features.shape
    penalty = 1.0 / (c * size)
    rows = np.arange(size)
    targets = np.zeros((size, num_classes), dtype=np.float32)
    targets[rows, codes] = 1.0
    constant = features.T @ targets

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(dim + 1, num_classes)
        logits = _logits(features, weights)
        logits -= logits.max(axis=1, keepdims=True)
        of_given = logits[rows, codes]
        np.exp(logits, out=logits)
        sums = logits.sum(axis=1, keepdims=True)
        logits /= sums
        value = float((np.log(sums[:, 0]) - of_given).mean(dtype=np.float64))
        gradient = np.empty_like(weights)
        gradient[:dim] = (features.T @ logits - constant) / size + penalty * weights[:dim]
        gradient[dim] = (logits.sum(axis=0, dtype=np.float64) - targets.sum(axis=0, dtype=np.float64)) / size
        return value + penalty / 2 * float((weights[:dim] ** 2).sum()), gradient.ravel()

    begin = np.zeros((dim + 1) * num_classes) if start is None else start.ravel()
    options = {"maxiter": MAX_ITERATIONS, "gtol": TOLERANCE}
    found = minimize(loss, begin, jac=True, method="L-BFGS-B", options=options)
    return np.asarray(found.x, dtype=np.float64).reshape(dim + 1, num_classes)


def softmax_proba(features: Features, weights: np.ndarray) -> np.ndarray:
    """(n, num_classes) float64 class probabilities under fitted weights."""
    return softmax(_logits(features, weights))


def _logits(features: Features, weights: np.ndarray) -> np.ndarray:
    small = weights.astype(np.float32)
    return np.asarray(features @ small[:-1] + small[-1])
