"""What one training leaves about every record, epoch by epoch."""

from dataclasses import dataclass
from typing import Literal

import numpy as np


@dataclass(frozen=True, eq=False)
class Trace:
    """One training of a head on fixed vectors, measured on all of its records after each epoch.

    Parameters
    ----------
    confidence : (epochs, n) float32, probability of the given label.
    margin : (epochs, n) float32, logit of the given label less the largest other one.
    error_norm : (epochs, n) float32, Euclidean length of the probabilities less the one-hot label.
    held_out_loss : (n,) float64, -ln p of the given label under classifiers that did not see the record, in nats.
    """

    confidence: np.ndarray
    margin: np.ndarray
    error_norm: np.ndarray
    held_out_loss: np.ndarray

    @property
    def is_correct(self) -> np.ndarray:
        """(epochs, n) bool, whether the given label was the likeliest."""
        return np.asarray(self.margin > 0)


@dataclass(frozen=True, kw_only=True)
class Direction:
    """Which end of a measure is the hard one."""

    hard: Literal["high", "low"] = "high"


@dataclass(frozen=True, kw_only=True)
class LowIsHard(Direction):
    """Easy records have high values."""

    hard: Literal["high", "low"] = "low"
