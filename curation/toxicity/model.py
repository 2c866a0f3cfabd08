"""Probability that a text is offensive, by the linear model of the package ``alt-profanity-check``.

A tf-idf of English words and a calibrated linear SVM, trained on tweets (Davidson et al. 2017) and Wikipedia comments.
It knows words, not meaning: it takes counter-speech and reclaimed words for offence and misses hate in polite words.
Its authors are not ours; the measured limits stand in ``docs/bias.md``.
"""

from functools import cache
from typing import Any

import numpy as np
import polars as pl

from catalog.errors import ConfigError

PACKAGE = "alt-profanity-check"
PIECE = r"[^\n.!?;。！？]+(?:[.!?;。！？]+|$|\n)"
"""A sentence or line, roughly. A tf-idf vector has length 1, so in a page one offensive sentence would drown."""


def toxicity_of(texts: pl.Series) -> pl.Series:
    """The highest probability of offence of a text's sentences.

    Parameters
    ----------
    texts : n strings, none null, of which English is understood.

    Returns
    -------
    (n,) Float64 in [0, 1]; 0 for a text without words. A text's value depends on that text alone.

    Raises
    ------
    ConfigError : the package is not installed.
    """
    pieces = (
        texts.alias("text")
        .to_frame()
        .select(piece=pl.col("text").str.extract_all(PIECE))
        .with_row_index("row")
        .explode("piece")
        .drop_nulls("piece")
        .filter(pl.col("piece").str.contains(r"\w"))
    )
    found = np.zeros(len(texts))
    if pieces.height:
        # Pieces repeat (short lines do); a probability is looked up once.
        distinct = pieces["piece"].unique()
        scored = pl.DataFrame({"piece": distinct, "toxicity": _proba(distinct.to_list())})
        best = pieces.join(scored, on="piece").group_by("row").agg(pl.col("toxicity").max())
        found[best["row"].to_numpy()] = best["toxicity"].to_numpy()
    return pl.Series("toxicity", found)


def _proba(texts: list[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
    vectorizer, model = _load()
    proba: np.ndarray[Any, np.dtype[np.float64]] = model.predict_proba(vectorizer.transform(texts))[:, 1]
    return proba


@cache
def _load() -> tuple[Any, Any]:
    try:
        from profanity_check.profanity_check import model, vectorizer
    except ImportError as error:
        raise ConfigError(
            f"rule 'toxicity' needs the package {PACKAGE}, which is not installed; `pip install 'winnow[toxicity]'`, "
            "or use rule 'toxic_term_count', which needs nothing"
        ) from error
    return vectorizer, model
