"""CAL: records that the model judges otherwise than their labelled neighbours."""

import numpy as np

from labeling.candidates import Candidates, Selection
from labeling.distances import nearest
from labeling.shortlist import by_chance
from labeling.strategies import STRATEGIES
from labeling.uncertainty import best_first

NUM_NEIGHBOURS = 10
SAMPLE_ROWS = 50_000
"""Neighbours are looked up for so many candidates: time is linear in them, and in the labels."""
FLOOR = 1e-7
"""Probabilities below are raised to it, so that logarithms are finite."""


@STRATEGIES.register("cal")
def cal(candidates: Candidates, batch_size: int, rng: np.random.Generator) -> Selection:
    """Largest mean Kullback-Leibler divergence from the labelled neighbours' probabilities first.

    Of a pool above ``SAMPLE_ROWS`` a uniform sample of so many is looked at.

    Returns
    -------
    Selection : utility in nats, at least 0.

    Raises
    ------
    ColdStartError : there is no model, or nothing labelled, yet.
    DataError : there is a model, but ``labelled_proba`` is missing.

    References
    ----------
    Margatina et al. (2021), Active Learning by Acquiring Contrastive Examples, algorithm 1.
    """
    proba, labelled = candidates.probabilities(), candidates.labelled_proba
    if labelled is None:
        candidates.require("labelled_proba", "give the model's probabilities of labelled_embeddings")
    assert labelled is not None
    rows = by_chance(len(candidates), batch_size, rng, SAMPLE_ROWS)
    if not len(labelled):
        return Selection(
            indices=rows[:batch_size],
            utility=np.zeros(batch_size),
            why=["random: no neighbour is labelled"] * batch_size,
        )
    num_neighbours = min(NUM_NEIGHBOURS, len(labelled))
    neighbours, _ = nearest(candidates.embeddings[rows], candidates.labelled_embeddings, num_neighbours)
    theirs, own = np.clip(labelled, FLOOR, 1), np.clip(proba[rows], FLOOR, 1)
    theirs /= theirs.sum(axis=1, keepdims=True)
    own /= own.sum(axis=1, keepdims=True)
    negative_entropy = (theirs * np.log(theirs)).sum(axis=1)
    mean = np.zeros_like(own)
    for place in range(num_neighbours):
        mean += theirs[neighbours[:, place]] / num_neighbours
    divergence = negative_entropy[neighbours].mean(axis=1) - (mean * np.log(own)).sum(axis=1)
    divergence = np.maximum(divergence, 0.0)
    picks = best_first(divergence, batch_size, rng)
    classes = candidates.classes
    why = [
        f"contrast: the model says {classes[own[pick].argmax()]} {own[pick].max():.2f}, of the {num_neighbours} "
        f"nearest labelled items {classes[mean[pick].argmax()]} {mean[pick].max():.2f}"
        for pick in picks
    ]
    return Selection(indices=rows[picks], utility=divergence[picks], why=why)
