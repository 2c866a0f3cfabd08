"""modAL's uncertainty measures on probabilities that are already known, and our own ranking of them.

Only modAL's measuring functions are used. Its learners do not run on current scikit-learn, and its selectors return the
best items in no order, with ties in pool order.
"""

import importlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True, eq=False)
class _Scored:
    """A classifier to modAL: it answers with the probabilities it was made with."""

    proba: npt.NDArray[np.float64]

    def predict_proba(self, _rows: object) -> npt.NDArray[np.float64]:
        return self.proba


def measure(name: str, proba: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Apply one of modAL's measures to every row.

    Parameters
    ----------
    name : ``classifier_margin``, ``classifier_entropy`` (nats) or ``classifier_uncertainty`` (1 - largest probability).
    proba : (n, num_classes) float64, rows summing to 1.

    Returns
    -------
    (n,) float64.

    References
    ----------
    Danka and Horvath (2018), modAL: A modular active learning framework for Python.
    """
    with warnings.catch_warnings():
        # Its docstrings hold escapes that Python warns of when it compiles them; nothing at run time depends on that.
        warnings.simplefilter("ignore")
        module: Any = importlib.import_module("modAL.uncertainty")
    return np.asarray(getattr(module, name)(_Scored(proba), proba), dtype=np.float64)


def best_first(utility: npt.NDArray[np.float64], batch_size: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Rows of the ``batch_size`` largest utilities, largest first, ties in random order.

    Parameters
    ----------
    utility : (n,) float64, finite.
    batch_size : 1 to n.
    rng : breaks ties.

    Returns
    -------
    (batch_size,) int64, distinct.
    """
    size = len(utility)
    threshold = np.partition(utility, size - batch_size)[size - batch_size]
    rows = np.flatnonzero(utility >= threshold)
    order = np.lexsort((rng.permutation(len(rows)), -utility[rows]))
    return rows[order[:batch_size]].astype(np.int64)


def hesitations(proba: npt.NDArray[np.float64], classes: Sequence[str], rows: npt.NDArray[np.int64]) -> list[str]:
    """What the model hesitates between, one line a row: ``margin 0.03: sport 0.49 vs politics 0.46``."""
    top = np.argsort(-proba[rows], axis=1, kind="stable")[:, :2]
    return [
        f"margin {proba[row, first] - proba[row, second]:.2f}: {classes[first]} {proba[row, first]:.2f}"
        f" vs {classes[second]} {proba[row, second]:.2f}"
        for row, (first, second) in zip(rows, top, strict=True)
    ]


def nats(proba: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Entropy over the last axis, in nats, for arrays that modAL's measures do not take."""
    return np.asarray(-(proba * np.log(proba, out=np.zeros_like(proba), where=proba > 0)).sum(axis=-1))
