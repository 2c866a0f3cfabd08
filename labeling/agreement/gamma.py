"""Gamma: agreement on where spans are and what they are called at once, by the best alignment of all annotators."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from catalog.errors import DataError
from labeling.agreement.figure import NO_PAIRS, Agreement
from labeling.agreement.spans import NOTHING_MARKED, checked_spans

MAX_SPANS = 500
"""Spans that are aligned; of a larger corpus whole items are drawn by chance until there are so many."""
MAX_ANNOTATORS = 8
MAX_ALIGNMENTS = 200_000
"""Unitary alignments that the solver chooses from."""
NUM_SAMPLES, MAX_SAMPLES = 30, 120
PRECISION = 0.02
"""Of the expected disorder, at 95 %; more samples are drawn until it is reached, or there are ``MAX_SAMPLES``."""
Ints = npt.NDArray[np.int64]


class TooManyError(DataError):
    """So many spans lie so close that too many alignments are possible."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Track:
    """Spans on one line, by annotator: (n,) each. ``text`` tells apart what must never be aligned."""

    annotator: Ints
    start: Ints
    end: Ints
    label: Ints
    text: Ints


def gamma(spans: pl.DataFrame, answered: pl.DataFrame, lengths: pl.DataFrame, *, rng: np.random.Generator) -> Agreement:
    """One minus the disorder of the best alignment by the disorder that chance gives.

    A unitary alignment holds at most one span of each annotator; its disorder is the mean over pairs of annotators of
    the dissimilarity of their spans, 1 where one or both have none. Two spans differ by the square of (distance of
    starts + distance of ends) by (sum of lengths), and by 1 if their labels differ. The best alignment holds every
    span once with the least disorder in all; it is found exactly. Chance is what the annotators' spans give when each
    annotator's line is shifted by another random distance.

    Spans of different items are never aligned. Items with equally many answers are one line for the shifts, end to end,
    and annotators are told apart by their place among an item's annotators alone; disorders of items with different
    numbers of answers are summed before they are divided.

    Parameters
    ----------
    spans, answered : as in ``span_f1``.
    lengths : ``item, length`` in characters.
    rng : draws shifts, and items where there are more than ``MAX_SPANS`` spans.

    Returns
    -------
    Agreement : no value where over ``MAX_ANNOTATORS`` answered every item, or too many alignments are possible.

    Raises
    ------
    DataError : columns are missing, or a span lies outside its item.

    References
    ----------
    Mathet, Widlöcher and Métivier (2015), The Unified and Holistic Method Gamma, sections 4 and 5: dissimilarities 4.3,
    disorder 4.4, alignment 5.1, shifts 5.2, number of samples 5.3; alpha = beta = 1 and an empty unit costs 1. Two
    empty units cost 1 as well, which is what their bound in 5.1.1 takes for granted and pygamma-agreement does. Our
    pruning is stronger than theirs and as safe: an alignment goes when a span of it is better off alone.
    """
    marked, seen = checked_spans(spans), answered.select("item", "annotator").unique()
    groups = seen.group_by("item").agg(num=pl.len(), annotator=pl.col("annotator").sort()).filter(pl.col("num") > 1)
    if groups.is_empty():
        return Agreement(measure="gamma", value=None, reason=NO_PAIRS)
    usable = groups.filter(pl.col("num") <= MAX_ANNOTATORS).join(lengths, on="item").sort("item")
    marked = marked.filter(pl.col("item").is_in(usable["item"].to_list()))
    if usable.is_empty():
        return Agreement(measure="gamma", value=None, reason=f"over {MAX_ANNOTATORS} annotators answered every item")
    if marked.is_empty():
        return Agreement(measure="gamma", value=None, reason=NOTHING_MARKED, num_items=usable.height)
    usable = _at_most(usable, marked, rng)
    told: dict[str, Any] = {"num_items": usable.height, "num_annotations": int(usable["num"].sum())}
    observed = expected = 0.0
    try:
        for num, track, length in _lines(usable, marked):
            observed += disorder(track, num)
            expected += _by_chance(track, num, length, rng)
    except TooManyError as error:
        return Agreement(measure="gamma", value=None, reason=str(error), **told)
    return Agreement(measure="gamma", value=1 - observed / expected, **told)


def disorder(track: Track, num_annotators: int) -> float:
    """Summed disorder of the best alignment; divide by the mean number of spans an annotator for the paper's figure.

    Raises
    ------
    TooManyError : more than ``MAX_ALIGNMENTS`` are possible.
    """
    members, costs = _alignments(track, num_annotators)
    return _least_cover(members, costs, len(track.start)) / (num_annotators * (num_annotators - 1) / 2)


def _at_most(usable: pl.DataFrame, marked: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    counted = usable.join(marked.group_by("item").agg(spans=pl.len()), on="item", how="left").fill_null(0).sort("item")
    if counted["spans"].sum() <= MAX_SPANS:
        return usable
    drawn = counted[rng.permutation(counted.height)]
    chosen = drawn.filter(pl.col("spans").cum_sum().shift(1, fill_value=0) < MAX_SPANS)
    return usable.filter(pl.col("item").is_in(chosen["item"].to_list()))


def _lines(usable: pl.DataFrame, marked: pl.DataFrame) -> Iterator[tuple[int, Track, int]]:
    """Number of annotators, spans and length of each line: the items with equally many answers, end to end."""
    labels = marked["label"].unique().sort()
    codes = pl.DataFrame({"label": labels, "code": np.arange(len(labels))})
    for num in usable["num"].unique().sort():
        items = usable.filter(pl.col("num") == num).with_columns(
            offset=pl.col("length").cum_sum() - pl.col("length"), text=pl.int_range(pl.len())
        )
        places = items.explode("annotator").with_columns(place=pl.int_range(pl.len()).over("item"))
        rows = marked.join(places, on=["item", "annotator"]).join(codes, on="label")
        outside = rows.filter(pl.col("end") > pl.col("length"))
        if outside.height:
            row = outside.row(0, named=True)
            raise DataError(f"span {row['start']} to {row['end']} lies outside item {row['item']!r} of {row['length']}")
        if rows.height:
            rows = rows.sort("place", "offset", "start", "end", "code")
            columns = {"annotator": "place", "label": "code", "text": "text"}
            fields = {name: rows[column].cast(pl.Int64).to_numpy() for name, column in columns.items()}
            places_at = rows["offset"].cast(pl.Int64).to_numpy()
            start, end = (places_at + rows[name].cast(pl.Int64).to_numpy() for name in ("start", "end"))
            yield int(num), Track(start=start, end=end, **fields), int(items["length"].sum())


def _by_chance(track: Track, num: int, length: int, rng: np.random.Generator) -> float:
    """Mean disorder of shifted lines, for as many spans as there are."""
    drawn = [_shifted_disorder(track, num, length, rng) for _ in range(NUM_SAMPLES)]
    spread = float(np.std(drawn) / np.mean(drawn))
    needed = min(MAX_SAMPLES, ceil((spread * 1.96 / PRECISION) ** 2))
    drawn += [_shifted_disorder(track, num, length, rng) for _ in range(needed - NUM_SAMPLES)]
    return float(np.mean(drawn)) * len(track.start)


def _shifted_disorder(track: Track, num: int, length: int, rng: np.random.Generator) -> float:
    """Disorder a span of one sample: ``num`` annotators drawn with replacement, each shifted by its own distance."""
    apart = float((track.end - track.start).mean()) / 2
    parts: list[Track] = []
    while not sum(len(one.start) for one in parts):
        parts, taken = [], np.zeros(0)
        for place in range(num):
            shift = _far_from(taken, apart, length, rng)
            taken = np.append(taken, shift)
            own = track.annotator == rng.integers(num)
            start, size = (track.start[own] + shift) % length, track.end[own] - track.start[own]
            parts.append(
                Track(
                    annotator=np.full(int(own.sum()), place),
                    start=start,
                    end=start + size,
                    label=track.label[own],
                    text=np.zeros(int(own.sum()), dtype=np.int64),
                )
            )
    joined = {name: np.concatenate([getattr(one, name) for one in parts]) for name in Track.__slots__}
    return disorder(Track(**joined), num) / len(joined["start"])


def _far_from(taken: npt.NDArray[np.float64], apart: float, length: int, rng: np.random.Generator) -> int:
    """A shift at least ``apart`` from those taken, going round; any, where the line has no room for one."""
    for _ in range(100):
        shift = int(rng.integers(length))
        away = np.abs(taken - shift)
        if (np.minimum(away, length - away) >= apart).all():
            return shift
    return int(rng.integers(length))


def _alignments(track: Track, num: int) -> tuple[list[list[int]], list[float]]:
    """All unitary alignments that a best alignment may hold, with disorders summed over pairs of annotators."""
    size = (track.end - track.start).astype(np.float64)
    apart = np.abs(track.start[:, None] - track.start) + np.abs(track.end[:, None] - track.end)
    differ = (apart / (size[:, None] + size)) ** 2 + (track.label[:, None] != track.label)
    num_pairs = num * (num - 1) // 2
    near = (differ < num - 1 + num_pairs) & (track.text[:, None] == track.text)
    near &= track.annotator[:, None] < track.annotator
    later = [np.flatnonzero(row).tolist() for row in near]
    table, owner = differ.tolist(), track.annotator.tolist()
    members: list[list[int]] = []
    costs: list[float] = []

    def extend(chosen: list[int], candidates: list[int]) -> None:
        sums, others = [sum(table[one][other] for other in chosen) for one in chosen], len(chosen) - 1
        # A span alone costs 1 a pair of annotators, and leaves 1 behind for each of the others.
        if not others or max(sums) < others + num_pairs:
            members.append(chosen)
            costs.append(sum(sums) / 2 + num_pairs - others * (others + 1) / 2)
            if len(members) > MAX_ALIGNMENTS:
                raise TooManyError(f"more than {MAX_ALIGNMENTS:,} alignments of spans are possible: they lie too close")
        if max(sums) >= num - 1 + num_pairs:
            return
        for place, one in enumerate(candidates):
            rest = [other for other in candidates[place + 1 :] if owner[other] > owner[one] and near[one, other]]
            extend([*chosen, one], rest)

    for one in range(len(owner)):
        extend([one], later[one])
    return members, costs


def _least_cover(members: list[list[int]], costs: list[float], num_spans: int) -> float:
    """Least cost of alignments that hold every span exactly once."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csc_matrix

    ends = np.cumsum([0] + [len(one) for one in members])
    rows = np.concatenate([np.asarray(one) for one in members])
    cover = csc_matrix((np.ones(len(rows)), rows, ends), shape=(num_spans, len(members)))
    found = milp(
        np.asarray(costs),
        constraints=LinearConstraint(cover, 1, 1),
        integrality=np.ones(len(costs)),
        bounds=Bounds(0, 1),
    )
    if found.x is None:
        raise TooManyError(f"the solver found no best alignment of {num_spans:,} spans: {found.message}")
    return float(found.fun)
