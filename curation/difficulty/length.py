"""Difficulty by length."""

import polars as pl

from curation.difficulty import DIFFICULTY
from curation.difficulty.corpus import Corpus, Reads
from curation.tokens import TOKEN


@DIFFICULTY.register("length", Reads)
def length(texts: pl.Series, corpus: Corpus) -> pl.Series:  # noqa: ARG001 - one contract
    """Number of tokens: words, and the characters of scripts without spaces.

    References
    ----------
    Spitkovsky et al. (2010), From Baby Steps to Leapfrog: shorter sentences first.
    """
    return texts.str.count_matches(TOKEN).cast(pl.Float64).alias("length")
