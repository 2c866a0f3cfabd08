"""Which records are held out: decided by the record's id alone, so that the answer never moves."""

import polars as pl
import xxhash

_RANGE = 2**64


def is_test(ids: pl.Series, share: float, seed: int) -> pl.Series:
    """Say which records belong to the held-out part, by the xxh3-64 hash of the id.

    Adding or removing other records never moves a record across the split, and a larger share keeps
    every record that a smaller one held out.

    Parameters
    ----------
    ids : (n_records,) str, unique record ids.
    share : expected share of held-out records, in [0, 1).
    seed : picks another split.

    Returns
    -------
    (n_records,) bool, True where held out.

    Raises
    ------
    ValueError : ``share`` is out of range.
    """
    if not 0 <= share < 1:
        raise ValueError(f"share={share} must lie in [0, 1); hold out less")
    limit = int(share * _RANGE)
    held_out = [xxhash.xxh3_64_intdigest(one.encode(), seed=seed) < limit for one in ids]
    return pl.Series("is_test", held_out, dtype=pl.Boolean)
