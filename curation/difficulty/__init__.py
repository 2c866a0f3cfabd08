"""Cheap difficulty: a member scores how hard each text is to learn from, without a model.

A member is ``(texts: pl.Series, corpus: TokenCounts) -> pl.Series``: n Float64 values, never null, higher is harder.
Parts have different units; compare them by ``percentile`` and join them by ``combine``.
"""

from collections.abc import Callable

import polars as pl

from catalog.registry import Registry
from curation.difficulty.counts import TokenCounts, count_tokens
from curation.difficulty.percentiles import combine, percentile

Difficulty = Callable[[pl.Series, TokenCounts], pl.Series]

DIFFICULTY: Registry[Difficulty] = Registry("difficulty", "curation.difficulty")

__all__ = ["DIFFICULTY", "Difficulty", "TokenCounts", "combine", "count_tokens", "percentile"]
