"""Difficulty by lexical diversity."""

import numpy as np
import polars as pl

from curation.difficulty import DIFFICULTY
from curation.difficulty.corpus import Corpus, Reads
from curation.tokens import hash_tokens

THRESHOLD = 0.72
"""Type-token ratio at which a factor ends (McCarthy and Jarvis 2010, page 385)."""


@DIFFICULTY.register("mtld", Reads)
def mtld(texts: pl.Series, corpus: Corpus) -> pl.Series:  # noqa: ARG001 - one contract
    """Measure of textual lexical diversity: mean length, in tokens, of stretches whose type-token ratio stays high.

    Mean of the values read forwards and backwards; case is ignored, tokens are words and the characters of scripts
    without spaces. A text in which no token stands twice gives its number of tokens, none gives 0. Below some hundred
    tokens it mostly follows length.

    References
    ----------
    McCarthy and Jarvis (2010), MTLD, vocd-D, and HD-D, Behavior Research Methods 42(2), 381-392; threshold 0.72.
    As an effective curriculum signal: arXiv 2506.11300.
    """
    from curation.difficulty.mtld_kernels import mtld_rows  # compiles: numba takes half a second

    tokens = hash_tokens(texts.str.to_lowercase())
    out = np.zeros(len(tokens), dtype=np.float64)
    mtld_rows(tokens.values, tokens.offsets, THRESHOLD, out)
    return pl.Series("mtld", out, dtype=pl.Float64)
