"""Measuring every rule on every text."""

from collections.abc import Sequence

import polars as pl

from curation.rules import RULES


def measure(texts: pl.Series, names: Sequence[str]) -> pl.DataFrame:
    """Measure the named rules on every text, whether or not an earlier one fails.

    Parameters
    ----------
    texts : n strings, none null.
    names : registered rules.

    Returns
    -------
    n rows, one Float64 column a rule in the order given; null where a rule does not apply. A row depends on its text
    alone.

    Raises
    ------
    NotFoundError : a name is no rule.
    """
    text = pl.col("text")
    columns = [RULES[name].member(text).cast(pl.Float64).alias(name) for name in names]
    return texts.alias("text").to_frame().lazy().select(columns).collect()
