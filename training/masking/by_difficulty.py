"""More of what is harder, or later."""

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from training.masking import MASKING, Hidden, Maskable, checked_rate

Grows = Literal["difficulty", "progress"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ByDifficulty:
    """From how many to how many.

    Parameters
    ----------
    low, high : shares of tokens hidden at 0 and at 1 of what it grows with, in (0, 1]; a falling share is allowed.
    grows_with : the record's ``difficulty``, or the training's ``progress``.
    of, options : the policy that is given the share, and its other options.
    """

    low: float = 0.1
    high: float = 0.3
    grows_with: Grows = "difficulty"
    of: str = "rate"
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checked_rate(self.low, "low")
        checked_rate(self.high, "high")
        if self.grows_with not in get_args(Grows):
            raise ValueError(f"grows_with={self.grows_with!r} must be one of {', '.join(get_args(Grows))}")
        if self.of == "by_difficulty" or "rate" in self.options:
            raise ValueError(f"of={self.of!r} with options={self.options} must be another policy, its rate left out")
        MASKING[self.of].configured(self.options | {"rate": self.low})


@MASKING.register("by_difficulty", ByDifficulty)
def by_difficulty(maskable: Maskable, rng: np.random.Generator, config: ByDifficulty) -> Hidden:
    """Hide a share that grows evenly with the record's difficulty, or with the training's progress.

    With progress, after Yang et al. (2023), Learning Better Masking for Better Language Model Pre-training, section 4,
    who let it fall; the difficulty is ours.
    """
    place = maskable.difficulty if config.grows_with == "difficulty" else maskable.progress
    policy = MASKING[config.of]
    rate = config.low + (config.high - config.low) * place
    return policy.member(maskable, rng, policy.configured(config.options | {"rate": rate}))
