"""Word lists of insults, slurs and obscenities in several languages: the measure that needs no model."""

from functools import cache
from importlib import resources

import numpy as np
import polars as pl
import yaml

from catalog.yaml_keys import StrictLoader
from curation.terms import TermIndex


@cache
def toxic_terms() -> TermIndex:
    """The built-in words, by language."""
    text = (resources.files("curation.toxicity") / "terms.yaml").read_text("utf-8")
    return TermIndex(yaml.load(text, Loader=StrictLoader))  # noqa: S506 - a SafeLoader


def count_toxic_terms(texts: pl.Series) -> pl.Series:
    """How many listed words a text has, each as often as it stands there.

    Parameters
    ----------
    texts : n strings, none null.

    Returns
    -------
    (n,) Float64. A word that several languages list counts once.
    """
    counted = toxic_terms().counts(texts).group_by("row").agg(pl.col("count").max())
    found = np.zeros(len(texts))
    found[counted["row"].to_numpy()] = counted["count"].to_numpy()
    return pl.Series("toxic_term_count", found)
