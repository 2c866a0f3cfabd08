"""Whole words."""

from dataclasses import dataclass

import numpy as np

from training.masking import MASKING, Hidden, Maskable, budget, checked_rate


@dataclass(frozen=True, kw_only=True, slots=True)
class WholeWord:
    """How many.

    Parameters
    ----------
    rate : share of tokens that are hidden, in (0, 1].
    """

    rate: float = 0.15

    def __post_init__(self) -> None:
        checked_rate(self.rate)


@MASKING.register("whole_word", WholeWord)
def whole_word(maskable: Maskable, rng: np.random.Generator, config: WholeWord) -> Hidden:
    """Hide whole words in random order until the share of tokens is reached, leaving out those that overshoot it.

    Where even the first word is longer than that, it alone is hidden. What a word is in scripts without spaces says
    ``word_numbers``. After the second release of BERT (Devlin et al. 2019); Cui et al. (2021) for Chinese.
    """
    words = maskable.words()
    hidden = np.zeros(maskable.num_tokens, dtype=bool)
    if not len(words):
        return hidden
    lengths = np.bincount(words)
    left = budget(maskable.num_tokens, config.rate)
    chosen = np.zeros(len(lengths), dtype=bool)
    for word in rng.permutation(len(lengths)).tolist():
        if lengths[word] <= left or not chosen.any():
            chosen[word] = True
            left -= int(lengths[word])
        if left <= 0:
            break
    return chosen[words]
