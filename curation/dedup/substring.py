"""Repeated passages: spans of tokens that stand in another record, or earlier in the same one, found exactly.

A window is ``min_tokens`` tokens in a row. A window is repeated when the same tokens occur before: in a record that is
kept in preference, or earlier in the same record without overlap. What the repeated windows of a record cover is cut
into spans; each names the place of the first occurrence. Nothing is decided by hash alone.

The work is done in five stages that a job engine can run apart, each on its own share of the data:

1. ``sample_windows`` (texts of a shard): one anchor for each window, chosen by content, so that equal windows have
   equal anchors; about one token in ``min_tokens / 4`` is an anchor.
2. ``shared_anchors`` (a part of the hash space): anchors that stand in more than one place. Most do not.
3. ``windows_at`` (texts of a shard again, those with shared anchors): all windows with such an anchor.
4. ``first_occurrences`` (a part of the hash space): each repeated window with the first, and only with the first.
5. ``verified_spans`` (texts of some records and of those they repeat): compare token by token, cut, name.

Records are numbers in keeper order (``keeper_order``), 0 the best; so no result depends on the order of rows, shards or
parts.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
import polars as pl

from catalog.errors import ConfigError, DataError, nearest
from curation.dedup.keeper import keeper_order
from curation.dedup.places import place_tokens
from curation.dedup.rows import utf8

_Item = TypeVar("_Item")

METHOD = "substring/1"
"""Method and version; raise the number when the same input gives other spans."""
ACTIONS = ("report", "remove")
BATCH_BYTES = 1 << 23
"""Bytes of text taken at a time: bounds the arrays of tokens, which take about ten times as much."""

WINDOW_SCHEMA = {"hash": pl.UInt64, "row": pl.UInt32, "position": pl.UInt32}
CANDIDATE_SCHEMA = {"row": pl.UInt32, "position": pl.UInt32, "keeper_row": pl.UInt32, "keeper_position": pl.UInt32}
ROW_SPAN_SCHEMA = {
    "row": pl.UInt32,
    "start": pl.Int64,
    "end": pl.Int64,
    "keeper_row": pl.UInt32,
    "keeper_start": pl.Int64,
    "keeper_end": pl.Int64,
    "num_tokens": pl.Int64,
}
SPAN_SCHEMA = {
    "record_id": pl.String,
    "start": pl.Int64,
    "end": pl.Int64,
    "keeper_id": pl.String,
    "keeper_start": pl.Int64,
    "keeper_end": pl.Int64,
    "num_tokens": pl.Int64,
}


@dataclass(frozen=True, kw_only=True)
class SubstringConfig:
    """Which repeated passages are found, and what becomes of them.

    Parameters
    ----------
    min_tokens : tokens in a row that must be the same, from 2 to 10,000. Half as many find many more set phrases.
    action : ``report`` leaves texts as they are; ``remove`` cuts the spans out of them.

    Raises
    ------
    ConfigError : a value out of its range.
    """

    min_tokens: int = 50
    action: str = "report"

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        value = self.min_tokens
        if isinstance(value, bool) or not isinstance(value, int) or not 2 <= value <= 10_000:
            raise ConfigError(f"min_tokens={value!r} must be a whole number from 2 to 10000; 50 is usual")
        if self.action not in ACTIONS:
            raise ConfigError(f"action={self.action!r} must be one of {', '.join(ACTIONS)}; report changes no text")

    @classmethod
    def configured(cls, given: Mapping[str, Any]) -> "SubstringConfig":
        """From a recipe's keys.

        Raises
        ------
        ConfigError : an unknown key, with the nearest known; a value out of its range.
        """
        known = [one.name for one in fields(cls)]
        for key in given:
            if key not in known:
                raise ConfigError(f"unknown option {key!r}; {nearest(str(key), known)}")
        return cls(**given)

    @property
    def anchor_tokens(self) -> int:
        """Tokens whose hash chooses the anchor of a window."""
        return (self.min_tokens + 1) // 2

    @property
    def anchors_per_window(self) -> int:
        """Places in a window of which one is the anchor."""
        return self.min_tokens + 1 - self.anchor_tokens


@dataclass(frozen=True)
class VerifiedSpans:
    """Spans of some records.

    Parameters
    ----------
    spans : columns of ``ROW_SPAN_SCHEMA``, sorted by (row, start).
    num_compared : number of token pairs compared.
    """

    spans: pl.DataFrame
    num_compared: int


def find_repeated_spans(
    ids: pl.Series, texts: pl.Series, quality: pl.Series | None, config: SubstringConfig, *, threads: int = 1
) -> pl.DataFrame:
    """Find all passages that stand in a better record, or earlier in the same record.

    Parameters
    ----------
    ids : n distinct record ids.
    texts : n texts as they are; they are normalized here.
    quality : n numbers, higher is kept first, or None; ties go to the longer text, then the smaller id.
    config : how long a passage must be.
    threads : at most so many cores are used.

    Returns
    -------
    A row for each span, sorted by (record_id, start), none overlapping: ``record_id`` str, ``start`` and ``end`` i64 in
    characters of the text as given; ``keeper_id`` str, ``keeper_start`` and ``keeper_end`` i64, the same tokens where
    they occur first; ``num_tokens`` i64. Spans of a record that touch are one passage with several origins. A passage
    starts and ends at ends of sentences, as far as a sentence is in it and fewer than ``min_tokens`` tokens remain
    outside, otherwise at tokens; never inside a character as readers see it.

    Where a passage repeats itself over and over in one record, its first turn stays, and a span may overlap what it
    repeats. The keeper's own text may lose a part to a yet better record: followed from keeper to keeper, every token
    that leaves leads to an equal one that stays.

    Raises
    ------
    DataError : an id stands twice, or a text is null.

    References
    ----------
    Lee et al. (2022), Deduplicating Training Data Makes Language Models Better, section 4.2, who find the same with a
    suffix array, but remove every copy; Schleimer, Wilkerson and Aiken (2003), Winnowing.
    """
    order = keeper_order(ids, texts.str.len_chars(), quality)
    rows = np.empty(len(ids), dtype=np.uint32)
    rows[order["row"].to_numpy()] = np.arange(len(ids), dtype=np.uint32)
    anchors = shared_anchors(sample_windows(texts, rows, config, threads=threads))
    candidates = first_occurrences(windows_at(texts, rows, anchors, config, threads=threads), config)
    ranked = texts.gather(order["row"])

    parts = list(parts_by_record(candidates, ranked.str.len_bytes().to_numpy(), BATCH_BYTES))
    found = _over(parts, lambda part: spans_of_part(ranked, part, config), threads)
    spans = pl.concat([pl.DataFrame(schema=ROW_SPAN_SCHEMA), *found])
    named = spans.with_columns(
        record_id=order["id"].gather(spans["row"]), keeper_id=order["id"].gather(spans["keeper_row"])
    )
    return named.select(list(SPAN_SCHEMA)).cast(pl.Schema(SPAN_SCHEMA)).sort("record_id", "start")


def sample_windows(texts: pl.Series, rows: np.ndarray, config: SubstringConfig, *, threads: int = 1) -> pl.DataFrame:
    """Stage 1: the anchors of all windows of some records.

    Two equal windows have anchors with equal hash at the same distance. Records of fewer than ``min_tokens`` tokens
    have none.

    Parameters
    ----------
    texts : n texts as they are.
    rows : (n,) uint32, the records' numbers in keeper order.

    Returns
    -------
    ``hash`` u64, ``row`` u32, ``position`` u32 (tokens before the anchor).

    References
    ----------
    Schleimer, Wilkerson and Aiken (2003), Winnowing, section 3: of each window the rightmost smallest hash.
    """
    from curation.dedup.substring_kernels import sample_rows  # compiles: numba takes half a second

    size, width = config.anchor_tokens, config.anchors_per_window

    def sample(bounds: tuple[int, int]) -> pl.DataFrame:
        first, last = bounds
        tokens = place_tokens(utf8(texts.slice(first, last - first)))
        out = _window_arrays(len(tokens.starts))
        count = sample_rows(tokens.prefix, tokens.offsets, size, width, _power(size), *out)
        return _windows(out, count, rows[first:last])

    return pl.concat([pl.DataFrame(schema=WINDOW_SCHEMA), *_over(list(_batches(texts)), sample, threads)])


def shared_anchors(anchors: pl.DataFrame) -> pl.DataFrame:
    """Stage 2: the anchors whose hash stands in more than one place.

    Parameters
    ----------
    anchors : all anchors of a part of the hash space.

    Returns
    -------
    ``row``, ``position``.
    """
    return anchors.filter(pl.col("hash").is_duplicated()).select("row", "position")


def windows_at(
    texts: pl.Series, rows: np.ndarray, anchors: pl.DataFrame, config: SubstringConfig, *, threads: int = 1
) -> pl.DataFrame:
    """Stage 3: all windows of some records with one of the given anchors.

    Parameters
    ----------
    texts, rows : as of ``sample_windows``.
    anchors : ``row``, ``position``, as ``shared_anchors`` gives them; those of other records are passed over.

    Returns
    -------
    ``hash`` u64 of all tokens of the window, ``row`` u32, ``position`` u32 (tokens before the window).
    """
    from curation.dedup.substring_kernels import window_rows  # compiles: numba takes half a second

    known = pl.DataFrame({"row": pl.Series(rows, dtype=pl.UInt32)}).with_row_index("index")
    own = anchors.join(known, on="row").sort("index", "position")
    index, positions = own["index"].to_numpy(), own["position"].to_numpy().astype(np.int64)
    chosen = np.unique(index)
    bounds = np.append(np.searchsorted(index, chosen), len(index))
    affected, affected_rows = texts.gather(chosen), rows[chosen]
    size, width = config.anchor_tokens, config.anchors_per_window
    powers = (_power(size), _power(config.min_tokens))

    def windows(batch: tuple[int, int]) -> pl.DataFrame:
        first, last = batch
        tokens = place_tokens(utf8(affected.slice(first, last - first)))
        out = _window_arrays(len(tokens.starts))
        shared = bounds[first : last + 1]
        count = window_rows(tokens.prefix, tokens.offsets, size, width, powers, positions, shared, *out)
        return _windows(out, count, affected_rows[first:last])

    return pl.concat([pl.DataFrame(schema=WINDOW_SCHEMA), *_over(list(_batches(affected)), windows, threads)])


def first_occurrences(windows: pl.DataFrame, config: SubstringConfig) -> pl.DataFrame:
    """Stage 4: pair each window with the first of its hash, and with no other.

    A window that overlaps the first one in the same record is not repeated by it.

    Parameters
    ----------
    windows : all windows of a part of the hash space.

    Returns
    -------
    ``row``, ``position``, ``keeper_row``, ``keeper_position``: at most one row a window.
    """
    ordered = windows.sort("hash", "row", "position")
    hashes, row, position = (ordered[name].to_numpy() for name in WINDOW_SCHEMA)
    new = np.ones(len(hashes), dtype=bool)
    new[1:] = hashes[1:] != hashes[:-1]
    first = np.maximum.accumulate(np.where(new, np.arange(len(hashes)), 0))
    repeated = ~new & ((row != row[first]) | (position - position[first] >= config.min_tokens))
    keeper = first[repeated]
    columns = (row[repeated], position[repeated], row[keeper], position[keeper])
    return pl.DataFrame(dict(zip(CANDIDATE_SCHEMA, columns, strict=True)), schema=CANDIDATE_SCHEMA)


def verified_spans(
    texts: pl.Series, rows: np.ndarray, candidates: pl.DataFrame, config: SubstringConfig
) -> VerifiedSpans:
    """Stage 5: compare, cut and name.

    Parameters
    ----------
    texts, rows : the records of the candidates and those that they repeat, each once.
    candidates : all those of each of its records, from every part of the hash space.

    Raises
    ------
    DataError : the text of a record is not among those given.
    """
    from curation.dedup.substring_kernels import cut_rows, verify_runs  # compiles: numba takes half a second

    tokens = place_tokens(utf8(texts))
    numbers = pl.DataFrame({"row": pl.Series(rows, dtype=pl.UInt32)}).with_row_index("index")
    found = candidates.join(numbers, on="row", how="left").join(
        numbers.rename({"row": "keeper_row", "index": "keeper_index"}), on="keeper_row", how="left"
    )
    if found["index"].null_count() + found["keeper_index"].null_count():
        raise DataError("a candidate's record, or one that it repeats, has no text here; give the texts of both")
    found = found.sort("row", "position")
    index, position, keeper_index, keeper_position = (
        found[name].to_numpy().astype(np.int64) for name in ("index", "position", "keeper_index", "keeper_position")
    )
    starts, keeper_starts = tokens.offsets[index] + position, tokens.offsets[keeper_index] + keeper_position
    matches = np.empty((len(found), 3), dtype=np.int64)
    count, num_compared = verify_runs(
        tokens.letters, tokens.letter_offsets, starts, keeper_starts, config.min_tokens, matches
    )
    matches = matches[:count]
    from curation.dedup.breaks import mark_breaks  # compiles: numba takes half a second

    breaks = mark_breaks(utf8(texts))
    owners = _owner(tokens.offsets, matches[:, 0])
    cut = np.empty((count, 5), dtype=np.int64)
    count = cut_rows(
        matches,
        owners,
        tokens.offsets,
        tokens.starts,
        tokens.ends,
        breaks.values,
        breaks.offsets,
        config.min_tokens,
        cut,
    )
    match, start, end, first, last = cut[:count].T
    keeper_first = matches[match, 2] + first - matches[match, 0]
    columns = (
        rows[owners[match]],
        start,
        end,
        rows[_owner(tokens.offsets, keeper_first)],
        tokens.starts[keeper_first].astype(np.int64),
        tokens.ends[keeper_first + last - first - 1].astype(np.int64),
        last - first,
    )
    spans = pl.DataFrame(dict(zip(ROW_SPAN_SCHEMA, columns, strict=True)), schema=ROW_SPAN_SCHEMA)
    return VerifiedSpans(spans, int(num_compared))


def parts_by_record(candidates: pl.DataFrame, sizes: np.ndarray, at_most: int) -> Iterator[pl.DataFrame]:
    """Share stage 5 out: all candidates of some records at a time, so that the texts needed for them are not too many.

    Parameters
    ----------
    candidates : ``row`` and ``keeper_row`` are places in ``sizes``.
    sizes : (n,) what each record counts, e.g. its bytes.
    at_most : what a part's records and those that they repeat count together, unless it is one record's.
    """
    ordered = candidates.sort("row", "position")
    involved: set[int] = set()
    begin = total = 0
    for row, start, keepers in (
        ordered.with_row_index("at")
        .group_by("row", maintain_order=True)
        .agg(pl.col("at").first(), pl.col("keeper_row").unique())
        .iter_rows()
    ):
        needed = {row, *keepers}
        more = sum(int(sizes[one]) for one in needed - involved)
        if total + more > at_most and start > begin:
            yield ordered.slice(begin, start - begin)
            begin, involved = start, set()
            total, more = 0, sum(int(sizes[one]) for one in needed)
        involved |= needed
        total += more
    if begin < len(ordered):
        yield ordered.slice(begin)


def spans_of_part(ranked: pl.Series, part: pl.DataFrame, config: SubstringConfig) -> pl.DataFrame:
    """Stage 5 of one part of ``parts_by_record``; columns of ``ROW_SPAN_SCHEMA``.

    Parameters
    ----------
    ranked : n texts; ``row`` and ``keeper_row`` of the part are places in it, better records before others.
    """
    involved = np.union1d(part["row"].to_numpy(), part["keeper_row"].to_numpy()).astype(np.uint32)
    return verified_spans(ranked.gather(involved), involved, part, config).spans


def _batches(texts: pl.Series) -> Iterator[tuple[int, int]]:
    """Slices of at most ``BATCH_BYTES``, or of one text."""
    ends = np.cumsum(texts.str.len_bytes().fill_null(0).to_numpy().astype(np.int64))
    first = 0
    while first < len(ends):
        before = int(ends[first - 1]) if first else 0
        last = max(int(np.searchsorted(ends, before + BATCH_BYTES, side="right")), first + 1)
        yield first, last
        first = last


def _over(items: list[_Item], work: Callable[[_Item], pl.DataFrame], threads: int) -> list[pl.DataFrame]:
    if threads == 1 or len(items) < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, items))


def _power(size: int) -> np.uint64:
    from curation.dedup.substring_kernels import BASE  # compiles: numba takes half a second

    return np.uint64(pow(BASE, size, 2**64))


def _window_arrays(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.empty(count, np.uint64), np.empty(count, np.uint32), np.empty(count, np.uint32)


def _windows(arrays: tuple[np.ndarray, np.ndarray, np.ndarray], count: int, rows: np.ndarray) -> pl.DataFrame:
    hashes, own, positions = (array[:count] for array in arrays)
    # A copy: the arrays are as long as the text, what is found is not.
    columns = (hashes.copy(), rows[own], positions.copy())
    return pl.DataFrame(dict(zip(WINDOW_SCHEMA, columns, strict=True)), schema=WINDOW_SCHEMA)


def _owner(offsets: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """The text of each token."""
    return np.searchsorted(offsets, tokens, side="right") - 1
