"""What a query strategy is given, and what it gives back."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from catalog.errors import DataError


class ColdStartError(DataError):
    """The strategy asks a model that does not exist yet: give some labels, or use a strategy that needs none."""

    code = "cold_start"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Candidates:
    """The unlabelled pool as a strategy sees it.

    Parameters
    ----------
    embeddings : (num_candidates, dim) float32, finite.
    proba : (num_candidates, num_classes) float64, rows summing to 1, or None while there is no model.
    labelled_embeddings : (num_labelled, dim) float32, possibly empty.
    classes : (num_classes,) label names, the columns of ``proba``.
    suspicion : (num_candidates,) float64, probability that the label a record has already is wrong, or None where
        nobody has looked for wrong labels.

    Raises
    ------
    DataError : shapes disagree, or a value is not finite.
    """

    embeddings: npt.NDArray[np.float32]
    proba: npt.NDArray[np.float64] | None
    labelled_embeddings: npt.NDArray[np.float32]
    classes: tuple[str, ...]
    suspicion: npt.NDArray[np.float64] | None = None

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
        if self.proba is not None:
            if self.proba.shape != (len(self), len(self.classes)):
                raise DataError(f"proba of shape {self.proba.shape} must be {(len(self), len(self.classes))}")
            if not np.allclose(self.proba.sum(axis=1), 1.0, atol=1e-6) or (self.proba < 0).any():
                raise DataError("every row of proba must be non-negative and sum to 1 within 1e-6")

        if self.suspicion is not None and (
            self.suspicion.shape != (len(self),) or not np.isfinite(self.suspicion).all()
        ):
            raise DataError(f"suspicion of shape {self.suspicion.shape} must be {len(self)} finite numbers")

    def __len__(self) -> int:
        return len(self.embeddings)

    def probabilities(self) -> npt.NDArray[np.float64]:
        """``proba``, for strategies that cannot do without.

        Raises
        ------
        ColdStartError : there is no model yet.
        """
        if self.proba is None:
            raise ColdStartError("there is no model yet; label with kmeans or random first")
        return self.proba


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
