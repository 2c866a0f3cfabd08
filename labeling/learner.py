"""A linear head on fixed embeddings: refitted from scratch in seconds after every round."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog.errors import DataError, nearest
from labeling.determinism import one_thread

NUM_MEMBERS = 8
"""Heads of a committee."""
NUM_FOLDS = 5
"""Each labelled record is judged by a model fitted on the four fifths that it is not in."""
NORMAL_QUANTILE_95 = 1.959963984540054
CHUNK_ROWS = 65_536
"""Rows scored at a time, so that a large pool is never copied as a whole."""


@dataclass(frozen=True, slots=True, eq=False)
class Learner:
    """A fitted classifier over the classes of a label schema. Made by ``Learner.fit``."""

    classes: tuple[str, ...]
    model: Any
    columns: npt.NDArray[np.int64]
    """Where the fitted model's classes stand in ``classes``."""

    @classmethod
    def fit(
        cls,
        embeddings: npt.NDArray[np.float32],
        labels: Sequence[str],
        classes: Sequence[str],
        seed: int,
        weights: npt.NDArray[np.float64] | None = None,
    ) -> "Learner":
        """Fit a logistic regression (lbfgs) on labelled embeddings. The same input gives the same bits.

        Parameters
        ----------
        embeddings : (n, dim) float32.
        labels : (n,) names, each in ``classes``.
        classes : every class of the schema, in schema order, seen or not.
        seed : passed to the solver.
        weights : (n,) float64 above 0, what each label counts; default 1.

        Raises
        ------
        DataError : no labels, a single class, a label outside the schema, or lengths that differ.
        """
        from sklearn.linear_model import LogisticRegression

        codes = _codes(embeddings, labels, classes)
        seen = sorted({int(code) for code in codes})
        if len(seen) < 2:
            have = f"all {len(codes)} labels are {classes[seen[0]]!r}" if seen else "there are no labels"
            raise DataError(f"{have}; a model needs labels of at least two classes: label more records first")
        model = LogisticRegression(C=10.0, max_iter=1000, random_state=seed)
        with one_thread():
            model.fit(np.asarray(embeddings, dtype=np.float64), codes, sample_weight=weights)
        return cls(tuple(classes), model, np.asarray(model.classes_, dtype=np.int64))

    def proba(self, embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Class probabilities, one column a class of the schema, in its order.

        Returns
        -------
        (n, num_classes) float64, rows summing to 1; classes without a label so far get 0.
        """
        proba = np.zeros((len(embeddings), len(self.classes)))
        with one_thread():
            for start in range(0, len(embeddings), CHUNK_ROWS):
                rows = slice(start, start + CHUNK_ROWS)
                proba[rows, self.columns] = self.model.predict_proba(np.asarray(embeddings[rows], dtype=np.float64))
        return proba

    def evaluate(self, embeddings: npt.NDArray[np.float32], labels: Sequence[str]) -> dict[str, float]:
        """Measure on held-out records.

        Returns
        -------
        ``accuracy``, ``macro_f1`` (over the classes that occur among answers or predictions), ``n``, and ``low`` and
        ``high``: the Wilson interval of the accuracy at 95 %.

        Raises
        ------
        DataError : no records, or a label outside the schema.
        """
        from sklearn.metrics import f1_score

        gold = _codes(embeddings, labels, self.classes)
        if not len(gold):
            raise DataError("there are no held-out records to measure on; keep some gold labels back")
        predicted = self.proba(embeddings).argmax(axis=1)
        correct = int((predicted == gold).sum())
        low, high = wilson_interval(correct, len(gold))
        return {
            "accuracy": correct / len(gold),
            "macro_f1": float(f1_score(gold, predicted, average="macro", zero_division=0.0)),
            "n": len(gold),
            "low": low,
            "high": high,
        }


def out_of_sample(
    embeddings: npt.NDArray[np.float32],
    labels: Sequence[str],
    classes: Sequence[str],
    seed: int,
    num_folds: int = NUM_FOLDS,
) -> npt.NDArray[np.float64] | None:
    """What models make of labelled records that were fitted without them, each record held out in one fold.

    Parameters
    ----------
    embeddings, labels, classes, seed : as for ``Learner.fit``.

    Returns
    -------
    (n, num_classes) float64, rows summing to 1; None where a fold leaves a single class to learn from.
    """
    codes = _codes(embeddings, labels, classes)
    fold = np.random.default_rng(seed).permutation(len(codes)) % num_folds
    proba = np.zeros((len(codes), len(classes)))
    for number in range(num_folds):
        left = fold != number
        if len(np.unique(codes[left])) < 2:
            return None
        learner = Learner.fit(embeddings[left], [classes[code] for code in codes[left]], classes, seed)
        proba[~left] = learner.proba(embeddings[~left])
    return proba


def fit_committee(
    embeddings: npt.NDArray[np.float32],
    labels: Sequence[str],
    classes: Sequence[str],
    seed: int,
    num_members: int = NUM_MEMBERS,
) -> tuple[Learner, ...]:
    """Fit heads that differ as much as the labels leave open: each on the same labels, weighed by chance.

    Parameters
    ----------
    embeddings, labels, classes, seed : as for ``Learner.fit``.
    num_members : from 2 up.

    Raises
    ------
    DataError : as ``Learner.fit``.

    References
    ----------
    Rubin (1981), The Bayesian Bootstrap: weights from a flat Dirichlet. Unlike drawing with replacement it never loses
    a class of which there is one label.
    """
    rng = np.random.default_rng(seed)
    return tuple(
        # Weights of 0 would lose a label after all.
        Learner.fit(embeddings, labels, classes, seed, np.maximum(rng.exponential(size=len(labels)), 1e-3))
        for _ in range(num_members)
    )


def wilson_interval(num_correct: int, num_trials: int) -> tuple[float, float]:
    """The score interval of a proportion at 95 %.

    References
    ----------
    Wilson (1927), Probable Inference, the Law of Succession, and Statistical Inference.

    Examples
    --------
    >>> low, high = wilson_interval(81, 263)
    >>> round(low, 4), round(high, 4)
    (0.2553, 0.3662)
    """
    share, z2 = num_correct / num_trials, NORMAL_QUANTILE_95**2
    centre = (share + z2 / (2 * num_trials)) / (1 + z2 / num_trials)
    half = sqrt(share * (1 - share) / num_trials + z2 / (4 * num_trials**2)) / (1 + z2 / num_trials)
    return max(0.0, centre - NORMAL_QUANTILE_95 * half), min(1.0, centre + NORMAL_QUANTILE_95 * half)


def _codes(embeddings: npt.NDArray[Any], labels: Sequence[str], classes: Sequence[str]) -> npt.NDArray[np.int64]:
    if len(embeddings) != len(labels):
        raise DataError(f"{len(embeddings)} embeddings and {len(labels)} labels; there must be one label a record")
    position = {name: code for code, name in enumerate(classes)}
    for label in labels:
        if label not in position:
            raise DataError(f"label {label!r} is not in the schema; {nearest(str(label), classes)}")
    return np.array([position[label] for label in labels], dtype=np.int64)
