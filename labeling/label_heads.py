"""A linear head for each label by itself, where an answer is any number of labels."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from labeling.learner import Learner

OFF, ON = "off", "on"


@dataclass(frozen=True, slots=True, eq=False)
class LabelHeads:
    """One fitted head a label; a label that all records have, or none, has its share for every record."""

    heads: tuple[Learner | None, ...]
    shares: npt.NDArray[np.float64]

    @classmethod
    def fit(cls, embeddings: npt.NDArray[np.float32], label_sets: npt.NDArray[np.bool_], seed: int) -> "LabelHeads":
        """Fit on labelled records.

        Parameters
        ----------
        embeddings : (n, dim) float32, n at least 1.
        label_sets : (n, num_labels) bool.
        """
        heads = tuple(
            Learner.fit(embeddings, np.where(has, ON, OFF).tolist(), (OFF, ON), seed)
            if 0 < has.sum() < len(has)
            else None
            for has in label_sets.T
        )
        # Laplace's: what was never seen yet is not impossible.
        return cls(heads, (label_sets.sum(axis=0) + 1) / (len(label_sets) + 2))

    def proba(self, embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Probability of each label.

        Returns
        -------
        (n, num_labels) float64 in [0, 1].
        """
        columns = [
            np.full(len(embeddings), share) if head is None else head.proba(embeddings)[:, 1]
            for head, share in zip(self.heads, self.shares, strict=True)
        ]
        return np.stack(columns, axis=1)
