"""MinHash signatures and band hashes, from raw text in one pass."""

import functools

import numpy as np
import polars as pl

from curation.dedup.characters import table
from curation.dedup.rows import Utf8, normalized, over_slices, portions, utf8
from curation.dedup.shingles import ShingleConfig


@functools.cache
def permutations(num_perm: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Multipliers and addends of datasketch's scheme ``affine32``, taken from datasketch itself; (num_perm,) uint32."""
    from datasketch import MinHash

    multipliers, addends = MinHash(num_perm=num_perm, seed=seed, scheme="affine32").permutations
    return np.asarray(multipliers, np.uint32), np.asarray(addends, np.uint32)


def signatures(texts: pl.Series, shape: ShingleConfig, *, num_perm: int, seed: int, threads: int = 1) -> np.ndarray:
    """Sign each text's shingle set; the share of equal places of two signatures estimates their Jaccard similarity.

    They are bit for bit what ``datasketch.MinHash(num_perm, seed, hashfunc=int)`` has after an update with the upper
    halves of the shingle hashes, so either can be given to the other.

    Parameters
    ----------
    texts : n texts as they are; they are normalized here.
    num_perm : number of permutations.
    seed : of the permutations; signatures compare only under one seed.

    Returns
    -------
    (n, num_perm) uint32.

    Raises
    ------
    DataError : a text is null.

    References
    ----------
    Broder (1997), On the resemblance and containment of documents.
    """
    signed = np.empty((len(texts), num_perm), dtype=np.uint32)
    nothing = np.empty((0, 1), np.uint64), np.empty((0, 2), np.uint64)
    _sign(texts, shape, (1, 1), permutations(num_perm, seed), threads, (signed, *nothing))
    return signed


def band_hashes(
    texts: pl.Series, shape: ShingleConfig, *, bands: int, rows: int, seed: int, threads: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """One 64-bit hash a band of each text's signature, and a sketch of the signature.

    Returns
    -------
    hashes : (n, bands) uint64, equal for signatures that agree on all rows of the band. The band's number is part of
        the hash, so that all bands may share one table.
    sketches : (n, 2) uint64, the lowest bits of the first 128 places of the signature.

    Raises
    ------
    DataError : a text is null.
    """
    hashes = np.empty((len(texts), bands), dtype=np.uint64)
    sketches = np.empty((len(texts), 2), dtype=np.uint64)
    drawn = permutations(bands * rows, seed)
    _sign(texts, shape, (bands, rows), drawn, threads, (np.empty((0, 1), np.uint32), hashes, sketches))
    return hashes, sketches


def _sign(
    texts: pl.Series,
    shape: ShingleConfig,
    banding: tuple[int, int],
    drawn: tuple[np.ndarray, np.ndarray],
    threads: int,
    outputs: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    """Fill those of ``outputs`` (signatures, band hashes, sketches) that have rows."""
    for first, last in portions(texts):
        _sign_portion(texts[first:last], shape, banding, drawn, threads, tuple(one[first:last] for one in outputs))


def _sign_portion(
    texts: pl.Series,
    shape: ShingleConfig,
    banding: tuple[int, int],
    drawn: tuple[np.ndarray, np.ndarray],
    threads: int,
    outputs: tuple[np.ndarray, ...],
) -> None:
    from curation.dedup.kernels import sign_rows  # compiles: numba takes half a second

    entries = table(fold_digits=shape.fold_digits)
    ngrams = (shape.word_ngram, shape.char_ngram, shape.min_words, *banding)
    multipliers, addends = drawn

    def run(rows: Utf8, outputs: tuple[np.ndarray, ...], *, strict: bool) -> np.ndarray:
        hard = np.zeros(len(rows), dtype=np.bool_)

        def work(first: int, last: int) -> None:
            sign_rows(
                rows.data, rows.offsets, first, last, entries, strict, ngrams, multipliers, addends, *outputs, hard
            )

        over_slices(rows, work, threads)
        return hard

    hard = run(utf8(texts), outputs, strict=True)
    if hard.any():
        rest = utf8(normalized(texts.filter(pl.Series(hard))))
        some = tuple(np.empty((len(rest) if len(one) else 0, *one.shape[1:]), one.dtype) for one in outputs)
        run(rest, some, strict=False)
        for whole, part in zip(outputs, some, strict=True):
            if len(whole):
                whole[hard] = part
