"""What a training reads: texts, labels and the manifest, aligned row by row."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import polars as pl

from catalog.errors import DataError
from training.objectives import IGNORED
from training.stream import StreamManifest

Span = tuple[int, int, int]
"""A part of a text: its first code point, the one behind its last, and its label's place among the classes."""


@dataclass(frozen=True)
class TrainingData:
    """Records ready to train on; ``build`` aligns them.

    Parameters
    ----------
    texts : (n,) str, in the manifest's row order.
    labels : (n,) index into ``classes``, or -100 where unknown.
    classes : names of the classes, at least two; none where no record has a label and none is needed. With spans, names
        of their labels, at least one.
    manifest : ids, hashes, difficulty and weight of the same rows.
    spans : (n,) marked parts of each text, None where nobody looked; None altogether where texts have no such labels.
    """

    texts: Sequence[str]
    labels: Sequence[int]
    classes: Sequence[str]
    manifest: StreamManifest
    spans: Sequence[Sequence[Span] | None] | None = None

    def __post_init__(self) -> None:
        if not len(self.texts) == len(self.labels) == len(self.manifest):
            raise DataError(
                f"{len(self.texts)} texts, {len(self.labels)} labels and {len(self.manifest)} manifest rows must be "
                "equally many; build all three from one frame"
            )
        if self.spans is not None:
            self._check_spans(self.spans)
            return
        if not self.classes and set(self.labels) <= {IGNORED}:
            return
        if len(self.classes) < 2 or len(set(self.classes)) != len(self.classes):
            raise DataError(
                f"classes={list(self.classes)} must be at least 2, all different; label records of another class first"
            )
        if set(self.labels) == {IGNORED}:
            raise DataError("no record has a label; label some, or take labels from a column of the source")

    def _check_spans(self, spans: Sequence[Sequence[Span] | None]) -> None:
        if len(spans) != len(self.texts):
            raise DataError(f"{len(spans)} lists of spans and {len(self.texts)} texts must be equally many")
        for text, marked in zip(self.texts, spans, strict=True):
            for start, end, label in marked or ():
                if not 0 <= start < end <= len(text) or not 0 <= label < len(self.classes):
                    raise DataError(
                        f"span ({start}, {end}, {label}) must lie in the {len(text)} code points of its text and "
                        f"be one of {len(self.classes)} labels; take offsets in code points, half open"
                    )

    @classmethod
    def build(cls, frame: pl.DataFrame, classes: Sequence[str] | None = None) -> Self:
        """Sort and align a frame.

        Parameters
        ----------
        frame : id, hash, text, label (str or null), difficulty, weight; maybe spans, a list of start, end and label
            (str) each, null where nobody looked.
        classes : names and order of the classes; by default the labels that occur, of spans where there are such,
            sorted. None at all where the labels are all null: texts to learn from as they are.

        Raises
        ------
        DataError : a text is null, a label is no class, fewer than two classes, or the manifest is refused.
        """
        manifest = StreamManifest.build(frame)
        frame = frame.sort("id")
        null = frame.filter(pl.col("text").is_null())
        if not null.is_empty():
            raise DataError(
                f"record {null['id'][0]!r} (and {null.height - 1} more) has no text; drop it from the version"
            )
        if "spans" in frame.columns:
            return cls._with_spans(frame, classes, manifest)
        names = list(classes) if classes is not None else sorted(frame["label"].drop_nulls().unique().to_list())
        unknown = frame.filter(pl.col("label").is_not_null() & ~pl.col("label").is_in(names))
        if not unknown.is_empty():
            raise DataError(
                f"label={unknown['label'][0]!r} of record {unknown['id'][0]!r} (and {unknown.height - 1} more) is none "
                f"of the classes {', '.join(names)}; map it or add the class"
            )
        number = {name: place for place, name in enumerate(names)}
        labels = [number.get(label, IGNORED) for label in frame["label"].to_list()]
        return cls(frame["text"].to_list(), labels, names, manifest)

    @classmethod
    def _with_spans(cls, frame: pl.DataFrame, classes: Sequence[str] | None, manifest: StreamManifest) -> Self:
        marked = frame["spans"].to_list()
        names = (
            list(classes) if classes is not None else sorted({one["label"] for spans in marked for one in spans or ()})
        )
        number = {name: place for place, name in enumerate(names)}
        unknown = sorted({one["label"] for spans in marked for one in spans or ()} - set(names))
        if unknown:
            raise DataError(f"label={unknown[0]!r} of a span is none of {', '.join(names)}; map it or add the label")
        spans = [
            None if one is None else [(part["start"], part["end"], number[part["label"]]) for part in one]
            for one in marked
        ]
        return cls(frame["text"].to_list(), [IGNORED] * len(frame), names, manifest, spans)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of manifest, labels, classes and, if any, spans; texts are covered by the manifest's hashes."""
        content = json.dumps(
            [self.manifest.digest, list(self.labels), list(self.classes)]
            + ([] if self.spans is None else [list(self.spans)])
        )
        return hashlib.sha256(content.encode()).hexdigest()


def short_names(sources: pl.Series) -> pl.Series:
    """Files by their names alone, without folders, where no two then have the same."""
    short = sources.str.split("/").list.last()
    return short if short.n_unique() == sources.n_unique() else sources
