"""Quality by an n-gram model of a reference."""

import numpy as np
import polars as pl

from curation.ngram import NgramModel
from curation.quality import SCORERS, Model, Score, Scored


@SCORERS.register("perplexity", Scored)
def perplexity(model: Model) -> Score:
    """Perplexity a token under an n-gram model that was trained on a reference; lower is more like it.

    References
    ----------
    Wenzek et al. (2020), CCNet: Extracting High Quality Monolingual Datasets from Web Crawl Data, section 4.2, who
    rank web pages by the perplexity of a model of Wikipedia; the threshold depends on the reference and is the user's.
    """
    known = NgramModel.from_bytes(model.raw)

    def score(texts: pl.Series) -> np.ndarray:
        return np.round(known.perplexity(texts), 4)

    return score
