"""What a query strategy is given, and what it gives back."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog.errors import DataError

Committee = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float64]]
"""Probabilities of several heads for some rows of the candidates: rows to (num_members, len(rows), num_classes).

Asked for rows, never for the pool: eight heads' opinions of a million records on 77 labels would be 5 GB.
"""


class ColdStartError(DataError):
    """The strategy asks a model that does not exist yet: give some labels, or use a strategy that needs none."""

    code = "cold_start"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Answers:
    """Answers that candidates have already, one row an answer: what a second opinion is weighed by.

    Parameters
    ----------
    rows : (num_answers,) int64, rows of the candidates.
    annotators : (num_answers,) int64 from 0 up, who gave it; nobody answers a row twice.
    codes : (num_answers,) int64, columns of ``proba``.
    closed : distinct rows that are not to be chosen: they say what their annotators are worth. None in a batch of at
        most the other candidates.
    """

    rows: npt.NDArray[np.int64]
    annotators: npt.NDArray[np.int64]
    codes: npt.NDArray[np.int64]
    closed: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Candidates:
    """The pool as a strategy sees it: unlabelled, but for rows that ``answers`` names.

    Parameters
    ----------
    embeddings : (num_candidates, dim) float32, finite.
    proba : (num_candidates, num_classes) float64, rows summing to 1, or None while there is no model.
    labelled_embeddings : (num_labelled, dim) float32, possibly empty.
    classes : (num_classes,) label names, the columns of ``proba``.
    suspicion : (num_candidates,) float64, probability that the label a record has already is wrong, or None where
        nobody has looked for wrong labels.
    labelled_codes : (num_labelled,) int64, columns of ``proba``, the labels of ``labelled_embeddings``.
    labelled_proba : (num_labelled, num_classes) float64, what the model makes of the labelled records.
    committee : probabilities of several heads, for rows on demand.
    label_proba : (num_candidates, num_classes) float64 in [0, 1]: of each label by itself, in multi-label tasks.
    labelled_label_sets : (num_labelled, num_classes) bool, which labels each labelled record has, in those tasks.
    sequence_log_proba : (num_candidates,) float64, not above 0: mean over tokens of the likeliest
        label's log-probability, in nats, in span tasks.
    answers : of candidates that may be asked about again.

    Raises
    ------
    DataError : shapes disagree, or a value is not finite.
    """

    embeddings: npt.NDArray[np.float32]
    proba: npt.NDArray[np.float64] | None
    labelled_embeddings: npt.NDArray[np.float32]
    classes: tuple[str, ...]
    suspicion: npt.NDArray[np.float64] | None = None
    labelled_codes: npt.NDArray[np.int64] | None = None
    labelled_proba: npt.NDArray[np.float64] | None = None
    committee: Committee | None = None
    label_proba: npt.NDArray[np.float64] | None = None
    labelled_label_sets: npt.NDArray[np.bool_] | None = None
    sequence_log_proba: npt.NDArray[np.float64] | None = None
    answers: Answers | None = None

    def __post_init__(self) -> None:
        if self.embeddings.ndim != 2 or not np.isfinite(self.embeddings.sum(dtype=np.float64)):
            raise DataError(
                f"embeddings of shape {self.embeddings.shape} must be a finite matrix; embed the pool again"
            )
        if self.labelled_embeddings.ndim != 2 or self.labelled_embeddings.shape[1] != self.embeddings.shape[1]:
            raise DataError(
                f"labelled_embeddings of shape {self.labelled_embeddings.shape} must have the pool's "
                f"{self.embeddings.shape[1]} columns; embed both with one encoder"
            )
        num_classes, num_labelled = len(self.classes), len(self.labelled_embeddings)
        _check_rows("proba", self.proba, (len(self), num_classes))
        _check_rows("labelled_proba", self.labelled_proba, (num_labelled, num_classes))
        if self.suspicion is not None and (
            self.suspicion.shape != (len(self),) or not np.isfinite(self.suspicion).all()
        ):
            raise DataError(f"suspicion of shape {self.suspicion.shape} must be {len(self)} finite numbers")
        _check_codes("labelled_codes", self.labelled_codes, num_labelled, num_classes)
        _check_range("label_proba", self.label_proba, (len(self), num_classes), 0.0, 1.0)
        _check_range("labelled_label_sets", self.labelled_label_sets, (num_labelled, num_classes), 0, 1)
        _check_range("sequence_log_proba", self.sequence_log_proba, (len(self),), -np.inf, 0.0)
        if self.answers is not None:
            _check_codes("answers.rows", self.answers.rows, len(self.answers.rows), len(self))
            _check_codes("answers.annotators", self.answers.annotators, len(self.answers.rows), 2**31)
            _check_codes("answers.codes", self.answers.codes, len(self.answers.rows), num_classes)
            _check_codes("answers.closed", self.answers.closed, len(self.answers.closed), len(self))

    def __len__(self) -> int:
        return len(self.embeddings)

    def take(self, rows: npt.NDArray[np.int64]) -> "Candidates":
        """Some of the candidates, in the order of ``rows`` (distinct); what is labelled stays as it is."""

        def of(values: npt.NDArray[np.float64] | None) -> npt.NDArray[np.float64] | None:
            return None if values is None else values[rows]

        place = np.full(len(self), -1, dtype=np.int64)
        place[rows] = np.arange(len(rows))
        answers, committee = self.answers, self.committee
        if answers is not None:
            kept = place[answers.rows] >= 0
            closed = place[answers.closed]
            answers = Answers(
                rows=place[answers.rows[kept]],
                annotators=answers.annotators[kept],
                codes=answers.codes[kept],
                closed=closed[closed >= 0],
            )
        return replace(
            self,
            embeddings=self.embeddings[rows],
            proba=of(self.proba),
            suspicion=of(self.suspicion),
            committee=None if committee is None else lambda some: committee(rows[some]),
            label_proba=of(self.label_proba),
            sequence_log_proba=of(self.sequence_log_proba),
            answers=answers,
        )

    def probabilities(self) -> npt.NDArray[np.float64]:
        """``proba``, for strategies that cannot do without.

        Raises
        ------
        ColdStartError : there is no model yet.
        """
        if self.proba is None:
            raise ColdStartError("there is no model yet; label with kmeans or random first")
        return self.proba

    def require(self, what: str, remedy: str) -> None:
        """Stop a strategy that lacks an optional field.

        Raises
        ------
        ColdStartError : there is no model yet, so nothing could give the field.
        DataError : there is a model, but the caller gave no ``what``.
        """
        if self.proba is None and self.label_proba is None and self.sequence_log_proba is None:
            raise ColdStartError(f"there is no model yet, hence no {what}; label with kmeans or random first")
        raise DataError(f"the candidates have no {what}; {remedy}")

    def opinions(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """What every member of the committee makes of some rows.

        Returns
        -------
        (num_members, len(rows), num_classes) float64, the last axis summing to 1.

        Raises
        ------
        ColdStartError : there is no model yet.
        DataError : there is a model but no committee, or its answer has another shape.
        """
        if self.committee is None:
            self.require("committee", "fit one (labeling.learner.fit_committee), or use entropy or margin")
        assert self.committee is not None
        found = self.committee(rows)
        if found.ndim != 3 or found.shape[1:] != (len(rows), len(self.classes)):
            raise DataError(
                f"the committee answered with shape {found.shape}; it must be (num_members, {len(rows)}, "
                f"{len(self.classes)})"
            )
        return found


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Selection:
    """What to ask next, best first.

    Parameters
    ----------
    indices : (batch_size,) int64, distinct rows of the candidates.
    utility : (batch_size,) float64, never rising.
    why : one line an item, shown to the annotator and stored.
    """

    indices: npt.NDArray[np.int64]
    utility: npt.NDArray[np.float64]
    why: list[str]


def _check_rows(name: str, values: npt.NDArray[np.float64] | None, shape: tuple[int, ...]) -> None:
    if values is None:
        return
    if values.shape != shape:
        raise DataError(f"{name} of shape {values.shape} must be {shape}")
    if not np.allclose(values.sum(axis=1), 1.0, atol=1e-6) or (values < 0).any():
        raise DataError(f"every row of {name} must be non-negative and sum to 1 within 1e-6")


def _check_range(name: str, values: npt.NDArray[Any] | None, shape: tuple[int, ...], low: float, high: float) -> None:
    if values is None:
        return
    if values.shape != shape or not np.isfinite(values).all() or (values < low).any() or (values > high).any():
        raise DataError(f"{name} of shape {values.shape} must be {shape} finite values in [{low}, {high}]")


def _check_codes(name: str, values: npt.NDArray[np.int64] | None, size: int, limit: int) -> None:
    if values is None:
        return
    if values.shape != (size,) or (size and (values.min() < 0 or values.max() >= limit)):
        raise DataError(f"{name} of shape {values.shape} must be {size} whole numbers in [0, {limit})")
