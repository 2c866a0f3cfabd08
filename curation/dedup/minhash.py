"""MinHash signatures."""

from itertools import pairwise

import numpy as np

from curation.tokens import Ragged


def signatures(shingles: Ragged, *, num_perm: int, seed: int) -> np.ndarray:
    """Sign each shingle set; the share of equal places of two signatures estimates their Jaccard similarity.

    Parameters
    ----------
    shingles : n sets of 64-bit hashes; their upper halves are what datasketch permutes (scheme ``affine32``).
    num_perm : number of permutations.
    seed : of the permutations; signatures compare only under one seed.

    Returns
    -------
    (n, num_perm) uint32. An empty set has the largest value everywhere.

    References
    ----------
    Broder (1997), On the resemblance and containment of documents. The implementation is datasketch's.
    """
    from datasketch import MinHash

    halves = (shingles.values >> np.uint64(32)).astype(np.uint32)
    offsets = shingles.offsets.tolist()
    sets = (halves[start:end].tolist() for start, end in pairwise(offsets))
    signed = np.empty((len(shingles), num_perm), dtype=np.uint32)
    for row, sketch in enumerate(MinHash.generator(sets, num_perm=num_perm, seed=seed, hashfunc=int)):
        signed[row] = sketch.hashvalues
    return signed
