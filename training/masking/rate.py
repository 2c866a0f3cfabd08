"""A fixed share of single tokens."""

from dataclasses import dataclass

import numpy as np

from training.masking import MASKING, Hidden, Maskable, budget, checked_rate


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """How many.

    Parameters
    ----------
    rate : share of tokens that are hidden, in (0, 1].
    """

    rate: float = 0.15

    def __post_init__(self) -> None:
        checked_rate(self.rate)


@MASKING.register("rate", Rate)
def rate(maskable: Maskable, rng: np.random.Generator, config: Rate) -> Hidden:
    """Hide a share of the tokens, each as likely as any other (Devlin et al. 2019, section 3.1)."""
    hidden = np.zeros(maskable.num_tokens, dtype=bool)
    hidden[rng.permutation(maskable.num_tokens)[: budget(maskable.num_tokens, config.rate)]] = True
    return hidden
