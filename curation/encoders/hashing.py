"""Character n-grams hashed and projected: no model, any script."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from curation.encoders import ENCODERS
from curation.encoders.installed import Requires
from curation.encoders.vectors import unit_rows

DIMENSIONS = 256
NUM_FEATURES = 2**18
_SIGNS_A_FEATURE = 16
_SEED = 20_261_123


@lru_cache(maxsize=1)
def _projection() -> Any:
    """Sparse sign matrix (num_features, dimensions): every feature has 16 entries of plus or minus one."""
    from scipy.sparse import csr_array

    rng = np.random.default_rng(_SEED)
    columns = rng.integers(DIMENSIONS, size=NUM_FEATURES * _SIGNS_A_FEATURE)
    signs = rng.integers(2, size=len(columns)).astype(np.float32) * 2 - 1
    offsets = np.arange(NUM_FEATURES + 1) * _SIGNS_A_FEATURE
    return csr_array((signs, columns, offsets), shape=(NUM_FEATURES, DIMENSIONS))


@dataclass(frozen=True, kw_only=True)
class Hashing(Requires):
    """What is said of the encoder."""

    knows_meaning: bool = False


@ENCODERS.register("hashing", Hashing)
def hashing(texts: Sequence[str], cache: Path) -> np.ndarray:  # noqa: ARG001 - nothing to cache, but one contract
    """Encode texts by their character 2- to 4-grams, hashed and projected by fixed random signs to 256 dimensions.

    Similar spelling gives similar vectors, in any language; meaning it does not know. Good for Korean, for spam, and
    where no model may be installed.

    Parameters
    ----------
    texts : n texts.
    cache : not used.

    Returns
    -------
    (n, 256) float32, rows of length 1.

    References
    ----------
    Weinberger et al. (2009), Feature Hashing for Large Scale Multitask Learning; Li, Hastie and Church (2006), Very
    Sparse Random Projections.
    """
    from sklearn.feature_extraction.text import HashingVectorizer

    if not texts:
        return np.empty((0, DIMENSIONS), dtype=np.float32)
    vectorizer = HashingVectorizer(analyzer="char_wb", ngram_range=(2, 4), n_features=NUM_FEATURES, dtype=np.float32)
    return unit_rows((vectorizer.transform(texts) @ _projection()).toarray())
