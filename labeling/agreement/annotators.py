"""What can be said of each annotator: agreement with the others, confusion, speed, drift over time."""

from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from labeling.annotations import Annotations
from labeling.learner import wilson_interval

MIN_ANSWERS_A_PART = 10
"""Answers in the first and in the last part that a drift is told from."""
CONFUSION = {"annotator": pl.String, "consensus": pl.String, "given": pl.String, "num_answers": pl.Int64}


def agreement_with_others(annotations: Annotations) -> npt.NDArray[np.float64]:
    """Of each annotator, the share of the others' answers to the same items that equal the annotator's own.

    Every answer of another counts once, so that an item with many answers counts for more.

    Returns
    -------
    (num_annotators,) float64 in [0, 1]; NaN for one who shares no item with anybody.

    References
    ----------
    Goh, Tkachenko and Mueller (2022), CROWDLAB, section 3, s_j.
    """
    answers = annotations.last_answers()
    equal, pairs = np.zeros(answers.num_annotators), np.zeros(answers.num_annotators)
    for items, rows in answers.blocks():
        counts = answers.counts(items, rows)
        item = answers.item[rows] - items.start
        same = counts[item, answers.label[rows]] - 1
        others = counts.sum(axis=1)[item] - 1
        equal += np.bincount(answers.annotator[rows], weights=same, minlength=answers.num_annotators)
        pairs += np.bincount(answers.annotator[rows], weights=others, minlength=answers.num_annotators)
    return shares(equal, pairs)


def share_right(
    annotations: Annotations, label: npt.NDArray[np.int32], *, shared_only: bool = False
) -> npt.NDArray[np.float64]:
    """Of each annotator, the share of answers that equal ``label`` (num_items,); NaN where there are none.

    ``shared_only`` leaves out items that nobody else answered.
    """
    answers = annotations.last_answers()
    counted = np.diff(answers.starts)[answers.item] > 1 if shared_only else np.ones(len(answers), dtype=bool)
    right = (label[answers.item] == answers.label) & counted
    total = np.bincount(answers.annotator[counted], minlength=answers.num_annotators)
    num = np.bincount(answers.annotator[right], minlength=answers.num_annotators)
    return shares(num, total)


def shares(num: npt.NDArray[Any], total: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """``num`` by ``total``, NaN where the total is 0."""
    found = np.full(len(total), np.nan)
    np.divide(num, total, out=found, where=total > 0)
    return found


def confusion_matrices(annotations: Annotations, label: npt.NDArray[np.int32]) -> pl.DataFrame:
    """How often each annotator said what where the consensus is what; only what occurs.

    Returns
    -------
    ``annotator``, ``consensus``, ``given``, ``num_answers``; by annotator, then in the schema's order.
    """
    answers = annotations.last_answers()
    size = answers.num_labels
    cells = (answers.annotator.astype(np.int64) * size + label[answers.item]) * size + answers.label
    found, num = np.unique(cells[label[answers.item] >= 0], return_counts=True)
    names = pl.Series(answers.labels, dtype=pl.String)
    return pl.DataFrame(
        {
            "annotator": pl.Series(answers.annotators, dtype=pl.String).gather(found // (size * size)),
            "consensus": names.gather(found // size % size),
            "given": names.gather(found % size),
            "num_answers": num,
        },
        schema=CONFUSION,
    )


def speed(answers: pl.DataFrame) -> pl.DataFrame:
    """How long each annotator takes an answer.

    Parameters
    ----------
    answers : ``annotator``, ``seconds``: null where it is unknown.

    Returns
    -------
    ``annotator``, ``num_timed``, ``median_seconds``, ``p10_seconds``, ``p90_seconds``; null where nothing is known.
    """
    seconds = pl.col("seconds").cast(pl.Float64)
    return (
        answers.group_by("annotator")
        .agg(
            num_timed=seconds.count().cast(pl.Int64),
            median_seconds=seconds.median(),
            p10_seconds=seconds.quantile(0.1, "linear"),
            p90_seconds=seconds.quantile(0.9, "linear"),
        )
        .sort("annotator")
    )


def drift(answers: pl.DataFrame) -> pl.DataFrame:
    """Whether annotators became better or worse: the last third of their answers against the first.

    Parameters
    ----------
    answers : ``annotator``, ``at`` (anything that sorts), ``right``: whether the answer equals the consensus.

    Returns
    -------
    ``annotator``, ``first`` and ``last`` (shares right), ``change`` (last - first), ``low`` and ``high``, its interval
    at 95 %, and ``drifts``: whether that leaves 0 out. All but the annotator are null below ``MIN_ANSWERS_A_PART``
    answers a third.

    References
    ----------
    Newcombe (1998), Interval Estimation for the Difference Between Independent Proportions, method 10.
    """
    size = pl.len() // 3
    ordered = answers.sort("annotator", "at", maintain_order=True)
    parts = ordered.group_by("annotator", maintain_order=True).agg(
        size=size, first=pl.col("right").head(size).sum(), last=pl.col("right").tail(size).sum()
    )
    rows: list[tuple[Any, ...]] = []
    for annotator, num, first, last in parts.iter_rows():
        if num < MIN_ANSWERS_A_PART:
            rows.append((annotator, None, None, None, None, None, None))
            continue
        low, high = difference_interval(last, num, first, num)
        rows.append((annotator, first / num, last / num, (last - first) / num, low, high, low > 0 or high < 0))
    names = ("first", "last", "change", "low", "high")
    schema = {"annotator": pl.String, **dict.fromkeys(names, pl.Float64), "drifts": pl.Boolean}
    return pl.DataFrame(rows, schema=schema, orient="row")


def difference_interval(num_a: int, total_a: int, num_b: int, total_b: int) -> tuple[float, float]:
    """Interval at 95 % of the difference of two proportions, a - b.

    References
    ----------
    Newcombe (1998), Interval Estimation for the Difference Between Independent Proportions, method 10.
    """
    a, b = num_a / total_a, num_b / total_b
    (low_a, high_a), (low_b, high_b) = wilson_interval(num_a, total_a), wilson_interval(num_b, total_b)
    low = a - b - sqrt((a - low_a) ** 2 + (high_b - b) ** 2)
    high = a - b + sqrt((high_a - a) ** 2 + (b - low_b) ** 2)
    return low, high
