"""Deduplication in stages whose memory is bounded: what one shard, one partition or one part of a graph contributes.

sign → entries by hash partition → links between rows of one bucket → connected parts → the pairs of each part.

A part is closed under candidate pairs, so what is found in it is what would be found in everything at once
(``banding.candidate_pairs``); ``near.find_near_duplicates`` is both the whole and the last stage.
"""

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import polars as pl

from curation.dedup.banding import Buckets, allowed_differences
from curation.dedup.config import NearConfig
from curation.dedup.exact import METHOD as EXACT_METHOD
from curation.dedup.keeper import keeper_order
from curation.dedup.minhash import band_hashes
from curation.dedup.near import METHOD as NEAR_METHOD
from curation.dedup.near import PAIR_SCHEMA

ENTRY_SCHEMA = {"hash": pl.UInt64, "row": pl.Int64, "sketch_low": pl.UInt64, "sketch_high": pl.UInt64}
MAX_PARTNERS = 100
LINK_SCHEMA = {"first": pl.Int64, "second": pl.Int64}


def band_entries(records: pl.DataFrame, config: NearConfig, *, exact: bool, threads: int = 1) -> pl.DataFrame:
    """Every band of every record that can have a near duplicate: ``hash, row, sketch_low, sketch_high``.

    Parameters
    ----------
    records : ``id``, ``text``, ``exact_hash``, ``length``, ``quality``, ``row`` (global number), ``scope`` (u64).
    exact : of records with one exact hash only the best is entered: the others have left before.
    """
    if exact:
        order = keeper_order(records["id"], records["length"], records["quality"])
        first = records["exact_hash"].gather(order["row"]).is_first_distinct()
        records = records[order["row"].filter(first).sort()]
    hashes, sketches = band_hashes(
        records["text"], config, bands=config.bands, rows=config.rows, seed=config.seed, threads=threads
    )
    hashes ^= records["scope"].to_numpy()[:, None]
    rows = records["row"].to_numpy()
    columns = [hashes.ravel(), *(np.repeat(one, config.bands) for one in (rows, sketches[:, 0], sketches[:, 1]))]
    return pl.DataFrame(dict(zip(ENTRY_SCHEMA, columns, strict=True)), schema=ENTRY_SCHEMA)


def split(frame: pl.DataFrame, parts: np.ndarray, num_parts: int) -> list[pl.DataFrame]:
    """The rows of each part, in their order.

    Parameters
    ----------
    parts : (n,) number of each row's part, from 0 to ``num_parts - 1``.
    """
    order = np.argsort(parts, kind="stable")
    edges = np.searchsorted(parts[order], np.arange(num_parts + 1))
    arranged = frame[order]
    return [arranged.slice(start, end - start) for start, end in pairwise(edges.tolist())]


def hash_part(hashes: np.ndarray, num_parts: int) -> np.ndarray:
    """The part of each 64-bit hash: equal ranges of the upper half; (n,) int64."""
    return ((hashes >> np.uint64(32)) * np.uint64(num_parts) >> np.uint64(32)).astype(np.int64)


def hex_part(hashes: pl.Series, num_parts: int) -> np.ndarray:
    """The part of each hexadecimal hash, by its first eight digits; (n,) int64."""
    upper = hashes.str.slice(0, 8).str.to_integer(base=16, dtype=pl.UInt64).to_numpy()
    return hash_part(upper << np.uint64(32), num_parts)


def bucket_links(entries: pl.DataFrame, config: NearConfig) -> tuple[pl.DataFrame, np.ndarray]:
    """Connect the rows of one partition whose pairs are worth measuring.

    Parameters
    ----------
    entries : all entries of a range of hashes, without rows that left as exact duplicates.

    Returns
    -------
    links : ``first``, ``second``; a spanning forest of the pairs, one link for each row but the roots.
    hot : (m,) uint64, sorted: hashes of the buckets with more than ``max_bucket`` rows.
    """
    from curation.dedup.kernels import settle_roots, unite  # compiles: numba takes half a second

    hashes, rows = entries["hash"].to_numpy(), entries["row"].to_numpy()
    sketches = np.column_stack([entries[name].to_numpy() for name in ("sketch_low", "sketch_high")])
    buckets = Buckets.of(hashes, rows, sketches)
    hot = buckets.hot(config.max_bucket)
    first, second = buckets.pairs(hot, allowed_differences(config.threshold, config.num_perm))
    involved, places = np.unique(np.concatenate([first, second]), return_inverse=True)
    parents = np.arange(len(involved), dtype=np.int64)
    unite(parents, places[: len(first)], places[len(first) :])
    settle_roots(parents)
    child = parents != np.arange(len(parents))
    links = pl.DataFrame({"first": involved[parents[child]], "second": involved[child]}, schema=LINK_SCHEMA)
    return links, np.sort(buckets.hashes[hot])


def join(num_rows: int, links: Iterable[pl.DataFrame]) -> np.ndarray:
    """The lowest row that each row is connected with, itself if with none: (num_rows,) uint32 while that is enough."""
    from curation.dedup.kernels import settle_roots, unite  # compiles: numba takes half a second

    parents = np.arange(num_rows, dtype=np.uint32 if num_rows < 2**32 else np.int64)
    for one in links:
        unite(parents, one["first"].to_numpy(), one["second"].to_numpy())
    settle_roots(parents)
    return parents


def divide(parents: np.ndarray, max_rows: int) -> tuple[np.ndarray, int]:
    """Put connected rows into parts that take about the room of ``max_rows`` rows without pairs.

    Parameters
    ----------
    parents : (num_rows,) as of ``join``.
    max_rows : a pair takes the room of half a row, and each row is taken to have a pair with each that it is connected
        with, at most with ``MAX_PARTNERS``. So a corpus with many copies of each text takes more parts, not more room.

    Returns
    -------
    parts : (num_rows,) uint32, 0 for a row that is linked to nobody; a component is never divided, so one that
        takes more room is a part by itself.
    num_parts : without part 0.
    """
    sizes = np.bincount(parents, minlength=len(parents))
    roots = np.flatnonzero(sizes > 1)
    room = sizes[roots] + sizes[roots] * np.minimum(sizes[roots] - 1, MAX_PARTNERS) // 4
    filled = np.cumsum(room) - room
    _, number = np.unique(filled // max_rows, return_inverse=True)
    part_of_root = np.zeros(len(parents), dtype=np.uint32)
    part_of_root[roots] = number + 1
    return part_of_root[parents], int(number.max()) + 1 if len(roots) else 0


def exact_pairs(pairs: pl.DataFrame) -> pl.DataFrame:
    """``record_id`` and ``keeper_id`` of equal texts as measured pairs."""
    return pairs.select(
        "record_id",
        "keeper_id",
        jaccard=pl.lit(1.0),
        bands_shared=pl.lit(0, pl.Int64),
        accepted=pl.lit(value=True),
        kind=pl.lit("exact"),
        rule=pl.lit(EXACT_METHOD),
    )


def near_pairs(pairs: pl.DataFrame) -> pl.DataFrame:
    """What ``find_near_duplicates`` measured, with the same columns."""
    return pairs.select(list(PAIR_SCHEMA)).with_columns(kind=pl.lit("near"), rule=pl.lit(NEAR_METHOD))


def follow(exact: pl.DataFrame, near: pl.DataFrame) -> pl.DataFrame:
    """Exact and near pairs together; an exact duplicate follows its keeper where that left to a better record.

    Its normalized text is its keeper's, so the measured Jaccard is too, and nobody stands behind a record that is gone.

    Parameters
    ----------
    exact, near : pairs with ``record_id``, ``keeper_id``, ``accepted`` and the same further columns.
    """
    behind = followers(exact, near.filter("accepted")).sort("record_id", "keeper_id")
    return pl.concat([behind, near])


def followers(exact: pl.DataFrame, left: pl.DataFrame) -> pl.DataFrame:
    """The pairs of exact duplicates alone, when those of ``left`` (accepted pairs) have left to better records."""
    moved = exact.select("record_id", left="keeper_id").join(left.rename({"record_id": "left"}), on="left", how="inner")
    # It shared no band: it was not measured itself.
    moved = moved.with_columns(bands_shared=pl.lit(0, pl.Int64))
    exact = exact.with_columns(accepted=~pl.col("record_id").is_in(moved["record_id"].implode()))
    return pl.concat([part.select(exact.columns) for part in (exact, moved)])
