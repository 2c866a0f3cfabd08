"""A language model of characters: counts of n-grams in hashed slots, hierarchical Dirichlet smoothing.

Counts of parts of a corpus add up, memory is fixed whatever the corpus, and any script is text: a symbol is a code
point. It is trained on the corpus itself or on a reference set, and tells how surprising a text is.
"""

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import polars as pl

from catalog.errors import DataError

ORDER = 5
"""Longest n-gram: a character after at most four others."""
NUM_SLOTS = 2**22
CONCENTRATION = 4.0
"""Weight of the shorter context against the longer one's counts, in observations."""
ALPHABET = 2**17
"""Characters that a context never seen is thought to be followed by: about the assigned code points of Unicode."""
FRAME_SCHEMA = {"slot": pl.Int64, "count": pl.Int64}

_BEGIN, _END = np.uint64(0x110000), np.uint64(0x110001)
_FOLLOWED = np.uint64(0x110002)
"""Stands for any character: how often a context was followed at all."""
_GOLDEN, _MIX1, _MIX2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S27, _S30, _S31 = np.uint64(27), np.uint64(30), np.uint64(31)
_compiled: Any = numba.njit(nogil=True, cache=True, boundscheck=False)


@dataclass(frozen=True, eq=False)
class NgramCounts:
    """How often n-grams of 1 to 5 characters occur.

    Parameters
    ----------
    counts : (5, 2**22) uint32, a row an order. N-grams that share a slot are counted together; a context's followers
        are counted in the same row.
    """

    counts: np.ndarray

    @classmethod
    def empty(cls) -> "NgramCounts":
        """Counts of no text."""
        return cls(np.zeros((ORDER, NUM_SLOTS), dtype=np.uint32))

    def merge(self, other: "NgramCounts") -> "NgramCounts":
        """Counts of both corpora together."""
        return NgramCounts(self.counts + other.counts)

    def to_frame(self) -> pl.DataFrame:
        """The slots that are not zero: ``slot`` i64 (order times 2**22 and the slot in it), ``count`` i64, sorted."""
        flat = self.counts.ravel()
        used = np.flatnonzero(flat)
        return pl.DataFrame({"slot": used.astype(np.int64), "count": flat[used].astype(np.int64)}, schema=FRAME_SCHEMA)

    @classmethod
    def from_frame(cls, frame: pl.DataFrame) -> "NgramCounts":
        """Counts from ``slot`` and ``count`` columns.

        Raises
        ------
        DataError : a slot is outside [0, 5 * 2**22), a count is negative.
        """
        slots, found = frame["slot"].to_numpy(), frame["count"].to_numpy()
        size = ORDER * NUM_SLOTS
        if len(slots) and not (slots.min() >= 0 and slots.max() < size and found.min() >= 0):
            raise DataError(f"n-gram counts need slots in [0, {size}) and counts of at least 0; count again")
        flat = np.zeros(size, dtype=np.uint32)
        flat[slots] = found
        return cls(flat.reshape(ORDER, NUM_SLOTS))


def count_ngrams(texts: pl.Series) -> NgramCounts:
    """Count the n-grams of texts, each with its beginning and its end.

    Parameters
    ----------
    texts : n strings, none null.
    """
    points, offsets = _points(texts)
    counts = np.zeros((ORDER, NUM_SLOTS), dtype=np.uint32)
    _count(points, offsets, counts)
    return NgramCounts(counts)


def surprise(texts: pl.Series, model: NgramCounts) -> np.ndarray:
    """Mean of -ln p over a text's characters and its end, in nats; its exponential is the perplexity.

    ``p(w | h) = (c(hw) + K p(w | h')) / (c(h) + K)``, where h' is h without its first character and K the
    concentration, down to a uniform distribution over the alphabet.

    Parameters
    ----------
    texts : n strings, none null.
    model : counts of the corpus that texts are held against.

    Returns
    -------
    (n,) float64, each above 0 and finite; that of a text is its own, whatever stands beside it.

    References
    ----------
    MacKay and Bauman Peto (1995), A Hierarchical Dirichlet Language Model, section 3; without their fit of the
    concentration. Perplexity as a curation signal: Marion et al. (2023), When Less is More, arXiv 2309.04564.
    """
    points, offsets = _points(texts)
    out = np.zeros(len(texts), dtype=np.float64)
    _surprise(points, offsets, model.counts, CONCENTRATION, 1.0 / ALPHABET, out)
    return out


def _points(texts: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """Code points of all texts in one array, and where each begins."""
    lengths = texts.str.len_chars().to_numpy().astype(np.int64)
    offsets = np.zeros(len(texts) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return np.frombuffer("".join(texts.to_list()).encode("utf-32-le"), dtype="<u4"), offsets


@_compiled
def _mixed(value):
    value = value + _GOLDEN
    value = (value ^ (value >> _S30)) * _MIX1
    value = (value ^ (value >> _S27)) * _MIX2
    return value ^ (value >> _S31)


@_compiled
def _contexts(points, start, at, hashes):
    """Hashes of the 0 to 4 characters before a place; what lies before a text's beginning is its beginning."""
    value = _GOLDEN
    hashes[0] = value
    for back in range(1, ORDER):
        before = at - back
        symbol = np.uint64(points[before]) if before >= start else _BEGIN
        value = _mixed(value ^ symbol)
        hashes[back] = value


@_compiled
def _slot(context, symbol):
    return np.int64(_mixed(context + symbol * _MIX2) & np.uint64(NUM_SLOTS - 1))


@_compiled
def _count(points, offsets, counts):
    hashes = np.empty(ORDER, dtype=np.uint64)
    for row in range(len(offsets) - 1):
        start, stop = offsets[row], offsets[row + 1]
        for at in range(start, stop + 1):
            symbol = np.uint64(points[at]) if at < stop else _END
            _contexts(points, start, at, hashes)
            for order in range(ORDER):
                counts[order, _slot(hashes[order], symbol)] += np.uint32(1)
                counts[order, _slot(hashes[order], _FOLLOWED)] += np.uint32(1)


@_compiled
def _surprise(points, offsets, counts, concentration, uniform, out):
    hashes = np.empty(ORDER, dtype=np.uint64)
    for row in range(len(offsets) - 1):
        start, stop = offsets[row], offsets[row + 1]
        total = 0.0
        for at in range(start, stop + 1):
            symbol = np.uint64(points[at]) if at < stop else _END
            _contexts(points, start, at, hashes)
            p = uniform
            for order in range(ORDER):
                followed = np.float64(counts[order, _slot(hashes[order], _FOLLOWED)])
                if followed == 0.0:
                    break
                # Slots are shared: a character cannot follow more often than anything does.
                seen = min(np.float64(counts[order, _slot(hashes[order], symbol)]), followed)
                p = (seen + concentration * p) / (followed + concentration)
            total -= np.log(p)
        out[row] = total / (stop - start + 1)
