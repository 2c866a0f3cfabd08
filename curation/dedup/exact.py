"""Exact duplicates: texts that are equal once normalized."""

import polars as pl

from curation.dedup.keeper import keeper_order


def find_exact_duplicates(
    ids: pl.Series, hashes: pl.Series, *, length: pl.Series, quality: pl.Series | None = None
) -> pl.DataFrame:
    """Find the records whose hash another, better record has.

    Parameters
    ----------
    ids : n distinct record ids.
    hashes : n hashes of normalized texts, as ``exact_hash`` returns them.
    length : n text lengths, in characters.
    quality : n numbers, higher is better, or None.

    Returns
    -------
    A row for each record that leaves, sorted by ``record_id``: ``record_id`` and ``keeper_id``. The keeper has the
    highest quality, then length, then the smallest id; the result does not depend on the order of the arguments' rows.

    Raises
    ------
    DataError : an id stands twice.
    """
    order = keeper_order(ids, length, quality)
    ranked = order.with_columns(hash=hashes.gather(order["row"]))
    return (
        ranked.with_columns(keeper_id=pl.col("id").first().over("hash"))
        .filter(pl.col("id") != pl.col("keeper_id"))
        .select(record_id="id", keeper_id="keeper_id")
        .sort("record_id")
    )
