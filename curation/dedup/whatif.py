"""Another threshold without another run: who would leave, from the pairs that were measured."""

from dataclasses import dataclass

import numpy as np
import polars as pl


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What one threshold would do to the near-duplicates.

    Parameters
    ----------
    removed : records that would leave.
    clusters : keepers that somebody would leave behind.
    biggest : records behind the keeper with the most.
    """

    threshold: float
    removed: int
    clusters: int
    biggest: int


def near_outcome(pairs: pl.DataFrame, threshold: float) -> Outcome:
    """Choose keepers anew among the measured near pairs of at least this similarity.

    Parameters
    ----------
    pairs : ``record_id``, ``keeper_id`` (the better of the two), ``jaccard``; every pair once.

    Returns
    -------
    The same removals as a run with this threshold would make of these pairs. A lower threshold than the run's misses
    pairs that the run had no reason to measure.
    """
    similar = pairs.filter(pl.col("jaccard") >= threshold)
    if similar.is_empty():
        return Outcome(threshold=threshold, removed=0, clusters=0, biggest=0)
    names = pl.concat([similar["record_id"], similar["keeper_id"]]).unique().sort()
    worse, better = (names.search_sorted(similar[name]).to_numpy() for name in ("record_id", "keeper_id"))
    keepers = _keepers(len(names), better, worse)
    chosen = keepers[keepers >= 0]
    sizes = np.bincount(chosen, minlength=len(names))
    return Outcome(
        threshold=threshold,
        removed=len(chosen),
        clusters=int((sizes > 0).sum()),
        biggest=int(sizes.max()),
    )


def _keepers(number: int, better: np.ndarray, worse: np.ndarray) -> np.ndarray:
    """The keeper of each record that leaves, -1 for the others: a record leaves when a better neighbour stays."""
    incoming = np.bincount(worse, minlength=number)
    order = np.argsort(better, kind="stable")
    starts = np.searchsorted(better[order], np.arange(number + 1)).tolist()
    followers = worse[order].tolist()
    waiting, keepers = incoming.tolist(), [-1] * number
    # From the best down: a record is decided when all who are better have been.
    ready = [one for one in range(number) if not waiting[one]]
    while ready:
        one = ready.pop()
        for other in followers[starts[one] : starts[one + 1]]:
            waiting[other] -= 1
            if keepers[one] < 0 and keepers[other] < 0:
                keepers[other] = one
            if not waiting[other]:
                ready.append(other)
    return np.asarray(keepers, dtype=np.int64)
