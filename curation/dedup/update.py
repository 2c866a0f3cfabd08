"""Match new records against an index: what changes, and the segment that they become.

Read again are only old records whose pairs or verdicts can change:

- those that make a pair with a new one, and those whose verdicts hang together with theirs: connected by similar pairs;
- where a bucket is larger than ``max_bucket``, and so which pairs are made depends on all of its members, everything
  that is connected by any measured pair. A set that is closed so gives what everything at once would give
  (``banding.candidate_pairs``); for others that holds of their similar pairs and of those with new records;
- where a new record is better than all that had its text, likewise, since it takes over their pairs.

Records with one text are a group, of which the best is measured; the others follow it. Of a group whose best fares as
before nobody else is read.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl

from catalog.errors import ConflictError, DataError
from curation.dedup.config import NearConfig
from curation.dedup.exact import exact_hash
from curation.dedup.index import MAX_ROWS, Index, Links, Segment, exact_prefix, sorted_entries
from curation.dedup.keeper import keeper_order
from curation.dedup.minhash import band_hashes
from curation.dedup.near import find_near_duplicates
from curation.dedup.stages import exact_pairs, followers, near_pairs

Rows = np.ndarray
ALL, SIMILAR, EQUAL = "all", "similar", "equal"
"""Which pairs of a record, stored before, are void: all; those at or above the threshold; those of equal texts."""


@dataclass(frozen=True, kw_only=True)
class Old:
    """How old records are read.

    Parameters
    ----------
    texts : gives ``row, id, text`` of sorted rows (uint32) of the index, in their order.
    ids : gives ``row, id`` likewise.
    left : gives the accepted pairs, as measured pairs, of those of the ids that have left, in any order.
    """

    texts: Callable[[Rows], pl.DataFrame]
    ids: Callable[[Rows], pl.DataFrame]
    left: Callable[[pl.Series], pl.DataFrame]


@dataclass(frozen=True, kw_only=True)
class Update:
    """What new records bring.

    Parameters
    ----------
    pairs : measured pairs, as a run over everything would have them: all of new records, and of old ones those that
        ``void`` takes away.
    decided : the accepted ones of ``pairs`` whose record is new or in ``changed``: how these fare now.
    void : ``id``, ``pairs`` (``ALL``, ``SIMILAR``, ``EQUAL``): what was stored of old records and holds no more.
    changed : ``row``, ``id`` of old records that may have stayed before, or left to another.
    num_read : number of old records whose text was read.
    segment : to be added to the index.
    """

    pairs: pl.DataFrame
    decided: pl.DataFrame
    void: pl.DataFrame
    changed: pl.DataFrame
    num_read: int
    segment: Segment


def match(records: pl.DataFrame, index: Index, old: Old, config: NearConfig, *, threads: int = 1) -> Update:
    """Deduplicate new records together with the old ones that they touch.

    Parameters
    ----------
    records : ``id``, ``text`` of n new records; their rows follow those of the index.
    config : that with which the index was made.
    threads : at most so many cores are used.

    Raises
    ------
    DataError : more rows than an index can number. ConflictError : a new text has the hash of an old one that differs.
    """
    if index.num_rows + records.height > MAX_ROWS:
        raise DataError(
            f"an index holds {MAX_ROWS:,} rows at most, not {index.num_rows + records.height:,}; "
            "deduplicate without it (--rebuild), or divide the dataset"
        )
    new = _ranked(records, index.num_rows)
    known = _known(new, index)
    entered = new.filter("first", ~pl.col("prefix").is_in(known["prefix"].implode()))
    bands, sketches = band_hashes(
        entered["text"], config, bands=config.bands, rows=config.rows, seed=config.seed, threads=threads
    )
    touched = index.touched(bands, sketches, config)
    hot = np.union1d(index.hot, touched.hot)
    reader = _Reader(old)
    some = index.connected(touched.rows, similar=True)
    whole = index.connected(np.concatenate([touched.unsettled, np.intersect1d(some, index.in_hot())]))
    # Whether a new record is better than a known one is not known yet; to read twice would take longer.
    perhaps = index.connected(known["rep"].to_numpy())
    reader.read(np.unique(np.concatenate([known["best"].to_numpy(), perhaps, some, whole])))
    known = _compared(known, new, reader)
    better = known.filter("better")
    whole = np.union1d(whole, index.connected(better["rep"].to_numpy()))
    groups = _groups(index, reader, np.union1d(some, whole), whole, better)

    bests = pl.concat([groups.select("id", "text"), entered.select("id", "text")])
    near = find_near_duplicates(bests["id"], bests["text"], None, config, hot=hot, threads=threads).pairs
    fresh = pl.concat([entered["id"], groups.filter("fresh")["id"]]).implode()
    of_new = pl.col("record_id").is_in(fresh) | pl.col("keeper_id").is_in(fresh)
    of_whole = pl.col("record_id").is_in(groups.filter("whole")["id"].implode())
    near = near.filter(of_new | of_whole | (pl.col("jaccard") >= config.threshold))
    measured = near_pairs(near)

    changed = _changed(groups, index, reader, measured.filter("accepted"))
    following = pl.concat([changed.select("id", "best_id"), _following(new, entered, known)])
    following = following.filter(pl.col("id") != pl.col("best_id"))
    # The best of a group that was not read again fares as before.
    elsewhere = following["best_id"].filter(~following["best_id"].is_in(bests["id"].implode())).unique()
    left = pl.concat([measured.filter("accepted"), old.left(elsewhere).select(measured.columns)])
    exact = exact_pairs(following.rename({"id": "record_id", "best_id": "keeper_id"}))
    pairs = pl.concat([measured, followers(exact, left)]).sort("record_id", "keeper_id")
    ours = pl.concat([records["id"], changed["id"]]).implode()
    return Update(
        pairs=pairs,
        decided=pairs.filter(pl.col("accepted") & pl.col("record_id").is_in(ours)),
        void=_void(groups, changed),
        changed=changed.select("row", "id"),
        num_read=reader.frame.height,
        segment=_segment(new, entered, groups, near, (bands, sketches, touched.hot), index.num_rows, config),
    )


def _ranked(records: pl.DataFrame, first_row: int) -> pl.DataFrame:
    """New records in keeper order: ``row, id, text, hash, prefix, length``, and ``first`` of its text or not."""
    rows = pl.Series("row", np.arange(first_row, first_row + records.height), dtype=pl.UInt32)
    hashes = exact_hash(records["text"])
    frame = records.select(
        rows,
        "id",
        "text",
        hash=hashes,
        prefix=pl.Series(exact_prefix(hashes), dtype=pl.UInt64),
        length=pl.col("text").str.len_chars(),
    )
    ranked = frame[keeper_order(frame["id"], frame["length"], None)["row"]]
    return ranked.with_columns(first=pl.col("hash").is_first_distinct())


def _known(new: pl.DataFrame, index: Index) -> pl.DataFrame:
    """New texts that the index has: ``prefix``; ``rep``, the row that stands for all; ``best``, the best old one."""
    prefixes = np.unique(new["prefix"].to_numpy())
    places, rows = index.known(prefixes)
    places, first = np.unique(places, return_index=True)
    found, reps = prefixes[places], rows[first]
    return pl.DataFrame(
        {"prefix": found, "rep": reps, "best": index.best(found, reps)},
        schema={"prefix": pl.UInt64, "rep": pl.UInt32, "best": pl.UInt32},
    )


class _Reader:
    """Old records that were read so far: ``row, id, text, hash, prefix``."""

    def __init__(self, old: Old) -> None:
        self.old = old
        self.frame = self._read(np.empty(0, np.uint32))

    def _read(self, rows: Rows) -> pl.DataFrame:
        texts = self.old.texts(rows)
        hashes = exact_hash(texts["text"])
        return texts.with_columns(hash=hashes, prefix=pl.Series(exact_prefix(hashes), dtype=pl.UInt64))

    def read(self, rows: Rows) -> pl.DataFrame:
        """Those of some rows (each once), in their order."""
        missing = np.setdiff1d(rows, self.frame["row"].to_numpy()).astype(np.uint32)
        if len(missing):
            self.frame = pl.concat([self.frame, self._read(missing)]).sort("row")
        return self.frame[self.frame["row"].search_sorted(pl.Series(rows, dtype=pl.UInt32))]

    def ids(self, rows: Rows) -> pl.DataFrame:
        """``row, id`` of sorted rows; texts are not read for it."""
        known = self.frame.filter(pl.col("row").is_in(pl.Series(rows, dtype=pl.UInt32).implode())).select("row", "id")
        missing = np.setdiff1d(rows, known["row"].to_numpy()).astype(np.uint32)
        return pl.concat([known, self.old.ids(missing)]).sort("row") if len(missing) else known


def _compared(known: pl.DataFrame, new: pl.DataFrame, reader: _Reader) -> pl.DataFrame:
    """With ``best_id``, the best of the group as it is now, and whether that is a new one: ``better``.

    Half a hash chose who is equal: it must be so by the whole one.
    """
    old = reader.read(known["best"].to_numpy()).select("hash", "id", length=pl.col("text").str.len_chars())
    both = pl.concat([known, old], how="horizontal").join(
        new.filter("first").select("prefix", "length", "id", "hash", "row", "text"), on="prefix", suffix="_new"
    )
    false = both.filter(pl.col("hash") != pl.col("hash_new"))
    if false.height:
        raise ConflictError(
            f"record {false['id_new'][0]!r} shares 64 bits of its text's hash with {false['id'][0]!r}, whose text "
            "differs; deduplicate without the index (--rebuild)"
        )
    longer, as_long = pl.col("length_new") > pl.col("length"), pl.col("length_new") == pl.col("length")
    better = longer | (as_long & (pl.col("id_new") < pl.col("id")))
    return both.with_columns(better=better, best_id=pl.when(better).then("id_new").otherwise("id"))


def _groups(index: Index, reader: _Reader, reps: Rows, whole: Rows, better: pl.DataFrame) -> pl.DataFrame:
    """Groups that are measured again, by their best: ``rep, prefix, id, text, old_id, fresh, whole``."""
    stand = reader.read(reps).sort("prefix")
    best = index.best(stand["prefix"].to_numpy(), stand["row"].to_numpy())
    reader.read(np.unique(best))
    records = reader.read(best)
    groups = pl.DataFrame([stand["row"].alias("rep"), stand["prefix"], records["id"].alias("old_id"), records["text"]])
    taken_over = better.select("rep", id_new="id_new", text_new="text")
    return groups.join(taken_over, on="rep", how="left", maintain_order="left").select(
        "rep",
        "prefix",
        id=pl.coalesce("id_new", "old_id"),
        text=pl.coalesce("text_new", "text"),
        old_id="old_id",
        fresh=pl.col("id_new").is_not_null(),
        whole=pl.col("rep").is_in(pl.Series(whole, dtype=pl.UInt32).implode()),
    )


def _changed(groups: pl.DataFrame, index: Index, reader: _Reader, accepted: pl.DataFrame) -> pl.DataFrame:
    """Old members of groups whose best is another, or fares otherwise than before: ``row, id, best_id``."""
    fate = ["record_id", "keeper_id", "jaccard", "bands_shared"]
    before = reader.old.left(groups["old_id"]).select(fate)
    after = accepted.select(fate)
    one_side = pl.concat([before.join(after, on=fate, how="anti"), after.join(before, on=fate, how="anti")])
    other = pl.col("old_id").is_in(one_side["record_id"].implode())
    changed = groups.filter(pl.col("fresh") | other).sort("prefix")
    places, rows = index.known(changed["prefix"].to_numpy())
    best = changed["id"].gather(places)
    by_row = np.argsort(rows)
    return reader.ids(rows[by_row]).with_columns(best_id=best.gather(by_row))


def _following(new: pl.DataFrame, entered: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """New records and the best of their group: ``id, best_id``."""
    best = pl.concat([entered.select("prefix", best_id="id"), known.select("prefix", "best_id")])
    return new.join(best, on="prefix", how="inner").select("id", "best_id")


def _void(groups: pl.DataFrame, changed: pl.DataFrame) -> pl.DataFrame:
    everything = pl.col("whole") | pl.col("fresh")
    measured = groups.select(id="old_id", pairs=pl.when(everything).then(pl.lit(ALL)).otherwise(pl.lit(SIMILAR)))
    return pl.concat([measured, changed.select("id", pairs=pl.lit(EQUAL))])


def left_alone(pairs: pl.DataFrame, void: pl.DataFrame, threshold: float) -> pl.DataFrame:
    """Those of earlier measured pairs that later updates left alone.

    Parameters
    ----------
    void : of all later updates.
    """

    def of(kind: str) -> pl.Expr:
        return pl.col("record_id").is_in(void.filter(pl.col("pairs") == kind)["id"].implode())

    equal = pl.col("bands_shared") == 0
    gone = of(ALL) | (of(SIMILAR) & ~equal & (pl.col("jaccard") >= threshold)) | (of(EQUAL) & equal)
    return pairs.filter(~gone)


def _segment(
    new: pl.DataFrame,
    entered: pl.DataFrame,
    groups: pl.DataFrame,
    near: pl.DataFrame,
    signed: tuple[np.ndarray, np.ndarray, np.ndarray],
    first_row: int,
    config: NearConfig,
) -> Segment:
    bands, sketches, hot = signed
    rows = entered["row"].to_numpy()
    of_row = np.zeros((new.height, 2), dtype=np.uint64)
    of_row[rows - first_row] = sketches
    better = groups.filter("fresh").join(new.select("id", "row"), on="id").sort("prefix")
    order = pl.concat([groups.select("id", row="rep"), entered.select("id", "row")]).sort("id")

    first, second = (order["id"].search_sorted(near[name]).to_numpy() for name in ("keeper_id", "record_id"))
    similar = (near["jaccard"] >= config.threshold).to_numpy()
    return Segment(
        first_row=first_row,
        num_rows=new.height,
        bands=[sorted_entries(bands.ravel(), np.repeat(rows, config.bands))],
        exact=[sorted_entries(new["prefix"].to_numpy(), new["row"].to_numpy())],
        better=(better["prefix"].to_numpy(), better["row"].to_numpy()),
        sketches=[(first_row, of_row)],
        measured=[Links.of(order["row"].to_numpy(), first, second)],
        similar=[Links.of(order["row"].to_numpy(), first[similar], second[similar])],
        hot=hot,
    )
