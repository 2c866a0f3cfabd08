"""What a classifier that never saw a record says of it: evidence beside the annotators' answers."""

from typing import Any

import numpy as np
import polars as pl

from catalog.store import Store
from catalog.tables.datasets import Version
from labeling.annotations import Annotations
from labeling.learner import Learner
from labeling.truth.majority import majority_labels
from workers import curated

NUM_FOLDS, SEED = 5, 0


def held_out_proba(store: Store, version: Version, answers: Annotations) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Probabilities of every answered record by a linear head on its vector, fitted to the majority without its fold.

    Equal texts may lie in different folds: of a dataset that was not deduplicated the classifier knows too much.

    Returns
    -------
    (num_items, num_labels) float64, rows summing to 1, none 0: a label that a fold never met counts as met once.

    Raises
    ------
    DataError : without some fold all labels are the same.
    """
    places = pl.DataFrame({"id": curated.read_records(store, version)["id"]}).with_row_index("row")
    rows = answers.items.alias("id").to_frame().join(places, on="id", how="left", maintain_order="left")["row"]
    known = rows.is_not_null().to_numpy()
    vectors = curated.read_embeddings(store, version)[rows.fill_null(0).to_numpy()]
    label, _ = majority_labels(answers)
    known &= label >= 0
    folds = np.random.default_rng(SEED).permutation(answers.num_items) % NUM_FOLDS
    proba = np.full((answers.num_items, answers.num_labels), 1 / answers.num_labels)
    for fold in range(NUM_FOLDS):
        seen, asked = known & (folds != fold), known & (folds == fold)
        if asked.any():
            names = [answers.labels[one] for one in label[seen]]
            learner = Learner.fit(vectors[seen], names, answers.labels, SEED)
            size = len(names)
            proba[asked] = (size * learner.proba(vectors[asked]) + 1) / (size + answers.num_labels)
    return proba
