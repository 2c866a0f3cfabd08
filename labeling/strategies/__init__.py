"""Query strategies: which unlabelled records are worth asking about.

A strategy is a function ``(candidates, batch_size, rng) -> Selection``: ``batch_size`` distinct rows, best first, with
a utility that never rises and one line an item that says why. It may count on ``1 <= batch_size <= len(candidates)``
and on one thread (``labeling.selection.choose`` sees to both), is deterministic under one seed, and changes nothing it
is given. One that needs a model asks ``candidates.probabilities()``; one that lacks an optional field says so by
``candidates.require``. What costs more than a pass over the pool works on a shortlist (``labeling.shortlist``).
"""

from collections.abc import Callable

import numpy as np

from catalog.registry import Registry
from labeling.candidates import Candidates, Selection

Strategy = Callable[[Candidates, int, np.random.Generator], Selection]

STRATEGIES: Registry[Strategy] = Registry("query strategy", "labeling.strategies")
