"""Agreement on spans of text: how many of what one annotator marked another marked too."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from catalog.errors import ConfigError, DataError, nearest
from labeling.agreement.figure import NO_PAIRS, Agreement

MATCHES = ("exact", "overlap")
NOTHING_MARKED = "nobody marked anything in an item that two annotators answered"


def span_f1(
    spans: pl.DataFrame,
    answered: pl.DataFrame,
    match: str = "exact",
    *,
    min_iou: float = 0.0,
    rng: np.random.Generator,
    num_replicates: int = 1000,
) -> Agreement:
    """F1 between annotators, pooled over all items and all pairs of annotators: twice the matches by all spans.

    F1 is the same whichever of the two is taken for the truth. It stands where kappa cannot, as nobody can count the
    places where nothing was marked.

    Parameters
    ----------
    spans : ``item, annotator, start, end, label``: characters ``start`` up to ``end``, which is not part of it. Equal
        spans of one annotator are one.
    answered : ``item, annotator``: who answered what, also by marking nothing.
    match : ``exact``: the same start, end and label. ``overlap``: the same label and characters in common; each span
        matches at most one of the other annotator, and as many are matched as can be.
    min_iou : with ``overlap``, shared characters by all characters of both must exceed it, in [0, 1).
    num_replicates : of the bootstrap over items; 0 gives no interval.

    Raises
    ------
    DataError : a column is missing, or a span does not end behind its start.
    ConfigError : an unknown match; ``min_iou`` out of range, or with ``exact``, where it has no effect.

    References
    ----------
    Hripcsak and Rothschild (2005), Agreement, the F-Measure, and Reliability in Information Retrieval.
    """
    if match not in MATCHES:
        raise ConfigError(f"match={match!r} is unknown; {nearest(match, MATCHES)}")
    if not 0 <= min_iou < 1 or (match == "exact" and min_iou != 0):
        raise ConfigError(f"min_iou={min_iou} must lie in [0, 1), and is for overlapping spans only")
    marked, seen = checked_spans(spans), answered.select("item", "annotator").unique()
    measure = f"span_f1_{match}"
    num_answers = seen.group_by("item").agg(answers=pl.len()).filter(pl.col("answers") > 1)
    told: dict[str, Any] = {"num_items": num_answers.height, "num_annotations": int(num_answers["answers"].sum())}
    if num_answers.is_empty():
        return Agreement(measure=measure, value=None, reason=NO_PAIRS, **told)
    # A span counts once for every other annotator who could have marked it.
    expected = (
        marked.join(num_answers, on="item").group_by("item").agg(spans=(pl.col("answers") - 1).cast(pl.Int64).sum())
    )
    matched = _matched(marked.join(num_answers, on="item"), match, min_iou)
    counted = num_answers.join(expected, on="item", how="left").join(matched, on="item", how="left").fill_null(0)
    if not counted["spans"].sum():
        return Agreement(measure=measure, value=None, reason=NOTHING_MARKED, **told)
    value = 2 * int(counted["matches"].sum()) / int(counted["spans"].sum())
    low, high = _interval(counted, rng, num_replicates)
    return Agreement(measure=measure, value=value, low=low, high=high, **told)


def checked_spans(spans: pl.DataFrame) -> pl.DataFrame:
    """Distinct spans, sorted.

    Raises
    ------
    DataError : a column is missing, or a span does not end behind its start.
    """
    columns = ("item", "annotator", "start", "end", "label")
    for column in columns:
        if column not in spans.columns:
            raise DataError(f"spans lack the column {column!r}; {nearest(column, spans.columns)}")
    wrong = spans.filter((pl.col("start") < 0) | (pl.col("end") <= pl.col("start")))
    if wrong.height:
        row = wrong.row(0, named=True)
        raise DataError(f"span {row['start']} to {row['end']} of item {row['item']!r} must end behind its start")
    return spans.select(columns).unique().sort(columns)


def _matched(marked: pl.DataFrame, match: str, min_iou: float) -> pl.DataFrame:
    """``item, matches``: matched pairs of spans, over all pairs of annotators."""
    rows = marked.with_row_index("span")
    keys: Sequence[str] = ("item", "label") if match == "overlap" else ("item", "label", "start", "end")
    pairs = rows.join(rows, on=keys, suffix="_other").filter(pl.col("annotator") < pl.col("annotator_other"))
    if match == "exact":
        return pairs.group_by("item").agg(matches=pl.len().cast(pl.Int64))
    shared = pl.min_horizontal("end", "end_other") - pl.max_horizontal("start", "start_other")
    union = pl.max_horizontal("end", "end_other") - pl.min_horizontal("start", "start_other")
    pairs = pairs.filter((shared > 0) & (shared > min_iou * union))
    if pairs.is_empty():
        return pl.DataFrame(schema={"item": marked.schema["item"], "matches": pl.Int64})
    left = pairs.select("span", "annotator_other").unique(maintain_order=True).with_row_index("left")
    right = pairs.select("span_other", "annotator").unique(maintain_order=True).with_row_index("right")
    pairs = pairs.join(left, on=["span", "annotator_other"]).join(right, on=["span_other", "annotator"])
    chosen = _maximum_matching(pairs["left"].to_numpy(), pairs["right"].to_numpy(), left.height, right.height)
    items = pairs.group_by("left").agg(pl.col("item").first()).filter(pl.col("left").is_in(chosen.tolist()))
    return items.group_by("item").agg(matches=pl.len().cast(pl.Int64))


def _maximum_matching(
    left: npt.NDArray[Any], right: npt.NDArray[Any], num_left: int, num_right: int
) -> npt.NDArray[np.int64]:
    """Which of the left are matched when as many as can be are."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import maximum_bipartite_matching

    graph = csr_matrix((np.ones(len(left), dtype=bool), (left, right)), shape=(num_left, num_right))
    return np.flatnonzero(maximum_bipartite_matching(graph, perm_type="column") >= 0)


def _interval(
    counted: pl.DataFrame, rng: np.random.Generator, num_replicates: int
) -> tuple[float | None, float | None]:
    if num_replicates == 0 or counted.height < 2:
        return None, None
    # Items with the same counts are one item several times.
    alike = counted.group_by("spans", "matches").agg(items=pl.len()).sort("spans", "matches")
    drawn = rng.multinomial(counted.height, alike["items"].to_numpy() / counted.height, num_replicates)
    spans = drawn @ alike["spans"].to_numpy()
    figures = 2 * (drawn @ alike["matches"].to_numpy())[spans > 0] / spans[spans > 0]
    if len(figures) < 0.95 * num_replicates:
        return None, None
    low, high = np.percentile(figures, (2.5, 97.5))
    return float(low), float(high)
