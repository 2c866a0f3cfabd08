"""What a committee's members make of the pool, by blocks."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from labeling.candidates import Candidates

BLOCK_ROWS = 16_384
"""Rows that the committee is asked about at a time: eight members' views of 77 labels are 80 MB."""


def over_committee(
    candidates: Candidates, measure: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]
) -> npt.NDArray[np.float64]:
    """Apply a measure to the opinions about every candidate.

    Parameters
    ----------
    measure : (num_members, n, num_classes) float64 to (n,) float64.

    Returns
    -------
    (num_candidates,) float64.

    Raises
    ------
    ColdStartError : there is no model yet.
    DataError : there is a model but no committee.
    """
    found = [
        measure(candidates.opinions(np.arange(start, min(start + BLOCK_ROWS, len(candidates)))))
        for start in range(0, len(candidates), BLOCK_ROWS)
    ]
    return np.concatenate(found)


def votes(candidates: Candidates, rows: npt.NDArray[np.int64]) -> list[str]:
    """How many members are for which label, one line a row: ``5 of 8 for sport, 3 for politics``."""
    ballots = candidates.opinions(rows).argmax(axis=2)
    lines = []
    for ballot in ballots.T:
        counts = np.bincount(ballot, minlength=len(candidates.classes))
        first, second = np.argsort(-counts, kind="stable")[:2]
        line = f"{counts[first]} of {len(ballot)} for {candidates.classes[first]}"
        lines.append(f"{line}, {counts[second]} for {candidates.classes[second]}" if counts[second] else line)
    return lines
