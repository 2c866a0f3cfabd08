"""Difficulty by how badly a small language model of the corpus foresees the text."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from catalog.errors import DataError
from curation.difficulty import DIFFICULTY
from curation.difficulty.corpus import Corpus, Reads


@dataclass(frozen=True, kw_only=True)
class Perplexity(Reads):
    """It reads n-grams."""

    ngrams: bool = True


@DIFFICULTY.register("perplexity", Perplexity)
def perplexity(texts: pl.Series, corpus: Corpus) -> pl.Series:
    """Perplexity a character under the corpus's own 5-gram model of characters (``curation.ngram``).

    The text is itself a part of that corpus, so a text that stands often is easy. Across scripts it compares badly:
    a character of Chinese says more than one of English.

    Raises
    ------
    DataError : the corpus's n-grams were not counted.

    References
    ----------
    Marion et al. (2023), When Less is More: Investigating Data Pruning for Pretraining LLMs at Scale,
    arXiv 2309.04564, section 3.1, with a large model.
    """
    from curation.ngram import surprise  # compiles: numba takes half a second

    if corpus.ngrams is None:
        raise DataError("perplexity needs the corpus's n-grams, which were not counted; count_ngrams does")
    return pl.Series("perplexity", np.exp(surprise(texts, corpus.ngrams)), dtype=pl.Float64)
