"""Who said what about which item: answers in long form, sparse, in twelve bytes each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from catalog.errors import DataError, nearest

MAX_BLOCK_CELLS = 2_000_000
"""Cells of a block of items and labels: what is dense is never larger."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Annotations:
    """Answers of annotators to items. Made by ``from_frame`` or ``from_codes``.

    Parameters
    ----------
    item : (n,) int32 in [0, num_items), never falling.
    annotator : (n,) int32 in [0, num_annotators), rising within an item but where one answered it twice.
    label : (n,) int32 in [0, num_labels).
    starts : (num_items + 1,) int64; item ``i`` has the answers ``starts[i]`` up to ``starts[i + 1]``.
    items, annotators, labels : what the numbers stand for. Labels are in the order of the schema, given or not.
    num_repeated : answers that replace an earlier one of the same annotator to the same item, or are replaced.
    """

    item: npt.NDArray[np.int32]
    annotator: npt.NDArray[np.int32]
    label: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64]
    items: pl.Series
    annotators: tuple[str, ...]
    labels: tuple[str, ...]
    num_repeated: int

    @classmethod
    def from_frame(cls, frame: pl.DataFrame, labels: Sequence[str] | None = None) -> "Annotations":
        """Encode a frame. Items and annotators are numbered in the order of their names.

        Parameters
        ----------
        frame : ``item``, ``annotator``, ``label``: text (anything else is turned into it). A row that lacks one of them
            is no answer. Rows are in the order in which they were given.
        labels : the schema's labels in its order; by default those that occur, sorted.

        Raises
        ------
        DataError : a column is missing, or a label is not among ``labels``.
        """
        for column in ("item", "annotator", "label"):
            if column not in frame.columns:
                raise DataError(f"annotations lack the column {column!r}; {nearest(column, frame.columns)}")
        rows = frame.select(pl.col("item", "annotator", "label").cast(pl.String)).drop_nulls()
        names = tuple(labels) if labels is not None else tuple(rows["label"].unique().sort().to_list())
        unknown = rows.filter(~pl.col("label").is_in(list(names)))["label"]
        if unknown.len():
            raise DataError(f"label {unknown[0]!r} is not in the schema; {nearest(unknown[0], names)}")
        items, annotators = rows["item"].unique().sort(), rows["annotator"].unique().sort()
        return cls.from_codes(
            item=_codes(rows["item"], items),
            annotator=_codes(rows["annotator"], annotators),
            label=_codes(rows["label"], pl.Series(names, dtype=pl.String)),
            items=items,
            annotators=tuple(annotators.to_list()),
            labels=names,
        )

    @classmethod
    def from_codes(
        cls,
        *,
        item: npt.NDArray[Any],
        annotator: npt.NDArray[Any],
        label: npt.NDArray[Any],
        items: pl.Series,
        annotators: tuple[str, ...],
        labels: tuple[str, ...],
    ) -> "Annotations":
        """Sort numbered answers by item and annotator; those of one annotator to one item stay in their order.

        Raises
        ------
        DataError : lengths differ, or a number stands for nothing.
        """
        if not len(item) == len(annotator) == len(label):
            raise DataError(
                f"{len(item)} items, {len(annotator)} annotators and {len(label)} labels: one each an answer"
            )
        for name, codes, limit in (
            ("item", item, len(items)),
            ("annotator", annotator, len(annotators)),
            ("label", label, len(labels)),
        ):
            if len(codes) and (int(codes.min()) < 0 or int(codes.max()) >= limit):
                raise DataError(f"{name} numbers from {codes.min()} to {codes.max()} must lie in [0, {limit})")
        place = item.astype(np.int64)
        place *= max(1, len(annotators))
        place += annotator
        if len(place) > 1 and not (place[1:] >= place[:-1]).all():
            order = np.argsort(place, kind="stable")
            item, annotator, label, place = item[order], annotator[order], label[order], place[order]
        starts = np.zeros(len(items) + 1, dtype=np.int64)
        np.cumsum(np.bincount(item, minlength=len(items)), out=starts[1:])
        return cls(
            item=item.astype(np.int32, copy=False),
            annotator=annotator.astype(np.int32, copy=False),
            label=label.astype(np.int32, copy=False),
            starts=starts,
            items=items,
            annotators=annotators,
            labels=labels,
            num_repeated=int((place[1:] == place[:-1]).sum()),
        )

    def __len__(self) -> int:
        return len(self.item)

    @property
    def num_items(self) -> int:
        """Items, those without an answer included."""
        return len(self.items)

    @property
    def num_annotators(self) -> int:
        """Annotators."""
        return len(self.annotators)

    @property
    def num_labels(self) -> int:
        """Labels of the schema."""
        return len(self.labels)

    def last_answers(self) -> "Annotations":
        """The same with one answer an annotator and item: the last. Nobody agrees or disagrees with himself."""
        if not self.num_repeated:
            return self
        same = (self.item[1:] == self.item[:-1]) & (self.annotator[1:] == self.annotator[:-1])
        last = np.append(~same, True)
        return Annotations.from_codes(
            item=self.item[last],
            annotator=self.annotator[last],
            label=self.label[last],
            items=self.items,
            annotators=self.annotators,
            labels=self.labels,
        )

    def blocks(self) -> Iterator[tuple[slice, slice]]:
        """Items from first to last in blocks, with their answers: slices of items and of answers."""
        rows = max(1, MAX_BLOCK_CELLS // max(1, self.num_labels))
        for first in range(0, self.num_items, rows):
            last = min(first + rows, self.num_items)
            yield slice(first, last), slice(int(self.starts[first]), int(self.starts[last]))

    def counts(self, items: slice, answers: slice, weights: npt.NDArray[np.float64] | None = None) -> npt.NDArray[Any]:
        """How often each label was given to each item of a block; (items of the block, num_labels).

        int64; or float64, the sum of ``weights`` (answers of the block,) where they are given.
        """
        num = items.stop - items.start
        cells = (self.item[answers].astype(np.int64) - items.start) * self.num_labels + self.label[answers]
        return np.bincount(cells, weights=weights, minlength=num * self.num_labels).reshape(num, self.num_labels)


def _codes(values: pl.Series, names: pl.Series) -> npt.NDArray[np.int32]:
    """Where each value stands in ``names``, which are distinct."""
    places = pl.DataFrame({"name": names, "code": np.arange(len(names), dtype=np.int32)})
    found = values.alias("name").to_frame().join(places, on="name", how="left", maintain_order="left")
    return found["code"].to_numpy()
