"""Difficulty by lexical diversity."""

from typing import Any

import numba
import numpy as np
import polars as pl

from curation.difficulty import DIFFICULTY
from curation.difficulty.corpus import Corpus, Reads
from curation.tokens import hash_tokens

THRESHOLD = 0.72
"""Type-token ratio at which a factor ends (McCarthy and Jarvis 2010, page 385)."""
_compiled: Any = numba.njit(nogil=True, cache=True, boundscheck=False)


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
    tokens = hash_tokens(texts.str.to_lowercase())
    out = np.zeros(len(tokens), dtype=np.float64)
    _mtld_rows(tokens.values, tokens.offsets, THRESHOLD, out)
    return pl.Series("mtld", out, dtype=pl.Float64)


@_compiled
def _mtld_rows(values, offsets, threshold, out):
    """Both directions of every row; a table of seen tokens is emptied by raising the stamp that says when."""
    longest = 1
    for row in range(len(offsets) - 1):
        longest = max(longest, offsets[row + 1] - offsets[row])
    size = 2
    while size < 2 * longest:
        size *= 2
    keys = np.zeros(size, dtype=np.uint64)
    stamps = np.zeros(size, dtype=np.int64)
    stamp = 0
    for row in range(len(offsets) - 1):
        start, stop = offsets[row], offsets[row + 1]
        number = stop - start
        if number == 0:
            continue
        total = 0.0
        for backwards in range(2):
            stamp += 1
            factors = 0.0
            types, count = 0, 0
            ratio = 1.0
            for at in range(number):
                value = values[stop - 1 - at] if backwards else values[start + at]
                place = np.int64(value & np.uint64(size - 1))
                while stamps[place] == stamp and keys[place] != value:
                    place = (place + 1) & (size - 1)
                if stamps[place] != stamp:
                    keys[place], stamps[place] = value, stamp
                    types += 1
                count += 1
                ratio = types / count
                if ratio <= threshold:
                    factors += 1.0
                    types, count = 0, 0
                    ratio = 1.0
                    stamp += 1
            if count:
                factors += (1.0 - ratio) / (1.0 - threshold)
            total += number / factors if factors > 0.0 else float(number)
        out[row] = total / 2.0
