"""The compiled loop of static embeddings."""

from typing import Any

import numba
import numpy as np

_compiled: Any = numba.njit(nogil=True, cache=True, boundscheck=False)


@_compiled
def mean_rows(vectors, ids, offsets, out):
    """Mean of the vectors of each text's tokens, in the order of the tokens; a text without tokens stays as it is."""
    for row in range(len(offsets) - 1):
        start, stop = offsets[row], offsets[row + 1]
        if start == stop:
            continue
        for place in range(start, stop):
            token = ids[place]
            for axis in range(vectors.shape[1]):
                out[row, axis] += vectors[token, axis]
        share = np.float32(1.0) / np.float32(stop - start)
        for axis in range(vectors.shape[1]):
            out[row, axis] *= share
