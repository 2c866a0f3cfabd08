"""Cheap difficulty: a member scores how hard each text is to learn from, without a model that was trained on labels.

A member is ``(texts: pl.Series, corpus: Corpus) -> pl.Series``: n Float64 values, higher is harder, null where the
measure makes no sense for the text's script. Its config is a ``Reads``. Parts have different units; compare them by
``ranked`` and join them by ``combine``.
"""

from collections.abc import Callable

import polars as pl

from catalog.registry import Registry
from curation.difficulty.corpus import Corpus, Reads
from curation.difficulty.counts import TokenCounts, count_tokens
from curation.difficulty.percentiles import combine, percentile, ranked

Difficulty = Callable[[pl.Series, Corpus], pl.Series]

DIFFICULTY: Registry[Difficulty] = Registry("difficulty", "curation.difficulty")


def reads_ngrams(names: tuple[str, ...]) -> bool:
    """Whether one of the named parts needs the corpus's n-grams counted."""
    return any(DIFFICULTY[name].config().ngrams for name in names)


__all__ = [
    "DIFFICULTY",
    "Corpus",
    "Difficulty",
    "Reads",
    "TokenCounts",
    "combine",
    "count_tokens",
    "percentile",
    "ranked",
    "reads_ngrams",
]
