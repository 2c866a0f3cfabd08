"""Difficulty as training shows it: a member scores each labelled record by how a small head learned it.

A member is ``(trace: Trace) -> np.ndarray``: (n,) float64, finite, from one training; callers take the mean over seeds.
Its config is a ``Direction``: whether a high or a low value is the hard one.
"""

from collections.abc import Callable

import numpy as np

from catalog.registry import Registry
from curation.dynamics.trace import Direction, Trace

Measure = Callable[[Trace], np.ndarray]

DYNAMICS: Registry[Measure] = Registry("learned difficulty", "curation.dynamics")

__all__ = ["DYNAMICS", "Direction", "Measure", "Trace"]
