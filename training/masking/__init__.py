"""Masking policies: which tokens of a text are hidden, for a model to find out.

Shape: n = tokens of a text that may be hidden, special ones left out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog.registry import Registry
from training.words import Numbers

Hidden = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class Maskable:
    """A text to hide tokens of.

    Parameters
    ----------
    num_tokens : n.
    words : gives the number of the word of each token, (n,); only asked where a policy keeps words together.
    difficulty : of the record, in [0, 1].
    progress : share of the training that is done, in [0, 1).
    """

    num_tokens: int
    words: Callable[[], Numbers]
    difficulty: float = 0.0
    progress: float = 0.0


MASKING: Registry[Callable[[Maskable, np.random.Generator, Any], Hidden]] = Registry(
    "masking policy", "training.masking"
)
"""Contract: ``(maskable, rng, config) -> hidden``, (n,) bool, at least one True where n is not 0."""


def checked_rate(rate: float, name: str = "rate") -> None:
    """Refuse a share of tokens outside (0, 1].

    Raises
    ------
    ValueError : with the share and its range.
    """
    if not 0 < rate <= 1:
        raise ValueError(f"{name}={rate} must lie in (0, 1]: the share of tokens that are hidden")


def budget(num_tokens: int, rate: float) -> int:
    """Tokens to hide: the nearest to the share of them, and at least one where there is any."""
    return min(num_tokens, max(1, round(rate * num_tokens)))
