"""From what a record looks like to whether its label is wrong: one scale for all classes, then the noise."""

from collections.abc import Sequence

import numpy as np

from curation.softmax import softmax

TINY = 1e-9
SPREAD_PENALTY = 1.0
"""On how far a class's scale may lie from the mean of all, and on its bias: as much as one observation's."""
PSEUDO_COUNT = 0.1
"""Added to every cell of the noise matrix, in records."""
EM_ROUNDS = 5
SHRINKAGE = 0.5
"""How far the noise matrix is drawn to the uniform one of the same overall rate. An estimated matrix mistakes what is
naturally confusable for noise; half way was best or nearly so on two data sets and three encoders (docs/log.md)."""


def combine_evidence(evidence: Sequence[np.ndarray], codes: np.ndarray) -> np.ndarray:
    """Join several class distributions of each record into one that is calibrated against the labels given.

    Logits are sums of log probabilities, each source and class with a scale of its own, and a bias a class: vector
    scaling (Guo et al. 2017, On Calibration of Modern Neural Networks, section 4.2) over more than one source. What a
    classifier thinks of a small or a difficult class becomes comparable with what it thinks of the others.

    Parameters
    ----------
    evidence : at least one (n, num_classes) float64, rows summing to 1, out of fold.
    codes : (n,) int64 labels given.

    Returns
    -------
    (n, num_classes) float64, rows summing to 1.
    """
    from scipy.optimize import minimize

    logs = [np.log(np.maximum(one, TINY)) for one in evidence]
    size, num_classes = logs[0].shape
    num = len(logs)
    rows = np.arange(size)

    def logits(flat: np.ndarray) -> np.ndarray:
        table = flat.reshape(num + 1, num_classes)
        total = np.broadcast_to(table[num], (size, num_classes)).copy()
        for scales, values in zip(table, logs, strict=False):
            total += scales * values
        return total

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        proba = softmax(logits(flat))
        value = -np.log(np.maximum(proba[rows, codes], TINY)).sum()
        proba[rows, codes] -= 1.0
        table = flat.reshape(num + 1, num_classes)
        spread = table.copy()
        spread[:num] -= table[:num].mean(axis=1, keepdims=True)
        gradient = np.stack([*((proba * values).sum(axis=0) for values in logs), proba.sum(axis=0)])
        gradient += SPREAD_PENALTY * spread
        return float(value + SPREAD_PENALTY / 2 * (spread**2).sum()) / size, gradient.ravel() / size

    start = np.zeros((num + 1, num_classes))
    start[0] = 1.0
    found = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 200})
    return softmax(logits(found.x))


def noise_matrix(proba: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Estimate how often a record of one class is given each label, by expectation maximization.

    Parameters
    ----------
    proba : (n, num_classes) of the true class, before the given label is known.
    codes : (n,) int64 labels given.

    Returns
    -------
    (num_classes, num_classes) float64: row true, column given, rows summing to 1; drawn half way to uniform noise.

    References
    ----------
    Dawid and Skene (1979), Maximum Likelihood Estimation of Observer Error-Rates; Northcutt, Jiang and Chuang (2021),
    Confident Learning, section 3, for noise that depends on the class alone.
    """
    num_classes = proba.shape[1]
    given = np.eye(num_classes)[codes]
    truth = proba
    for _ in range(EM_ROUNDS + 1):
        matrix = truth.T @ given + PSEUDO_COUNT
        matrix /= matrix.sum(axis=1, keepdims=True)
        truth = truth_given(proba, codes, matrix)
    right = float(np.trace(matrix)) / num_classes
    uniform = np.full_like(matrix, (1.0 - right) / max(num_classes - 1, 1))
    np.fill_diagonal(uniform, right)
    return np.asarray((1.0 - SHRINKAGE) * matrix + SHRINKAGE * uniform)


def truth_given(proba: np.ndarray, codes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(n, num_classes) probability of each class being the true one, now that the given label is known (Bayes)."""
    joint = proba * matrix[:, codes].T
    return np.asarray(joint / joint.sum(axis=1, keepdims=True))
