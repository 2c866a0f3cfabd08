"""Spans of words."""

from dataclasses import dataclass

import numpy as np

from training.masking import MASKING, Hidden, Maskable, budget, checked_rate


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """How many, and how long.

    Parameters
    ----------
    rate : share of tokens that are hidden, in (0, 1].
    stop : chance that a span ends behind each of its words, in (0, 1]: its length is geometric, on average 1 / stop.
    max_words : longer spans are cut.
    """

    rate: float = 0.15
    stop: float = 0.2
    max_words: int = 10

    def __post_init__(self) -> None:
        checked_rate(self.rate)
        if not 0 < self.stop <= 1:
            raise ValueError(f"stop={self.stop} must lie in (0, 1]")
        if self.max_words < 1:
            raise ValueError(f"max_words={self.max_words} must be at least 1")


@MASKING.register("span", Span)
def span(maskable: Maskable, rng: np.random.Generator, config: Span) -> Hidden:
    """Hide spans of whole words, of geometric length, until the share of tokens is reached.

    The last span is cut at the word that reaches it. After Joshi et al. (2020), SpanBERT, section 3.1.
    """
    words = maskable.words()
    hidden = np.zeros(maskable.num_tokens, dtype=bool)
    if not len(words):
        return hidden
    lengths = np.bincount(words)
    left = budget(maskable.num_tokens, config.rate)
    chosen = np.zeros(len(lengths), dtype=bool)
    while left > 0:
        num_words = min(int(rng.geometric(config.stop)), config.max_words)
        # From a word that is still shown, so that every span hides something.
        start = int(rng.choice(np.flatnonzero(~chosen)))
        for word in range(start, min(start + num_words, len(lengths))):
            if left > 0 and not chosen[word]:
                chosen[word] = True
                left -= int(lengths[word])
    return chosen[words]
