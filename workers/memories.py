"""Memories of curated versions: the catalog's vectors of labelled records, for a classifier to read."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from catalog.errors import DataError
from catalog.store import Store
from catalog.tables.datasets import Version
from workers import curated

if TYPE_CHECKING:
    from training.retrieval.memory import Memory


def remember_version(store: Store, version: Version, classes: Sequence[str], folder: Path) -> "Memory":
    """Write the vectors of a version's labelled records, with their labels, as a memory for ``knn_classifier``.

    Parameters
    ----------
    version : curated; its vectors were made by the encoder of its recipe.
    classes : the classifier's, in its order; records of other labels, or of none, are left out.
    folder : where the memory will lie; it must not exist.

    Raises
    ------
    DataError : no record has a label of these classes.
    ConflictError : the folder exists.
    """
    from training.retrieval.knn_classifier import remember_records

    labels = curated.read_records(store, version)["label"]
    vectors = curated.read_embeddings(store, version)
    codes = labels.replace_strict(list(classes), range(len(classes)), default=None, return_dtype=pl.Int64)
    rows = np.flatnonzero(codes.is_not_null().to_numpy())
    if not len(rows):
        raise DataError(
            f"none of {len(labels)} records is labelled {', '.join(classes)}; label some, or name other classes"
        )
    entries = [(vectors[rows], codes.drop_nulls().to_numpy()[:, None])]
    return remember_records(folder, entries, encoder=version.summary["encoder"], dim=vectors.shape[1])
