"""Record identity: a hash of the content and a counter among identical contents."""

from collections.abc import Iterator

import polars as pl
import xxhash


def content_hash(records: pl.DataFrame) -> pl.Series:
    """Hash the content of each record.

    Parameters
    ----------
    records : ``text`` str, ``label`` str or null, ``fields`` str (canonical JSON).

    Returns
    -------
    32 hex digits each: xxh3-128 over the three values, each with its length before it, so that moving a character from
    one to the next, or a null to an empty label, gives another hash.
    """
    rows = records.select("text", "label", "fields").iter_rows()
    hashes = [xxhash.xxh3_128_hexdigest(b"".join(_encoded(row))) for row in rows]
    return pl.Series("content", hashes, dtype=pl.String)


def _encoded(values: tuple[str | None, ...]) -> Iterator[bytes]:
    for value in values:
        data = None if value is None else value.encode()
        yield b"-" if data is None else b"%d:" % len(data)
        yield data or b""


def assign_ids(hashes: pl.DataFrame, taken: pl.DataFrame | None = None) -> pl.Series:
    """Give every record its id, ``{content}-{counter}``.

    The counter numbers identical contents by (source, line), so the ids do not depend on the order of the rows.

    Parameters
    ----------
    hashes : ``content`` str, ``source`` str (a name that does not change, e.g. the file's SHA-256), ``line`` i64; one
        row a record, (source, line) distinct.
    taken : ``content`` str, ``count`` int: how many ids each content already has; counting goes on from there.

    Returns
    -------
    n ids in the order of the rows.
    """
    order = hashes.lazy().with_row_index("row").sort("content", "source", "line")
    counted = order.with_columns(counter=pl.int_range(pl.len(), dtype=pl.Int64).over("content"))
    if taken is not None:
        used = taken.lazy().group_by("content").agg(used=pl.col("count").sum().cast(pl.Int64))
        counted = counted.join(used, on="content", how="left").with_columns(
            counter=pl.col("counter") + pl.col("used").fill_null(0)
        )
    ids = counted.sort("row").select(id=pl.format("{}-{}", "content", "counter")).collect()
    return ids["id"]
