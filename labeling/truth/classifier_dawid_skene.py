"""Dawid and Skene's model with a classifier's probabilities as what is known of an item before any answer."""

from functools import partial

import numpy as np
import numpy.typing as npt

from labeling.annotations import Annotations
from labeling.consensus import Consensus, Evidence
from labeling.expectation import TINY, Fitted, decide, fit
from labeling.truth import TRUTH
from labeling.truth.pooled_dawid_skene import PooledDawidSkene, towards_all

Floats = npt.NDArray[np.float64]
WEIGHTS = np.linspace(0, 1, 11)
"""Of the classifier, that are tried; at 0 it is not heard."""


@TRUTH.register("classifier_dawid_skene", PooledDawidSkene)
def classifier_dawid_skene(evidence: Evidence, config: PooledDawidSkene) -> Consensus:
    """``pooled_dawid_skene`` in which items start from a classifier's probabilities instead of the labels' shares.

    How much it is heard is what makes the answers most likely, so that a useless classifier is not heard.

    Returns
    -------
    Consensus : as of ``dawid_skene``.

    Raises
    ------
    NoClassifierError : there are no probabilities.

    References
    ----------
    Raykar et al. (2010), Learning From Crowds, section 2.3, for several labels, with a classifier that was fitted out
    of sample instead of within the passes.
    """
    proba, annotations = evidence.probabilities(), evidence.annotations.last_answers()
    fitted = partial(
        fit, annotations, towards_all(config), max_iterations=config.max_iterations, tolerance=config.tolerance
    )
    prior = fitted_prior(annotations, fitted(), proba)
    return decide(annotations, fitted(prior=prior), prior)


def fitted_prior(annotations: Annotations, alone: Fitted, proba: Floats) -> Floats:
    """Between the labels' shares and the classifier's probabilities, what makes the answers most likely.

    Returns
    -------
    (num_items, num_labels) rows summing to 1: geometric means of both, weighed alike for all items.
    """
    log_proba, log_shares = np.log(np.maximum(proba, TINY)), np.log(np.maximum(alone.shares, TINY))
    fits = np.zeros(len(WEIGHTS))
    for items, log_answers in alone.log_likelihoods(annotations):
        for place, weight in enumerate(WEIGHTS):
            fits[place] += np.logaddexp.reduce(log_answers + _mixed(log_proba[items], log_shares, weight), axis=1).sum()
    return np.exp(_mixed(log_proba, log_shares, float(WEIGHTS[fits.argmax()])))


def _mixed(log_proba: Floats, log_shares: Floats, weight: float) -> Floats:
    mixed = weight * log_proba + (1 - weight) * log_shares
    top = mixed.max(axis=1, keepdims=True)
    mixed -= top + np.log(np.exp(mixed - top).sum(axis=1, keepdims=True))
    return mixed
