"""Dawid and Skene's model as they published it: a confusion matrix an annotator, by maximum likelihood."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from catalog.errors import ConfigError
from labeling.consensus import Consensus, Evidence
from labeling.expectation import TINY, decide, fit
from labeling.truth import TRUTH


@dataclass(frozen=True, kw_only=True, slots=True)
class DawidSkene:
    """Options of ``dawid_skene``.

    Parameters
    ----------
    max_iterations : passes over the answers at most.
    tolerance : passes end when the mean log-likelihood of an answer, in nats, changes by less.
    """

    max_iterations: int = 300
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        """Refuse what cannot end."""
        if self.max_iterations < 1 or not self.tolerance > 0:
            raise ConfigError(
                f"max_iterations={self.max_iterations} must be at least 1, tolerance={self.tolerance} above 0"
            )


@TRUTH.register("dawid_skene", DawidSkene)
def dawid_skene(evidence: Evidence, config: DawidSkene) -> Consensus:
    """Maximum likelihood of true labels and of everybody's error rates, from answers alone.

    With few answers an annotator or two an item it believes what chance did, and its confidences are too high:
    ``pooled_dawid_skene`` is the better choice there.

    Returns
    -------
    Consensus : confidence is the posterior probability of the label; quality the probability that the annotator answers
        rightly about an item drawn from all.

    References
    ----------
    Dawid and Skene (1979), Maximum Likelihood Estimation of Observer Error-Rates Using the EM Algorithm, equations 2.3
    to 2.5, from the shares of the votes as they do.
    """
    annotations = evidence.annotations.last_answers()
    model = fit(annotations, normalized, max_iterations=config.max_iterations, tolerance=config.tolerance)
    return decide(annotations, model)


def normalized(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Rows by their sums; rows of zeros, where an annotator never met a label, become equal shares."""
    filled = counts + TINY
    shares: npt.NDArray[np.float64] = filled / filled.sum(axis=2, keepdims=True)
    return shares
