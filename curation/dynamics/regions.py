"""The data map: easy, ambiguous, hard, or suspected of a wrong label."""

import numpy as np
import polars as pl

REGIONS = ("easy", "ambiguous", "hard", "suspected")
MOSTLY = 0.5
"""Correctness below which a label is not what the head learned: after most epochs another was likelier."""
AMBIGUOUS_SHARE = 1 / 3
"""Share of the records, by variability, that are called ambiguous (a third in Swayamdipta et al. 2020, section 3)."""


def regions(
    confidence: np.ndarray, variability: np.ndarray, correctness: np.ndarray, suspected: np.ndarray
) -> pl.Series:
    """Say of each record where it lies.

    A label that the head holds for unlikely all along, with little wavering, is suspected, and so is one that the
    detection of label errors suspects: such a record is wrong rather than hard, and never counts as hard.

    Parameters
    ----------
    confidence, variability, correctness : (n,) float64, means over seeds.
    suspected : (n,) bool, by ``curation.label_errors``.

    Returns
    -------
    n of ``REGIONS``.

    References
    ----------
    Swayamdipta et al. (2020), Dataset Cartography, sections 3 and 5: hard-to-learn records are low in both, and those
    that were mislabelled on purpose come to lie there.
    """
    if not len(confidence):
        return pl.Series("region", [], dtype=pl.String)
    never = (correctness < MOSTLY) & (variability <= np.median(variability))
    wavers = variability > np.quantile(variability, 1 - AMBIGUOUS_SHARE)
    names = np.select(
        [suspected | never, wavers, confidence >= np.median(confidence)], ["suspected", "ambiguous", "easy"], "hard"
    )
    return pl.Series("region", names.tolist(), dtype=pl.String)
