"""What a method that finds the truth behind answers is given, and what it returns."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from catalog.errors import DataError
from labeling.annotations import Annotations


class NoClassifierError(DataError):
    """The method weighs a classifier's probabilities, and there are none."""

    code = "no_classifier"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Evidence:
    """Answers, and what a classifier that never saw them thinks.

    Parameters
    ----------
    annotations : one answer an annotator and item counts, the last.
    proba : (num_items, num_labels) float64, rows summing to 1: probabilities of a classifier that was fitted without
        the item (out of sample), or None.

    Raises
    ------
    DataError : no answers; shapes disagree; a row of ``proba`` is negative or does not sum to 1 within 1e-6.
    """

    annotations: Annotations
    proba: npt.NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if not len(self.annotations):
            raise DataError("there are no answers to find a consensus in; label something first")
        if self.proba is None:
            return
        shape = (self.annotations.num_items, self.annotations.num_labels)
        if self.proba.shape != shape:
            raise DataError(f"proba of shape {self.proba.shape} must be {shape}: items by labels")
        if not np.allclose(self.proba.sum(axis=1), 1.0, atol=1e-6) or (self.proba < 0).any():
            raise DataError("every row of proba must be non-negative and sum to 1 within 1e-6")

    def probabilities(self) -> npt.NDArray[np.float64]:
        """``proba``, for methods that cannot do without.

        Raises
        ------
        NoClassifierError : there is none.
        """
        if self.proba is None:
            raise NoClassifierError("there is no classifier; use dawid_skene, or fit one out of sample")
        return self.proba


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Consensus:
    """The label of every item, and how good every annotator is.

    Parameters
    ----------
    label : (num_items,) int32, numbers of labels; -1 for an item without an answer.
    confidence : (num_items,) float64 in [0, 1]: how likely the label is right, by the method's own lights; 0 without
        an answer.
    quality : (num_annotators,) float64 in [0, 1]: how likely an answer of the annotator is right, likewise; NaN for one
        who answered nothing.
    num_iterations : passes over the answers; 1 where nothing is iterated.
    converged : False where the passes allowed did not suffice.
    """

    label: npt.NDArray[np.int32]
    confidence: npt.NDArray[np.float64]
    quality: npt.NDArray[np.float64]
    num_iterations: int = 1
    converged: bool = True
