"""Cohen's kappa of every two annotators who answered the same items."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import polars as pl

from catalog.errors import ConfigError, nearest
from labeling.annotations import Annotations

WEIGHTS = ("none", "linear", "quadratic")
MAX_PAIR_ROWS = 4_000_000
PAIRS = {
    "annotator": pl.String,
    "other": pl.String,
    "num_items": pl.Int64,
    "observed": pl.Float64,
    "kappa": pl.Float64,
    "reason": pl.String,
}


def pairwise_kappa(annotations: Annotations, weights: str | npt.ArrayLike = "none") -> pl.DataFrame:
    """Cohen's kappa of each pair of annotators with an item in common.

    Parameters
    ----------
    weights : ``none`` counts every disagreement alike; ``linear`` and ``quadratic`` by how far the labels lie apart in
        the schema's order; or a (num_labels, num_labels) table of non-negative disagreements with a diagonal of 0.

    Returns
    -------
    ``annotator``, ``other`` (in order of their names), ``num_items`` in common, ``observed`` share of equal answers,
    ``kappa``, and where that is null the ``reason``. Sorted by the names.

    Raises
    ------
    ConfigError : unknown weights, or a table of another shape or sign.

    References
    ----------
    Cohen (1960), A Coefficient of Agreement for Nominal Scales; Cohen (1968), Weighted Kappa, equation 4.
    """
    table = _weights(weights, annotations.num_labels)
    answers = annotations.last_answers()
    counted = _joint_counts(answers)
    if counted.is_empty():
        return pl.DataFrame(schema=PAIRS)
    size = answers.num_labels
    pair, cell = counted["pair"].to_numpy(), counted["cell"].to_numpy()
    found, member = np.unique(pair, return_inverse=True)
    num = counted["num"].to_numpy().astype(np.float64)
    total = np.asarray(np.bincount(member, weights=num), dtype=np.float64)
    first, second = cell // size, cell % size
    disagreed = np.bincount(member, weights=num * table[first, second]) / total
    equal = np.bincount(member, weights=num * (first == second)) / total
    expected, single = _expected(member, first, second, num, total, table)
    defined = expected > 0
    kappa = np.full(len(found), np.nan)
    kappa[defined] = 1 - disagreed[defined] / expected[defined]
    names = pl.Series(answers.annotators, dtype=pl.String)
    only = [None if one < 0 else answers.labels[one] for one in single]
    reasons = [
        None
        if fine
        else (
            f"both gave only {label!r}: no disagreement to be expected"
            if label is not None
            else "no disagreement to be expected"
        )
        for fine, label in zip(defined, only, strict=True)
    ]
    return pl.DataFrame(
        {
            "annotator": names.gather(found // answers.num_annotators),
            "other": names.gather(found % answers.num_annotators),
            "num_items": total.astype(np.int64),
            "observed": equal,
            "kappa": pl.Series(kappa).fill_nan(None),
            "reason": pl.Series(reasons, dtype=pl.String),
        },
        schema=PAIRS,
    )


def mean_kappa(pairs: pl.DataFrame) -> float | None:
    """Mean over the pairs whose kappa is defined, as Light (1971) has it; None where none is."""
    defined = pairs["kappa"].drop_nulls()
    return None if defined.is_empty() else float(defined.to_numpy().mean())


def _weights(weights: str | npt.ArrayLike, num_labels: int) -> npt.NDArray[np.float64]:
    if isinstance(weights, str):
        if weights not in WEIGHTS:
            raise ConfigError(f"weights={weights!r} is unknown; {nearest(weights, WEIGHTS)}")
        apart = np.abs(np.subtract.outer(np.arange(num_labels), np.arange(num_labels))).astype(np.float64)
        return {"none": np.sign(apart), "linear": apart, "quadratic": apart**2}[weights]
    table = np.asarray(weights, dtype=np.float64)
    if table.shape != (num_labels, num_labels) or (table < 0).any() or np.diagonal(table).any():
        raise ConfigError(
            f"weights of shape {table.shape} must be {num_labels} by {num_labels}, not negative, with a diagonal of 0"
        )
    return table


def _joint_counts(answers: Annotations) -> pl.DataFrame:
    """How often two annotators gave which two labels: ``pair`` (first * num_annotators + second), ``cell``, ``num``."""
    merged = pl.DataFrame(schema={"pair": pl.Int64, "cell": pl.Int64, "num": pl.UInt32})
    waiting: list[pl.DataFrame] = []
    rows = 0
    for part in _pairs(answers):
        waiting.append(part.group_by("pair", "cell").agg(num=pl.len()))
        rows += waiting[-1].height
        if rows > MAX_PAIR_ROWS:
            merged, waiting, rows = _merge([merged, *waiting]), [], 0
    return _merge([merged, *waiting]).sort("pair", "cell")


def _merge(parts: list[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(parts).group_by("pair", "cell").agg(pl.col("num").sum())


def _pairs(answers: Annotations) -> Iterator[pl.DataFrame]:
    """Every two answers to the same item; those of the annotator with the lower number first."""
    for _, rows in answers.blocks():
        item, annotator, label = answers.item[rows], answers.annotator[rows], answers.label[rows]
        shift = 1
        while shift < len(item):
            at = np.flatnonzero(item[shift:] == item[:-shift])
            if not len(at):
                break
            yield pl.DataFrame(
                {
                    "pair": annotator[at].astype(np.int64) * answers.num_annotators + annotator[at + shift],
                    "cell": label[at].astype(np.int64) * answers.num_labels + label[at + shift],
                }
            )
            shift += 1


def _expected(
    member: npt.NDArray[np.int64],
    first: npt.NDArray[np.int64],
    second: npt.NDArray[np.int64],
    num: npt.NDArray[np.float64],
    total: npt.NDArray[np.float64],
    table: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Disagreement to be expected from each pair's own shares, and the one label that both gave alone, or -1."""
    size, num_pairs = len(table), len(total)
    expected = np.zeros(num_pairs)
    single = np.full(num_pairs, -1, dtype=np.int64)
    step = max(1, MAX_PAIR_ROWS // size)
    for start in range(0, num_pairs, step):
        here = slice(*np.searchsorted(member, (start, min(start + step, num_pairs))))
        count = min(start + step, num_pairs) - start
        base = (member[here] - start) * size
        left = np.bincount(base + first[here], weights=num[here], minlength=count * size).reshape(count, size)
        right = np.bincount(base + second[here], weights=num[here], minlength=count * size).reshape(count, size)
        scale = total[start : start + count]
        expected[start : start + count] = ((left @ table) * right).sum(axis=1) / scale**2
        alone = (left + right).max(axis=1) == 2 * scale
        single[start : start + count][alone] = (left + right).argmax(axis=1)[alone]
    return expected, single
