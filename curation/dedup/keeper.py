"""Which of several duplicates is kept."""

import polars as pl

from catalog.errors import DataError


def keeper_order(ids: pl.Series, lengths: pl.Series, quality: pl.Series | None) -> pl.DataFrame:
    """Sort records so that of any duplicates the first is kept: by quality, then length, both falling, then id.

    Parameters
    ----------
    ids : n distinct record ids; they come from content, so the order is the same for any order of files.
    lengths : n text lengths, in characters.
    quality : n numbers, higher is better, or None; a null is below every number.

    Returns
    -------
    n rows ``row`` (position in the arguments) and ``id``, best first.

    Raises
    ------
    DataError : an id stands twice, or the arguments have different lengths.
    """
    if len(lengths) != len(ids) or (quality is not None and len(quality) != len(ids)):
        raise DataError(f"{len(ids)} ids need as many lengths and qualities, not {len(lengths)}")
    if ids.n_unique() != len(ids):
        raise DataError(f"record id {ids.filter(ids.is_duplicated())[0]!r} stands twice; give each record once")
    best = pl.repeat(0.0, len(ids), eager=True) if quality is None else quality
    frame = pl.DataFrame({"id": ids, "length": lengths, "quality": best.cast(pl.Float64).fill_nan(None)})
    return (
        frame.with_row_index("row")
        .sort(["quality", "length", "id"], descending=[True, True, False], nulls_last=True)
        .select("row", "id")
    )
