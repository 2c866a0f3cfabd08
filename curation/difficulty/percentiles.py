"""Joining measures of different units by their ranks."""

import numpy as np
import polars as pl

from catalog.errors import DataError


def percentile(values: np.ndarray) -> np.ndarray:
    """Rank of each value among all, from 0 (lowest) to 1 (highest); equal values share their mean rank.

    >>> percentile(np.array([3.0, 1.0, 3.0, 7.0])).tolist()
    [0.5, 0.0, 0.5, 1.0]

    Parameters
    ----------
    values : (n,) numbers.

    Returns
    -------
    (n,) float64 in [0, 1]; a single value, or all equal ones, give 0.5.

    Raises
    ------
    DataError : a value is NaN.
    """
    values = np.asarray(values, dtype=np.float64)
    if np.isnan(values).any():
        raise DataError(f"row {int(np.isnan(values).argmax())} has no value; measure every record before ranking")
    if len(values) < 2:
        return np.full(len(values), 0.5)
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    below = np.cumsum(counts) - counts
    ranks = (below + (counts - 1) / 2) / (len(values) - 1)
    return np.asarray(ranks[inverse.ravel()], dtype=np.float64)


def ranked(values: pl.Series) -> pl.Series:
    """``percentile`` of the values there are; null where there is none."""
    is_known = values.is_not_null()
    ranks = np.full(len(values), np.nan)
    ranks[is_known.to_numpy()] = percentile(values.drop_nulls().to_numpy())
    return pl.Series(values.name, ranks, dtype=pl.Float64, nan_to_null=True)


def combine(percentiles: pl.DataFrame) -> pl.Series:
    """Mean of the percentiles of each record: its difficulty, in [0, 1]; 0.5 where every part is null.

    Parameters
    ----------
    percentiles : n rows, one Float64 column a part, at least one; null where a part makes no sense for the record.

    Raises
    ------
    DataError : there is no column.
    """
    if not percentiles.columns:
        raise DataError("no difficulty parts to combine; name at least one in the recipe")
    return percentiles.select(difficulty=pl.mean_horizontal(pl.all()).fill_null(0.5))["difficulty"]
