"""Items that were answered alike are one item counted several times: all that agreement depends on, and far less."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from labeling.annotations import Annotations


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Patterns:
    """The distinct ways in which items with at least two answers were answered, whoever answered.

    Parameters
    ----------
    multiplicity : (num_patterns,) int64, how many items were answered so.
    size : (num_patterns,) int64, how many answers such an item has.
    pattern, label, count : (m,) int64, that ``count`` of the answers of a pattern are ``label``; sorted by pattern.
    num_labels : labels of the schema.
    """

    multiplicity: npt.NDArray[np.int64]
    size: npt.NDArray[np.int64]
    pattern: npt.NDArray[np.int64]
    label: npt.NDArray[np.int64]
    count: npt.NDArray[np.int64]
    num_labels: int

    def __len__(self) -> int:
        return len(self.multiplicity)

    @property
    def num_items(self) -> int:
        """Items with at least two answers."""
        return int(self.multiplicity.sum())

    @property
    def num_annotations(self) -> int:
        """Answers to them."""
        return int((self.multiplicity * self.size).sum())

    def per_pattern(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Sum over the labels of each pattern of what (m,) ``values`` say; (num_patterns,) float64."""
        return np.asarray(np.bincount(self.pattern, weights=values, minlength=len(self)), dtype=np.float64)

    def label_totals(self, multiplicity: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """How often each label was given if items are counted so; (num_labels,) float64."""
        weights = (multiplicity[self.pattern] * self.count).astype(np.float64)
        return np.asarray(np.bincount(self.label, weights=weights, minlength=self.num_labels), dtype=np.float64)


def find_patterns(annotations: Annotations) -> Patterns:
    """Count items answered alike.

    Patterns are told apart by a sum of 64-bit multiples that are drawn once: two among a million are taken for one
    with a probability below 1e-7.
    """
    answers = annotations.last_answers()
    factors = np.random.default_rng(20150).integers(0, 2**63, answers.num_labels, dtype=np.uint64) * np.uint64(2)
    factors += np.uint64(1)
    found = [_block_patterns(answers, factors, *block) for block in answers.blocks()]
    if not found:
        empty = np.zeros(0, dtype=np.int64)
        return Patterns(multiplicity=empty, size=empty, pattern=empty, label=empty, count=empty, num_labels=0)
    hashes, times, lengths, labels, counts = (np.concatenate(parts) for parts in zip(*found, strict=True))
    _, first, member = np.unique(hashes, return_index=True, return_inverse=True)
    multiplicity = np.bincount(member, weights=times, minlength=len(first)).astype(np.int64)
    ends = np.cumsum(lengths)
    chosen = lengths[first]
    # The entries of the patterns that are kept: runs of lengths `chosen` from `ends - lengths`.
    entry = np.repeat(ends[first] - np.cumsum(chosen), chosen) + np.arange(chosen.sum())
    pattern = np.repeat(np.arange(len(first)), chosen)
    size = np.bincount(pattern, weights=counts[entry], minlength=len(first)).astype(np.int64)
    return Patterns(
        multiplicity=multiplicity,
        size=size,
        pattern=pattern,
        label=labels[entry],
        count=counts[entry],
        num_labels=answers.num_labels,
    )


def _block_patterns(
    answers: Annotations, factors: npt.NDArray[np.uint64], items: slice, rows: slice
) -> tuple[
    npt.NDArray[np.uint64], npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]
]:
    """Hash, items, and number of labels of each pattern of a block; then labels and counts, pattern by pattern."""
    counts = answers.counts(items, rows)
    counts = counts[counts.sum(axis=1) >= 2]
    hashes = (counts.astype(np.uint64) * factors).sum(axis=1, dtype=np.uint64)
    distinct, first, times = np.unique(hashes, return_index=True, return_counts=True)
    kept = counts[first]
    pattern, label = np.nonzero(kept)
    lengths = np.bincount(pattern, minlength=len(distinct))
    return distinct, times, lengths, label, kept[pattern, label]
