"""Query strategies: which unlabelled records are worth asking about.

A strategy is a function ``(candidates, batch_size, rng) -> Selection``: ``batch_size`` distinct rows, best first, with
a utility that never rises and one line an item that says why. It may count on ``1 <= batch_size <= len(candidates)``
and on one thread (``labeling.selection.choose`` sees to both), is deterministic under one seed, and changes nothing it
is given. One that needs a model asks ``candidates.probabilities()``; one that lacks an optional field says so by
``candidates.require``. What costs more than a pass over the pool works on a shortlist (``labeling.shortlist``).

Its config may say which task types it holds for, as the class attribute ``tasks``: a set of names, or None for all of
them. Without that it holds where an answer is one class of several (``labeling.fitness``).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from catalog.registry import Registry
from labeling.candidates import Candidates, Selection

Strategy = Callable[[Candidates, int, np.random.Generator], Selection]


@dataclass(frozen=True)
class AnyTask:
    """Config of a strategy that looks at no answer: it holds for every task type."""

    tasks: ClassVar[frozenset[str] | None] = None


@dataclass(frozen=True)
class SingleChoiceOnly:
    """Config of a strategy about single labels."""

    tasks: ClassVar[frozenset[str] | None] = frozenset({"single_choice"})


@dataclass(frozen=True)
class MultiLabelOnly:
    """Config of a strategy about sets of labels."""

    tasks: ClassVar[frozenset[str] | None] = frozenset({"multi_label"})


@dataclass(frozen=True)
class SpansOnly:
    """Config of a strategy about the labels of tokens."""

    tasks: ClassVar[frozenset[str] | None] = frozenset({"spans"})


STRATEGIES: Registry[Strategy] = Registry("query strategy", "labeling.strategies")
