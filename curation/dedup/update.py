"""Match new records against an index: what changes, and the segment that they become."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl

from catalog.errors import ConflictError, DataError
from curation.dedup.config import NearConfig
from curation.dedup.exact import exact_hash, find_exact_duplicates
from curation.dedup.index import MAX_ROWS, Index, Links, Segment, exact_prefix, sorted_entries
from curation.dedup.minhash import band_hashes
from curation.dedup.near import find_near_duplicates
from curation.dedup.stages import exact_pairs, follow, near_pairs


@dataclass(frozen=True, kw_only=True)
class Update:
    """What new records bring.

    Parameters
    ----------
    pairs : every measured pair of the new records and of ``decided``, as a run over everything would have it.
    decided : ``row``, ``id`` of the old records that were looked at again; what was said of them before is void.
    segment : to be added to the index.
    """

    pairs: pl.DataFrame
    decided: pl.DataFrame
    segment: Segment


def match(
    records: pl.DataFrame, index: Index, load: Callable[[np.ndarray], pl.DataFrame], config: NearConfig
) -> Update:
    """Deduplicate new records together with the old ones whose pairs they can change.

    Parameters
    ----------
    records : ``id``, ``text`` of n new records; their rows follow those of the index.
    load : gives ``row``, ``id``, ``text`` of rows (sorted uint32) of the index, in their order.
    config : that with which the index was made.

    Raises
    ------
    DataError : more rows than an index can number. ConflictError : a new text has the hash of an old one that differs.
    """
    if index.num_rows + records.height > MAX_ROWS:
        raise DataError(
            f"an index holds {MAX_ROWS:,} rows at most, not {index.num_rows + records.height:,}; "
            "deduplicate without it (--rebuild), or divide the dataset"
        )
    first_row = index.num_rows
    rows = np.arange(first_row, first_row + records.height, dtype=np.uint32)
    records = records.select(pl.Series("row", rows), "id", "text")
    hashes = exact_hash(records["text"])
    prefix = exact_prefix(hashes)
    exact = sorted_entries(prefix, rows)
    places, equal = index.known(exact[0])
    known = np.isin(prefix, exact[0][places])
    entered = np.flatnonzero(hashes.is_first_distinct().to_numpy() & ~known)
    bands, found = band_hashes(
        records["text"].gather(entered), config, bands=config.bands, rows=config.rows, seed=config.seed
    )
    touched = index.touched(bands, found, config)
    old = load(index.connected(np.concatenate([equal, touched.rows])))
    everything = pl.concat([old, records])
    every_hash = pl.concat([exact_hash(old["text"]), hashes])
    _confirm(records, hashes, every_hash[: old.height], known)

    gone = find_exact_duplicates(everything["id"], every_hash, length=everything["text"].str.len_chars())
    left = everything.filter(~pl.col("id").is_in(gone["record_id"].implode()))
    hot = np.union1d(index.hot, touched.hot)
    near = find_near_duplicates(left["id"], left["text"], None, config, hot=hot).pairs
    pairs = follow(exact_pairs(gone), near_pairs(near)).sort("record_id", "keeper_id")

    sketches = np.zeros((records.height, 2), dtype=np.uint64)
    sketches[entered] = found
    segment = Segment(
        first_row=first_row,
        num_rows=records.height,
        bands=[sorted_entries(bands.ravel(), np.repeat(rows[entered], config.bands))],
        exact=[exact],
        sketches=[(first_row, sketches)],
        links=Links.between([_rows(everything, near), _rows(everything, gone)]),
        hot=touched.hot,
    )
    return Update(pairs=pairs, decided=old.select("row", "id"), segment=segment)


def _confirm(records: pl.DataFrame, hashes: pl.Series, old: pl.Series, known: np.ndarray) -> None:
    """Half a hash chose who is equal: it must be so by the whole one."""
    false = ~hashes.is_in(old.implode()) & pl.Series(known)
    if false.any():
        raise ConflictError(
            f"record {records.filter(false)['id'][0]!r} shares 64 bits of its text's hash with a text that differs; "
            "deduplicate without the index (--rebuild)"
        )


def _rows(records: pl.DataFrame, pairs: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the two records of each pair."""
    order = records.select("id", "row").sort("id")
    first, second = (order["row"].gather(order["id"].search_sorted(pairs[name])) for name in ("keeper_id", "record_id"))
    return first.to_numpy(), second.to_numpy()
