"""Difficulty by rare words."""

import numpy as np
import polars as pl

from curation.difficulty import DIFFICULTY
from curation.difficulty.corpus import Corpus, Reads
from curation.difficulty.counts import NUM_BUCKETS, buckets_of
from curation.tokens import hash_tokens


@DIFFICULTY.register("rarity", Reads)
def rarity(texts: pl.Series, corpus: Corpus) -> pl.Series:
    """Mean of -ln p over a text's tokens, in nats, with p from the corpus counts plus one in every bucket.

    A text without tokens is as rare as one token never seen.

    References
    ----------
    Platanios et al. (2019), Competence-based Curriculum Learning for NMT, section 2.1, who take the sum; the mean
    keeps length out of it.
    """
    surprise = np.log(float(corpus.tokens.total + NUM_BUCKETS)) - np.log(corpus.tokens.counts + 1.0)
    tokens = hash_tokens(texts.str.to_lowercase())
    owners = np.repeat(np.arange(len(tokens)), tokens.lengths)
    sums = np.bincount(owners, weights=surprise[buckets_of(tokens.values)], minlength=len(tokens))
    unseen = np.log(float(corpus.tokens.total + NUM_BUCKETS))
    means = np.where(tokens.lengths > 0, sums / np.maximum(tokens.lengths, 1), unseen)
    return pl.Series("rarity", means, dtype=pl.Float64)
