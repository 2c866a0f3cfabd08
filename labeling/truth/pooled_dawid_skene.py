"""Dawid and Skene's model with what all annotators have in common as the starting point of each."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from catalog.errors import ConfigError
from labeling.consensus import Consensus, Evidence
from labeling.expectation import Shape, decide, fit
from labeling.truth import TRUTH


@dataclass(frozen=True, kw_only=True, slots=True)
class PooledDawidSkene:
    """Options of ``pooled_dawid_skene``.

    Parameters
    ----------
    pooled : answers, a true label, that every annotator is credited with as all annotators together gave them.
    right : further ones that were right. They keep the model from settling on mirrored labels.
    max_iterations : passes over the answers at most.
    tolerance : passes end when the mean log-likelihood of an answer, in nats, changes by less.
    """

    pooled: float = 0.25
    right: float = 0.25
    max_iterations: int = 300
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        """Refuse what cannot end, or takes away answers."""
        if self.max_iterations < 1 or not self.tolerance > 0:
            raise ConfigError(
                f"max_iterations={self.max_iterations} must be at least 1, tolerance={self.tolerance} above 0"
            )
        if not self.pooled > 0 or self.right < 0:
            raise ConfigError(f"pooled={self.pooled} must be above 0, right={self.right} not below")


@TRUTH.register("pooled_dawid_skene", PooledDawidSkene)
def pooled_dawid_skene(evidence: Evidence, config: PooledDawidSkene) -> Consensus:
    """Most likely labels and error rates where each annotator's are drawn towards those of all: the default.

    An annotator with few answers is taken for an average one, one with many for what they say.

    Returns
    -------
    Consensus : as of ``dawid_skene``.

    References
    ----------
    Paun et al. (2018), Comparing Bayesian Models of Annotation, hierarchical Dawid and Skene, with a fixed strength of
    the common part and by expectation and maximization instead of sampling. The strengths were chosen on the data of
    docs/agreement.md.
    """
    annotations = evidence.annotations.last_answers()
    model = fit(annotations, towards_all(config), max_iterations=config.max_iterations, tolerance=config.tolerance)
    return decide(annotations, model)


def towards_all(config: PooledDawidSkene) -> Shape:
    """How to make confusion matrices from counts and what all annotators have in common."""

    def shape(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        common = counts.sum(axis=0) + 1.0
        common /= common.sum(axis=1, keepdims=True)
        filled: npt.NDArray[np.float64] = counts + (config.pooled * common + config.right * np.eye(len(common)))
        filled /= filled.sum(axis=2, keepdims=True)
        return filled

    return shape
