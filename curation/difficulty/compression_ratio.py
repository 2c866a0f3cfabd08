"""Difficulty by what compression leaves."""

import zlib

import polars as pl

from curation.difficulty import DIFFICULTY
from curation.difficulty.corpus import Corpus, Reads

LEVEL = 6


@DIFFICULTY.register("compression_ratio", Reads)
def compression_ratio(texts: pl.Series, corpus: Corpus) -> pl.Series:  # noqa: ARG001 - one contract
    """Compressed bytes by raw bytes (raw DEFLATE, level 6): repetitive text is near 0, dense text near 1.

    Short texts: below some hundred bytes there is little to repeat, so the ratio falls with length before it says
    anything about content, and can pass 1. An empty text gives 0.

    References
    ----------
    Curriculum signals compared in arXiv 2506.11300, where compression ratio is among the effective ones.
    """
    return pl.Series("compression_ratio", [_ratio(text.encode()) for text in texts.to_list()], dtype=pl.Float64)


def _ratio(data: bytes) -> float:
    if not data:
        return 0.0
    compressor = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    return (len(compressor.compress(data)) + len(compressor.flush())) / len(data)
