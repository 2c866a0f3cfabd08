"""Texts as sets of hashed shingles: overlapping runs of words or of characters."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from curation.dedup.characters import table
from curation.dedup.rows import Utf8, normalized, over_slices, portions, utf8
from curation.tokens import Ragged, offsets_of


@dataclass(frozen=True, kw_only=True)
class ShingleConfig:
    """What of a text is compared.

    Parameters
    ----------
    word_ngram, char_ngram : shingle length, in words and in characters.
    min_words : texts with fewer words are compared by characters.
    fold_digits : whether all digits are alike; texts that differ in numbers only are then the same.
    """

    word_ngram: int = 5
    char_ngram: int = 5
    min_words: int = 50
    fold_digits: bool = False


def shingle(texts: pl.Series, shape: ShingleConfig, *, threads: int = 1) -> Ragged:
    """Turn each text into the sorted set of its 64-bit shingle hashes.

    A token is a run of letters, marks, digits and underscores, or one character of a script without spaces. Word
    n-grams are taken of texts with at least ``min_words`` tokens that are mostly written with spaces, character n-grams
    (spaces and punctuation included) of all others; a text of fewer than ``word_ngram`` tokens, or shorter than one
    n-gram, is one shingle. So no text has an empty set, and short texts do not collapse into one.

    Parameters
    ----------
    texts : n texts as they are; they are normalized here.

    Returns
    -------
    n sets; values sorted and unique within each.

    Raises
    ------
    DataError : a text is null.

    References
    ----------
    Broder (1997), On the resemblance and containment of documents, section 2.
    """
    parts = [_shingle(texts[first:last], shape, threads) for first, last in portions(texts)]
    if len(parts) == 1:
        return parts[0]
    lengths = np.concatenate([part.lengths for part in parts])
    return Ragged(np.concatenate([part.values for part in parts]), offsets_of(lengths))


def _shingle(texts: pl.Series, shape: ShingleConfig, threads: int) -> Ragged:
    from curation.dedup.kernels import compact, shingle_rows  # compiles: numba takes half a second

    entries = table(fold_digits=shape.fold_digits)
    ngrams = (shape.word_ngram, shape.char_ngram, shape.min_words)

    def run(rows: Utf8, *, strict: bool) -> tuple[Ragged, np.ndarray]:
        hard = np.zeros(len(rows), dtype=np.bool_)
        lengths = np.zeros(len(rows), dtype=np.int64)
        begin = int(rows.offsets[0])
        spread = np.empty(int(rows.offsets[-1]) - begin + len(rows), dtype=np.uint64)
        offsets = rows.offsets - begin
        data = rows.data[begin:]

        def work(first: int, last: int) -> None:
            shingle_rows(data, offsets, first, last, entries, strict, ngrams, spread, lengths, hard)

        over_slices(rows, work, threads)
        values = np.empty(int(lengths.sum()), dtype=np.uint64)
        ends = np.zeros(len(rows) + 1, dtype=np.int64)
        compact(spread, offsets, lengths, values, ends)
        return Ragged(values, ends), hard

    easy, hard = run(utf8(texts), strict=True)
    if not hard.any():
        return easy
    rest, _ = run(utf8(normalized(texts.filter(pl.Series(hard)))), strict=False)
    lengths = easy.lengths
    lengths[hard] = rest.lengths
    offsets = offsets_of(lengths)
    values = np.empty(int(offsets[-1]), dtype=np.uint64)
    from_rest = np.repeat(hard, lengths)
    values[from_rest], values[~from_rest] = rest.values, easy.values
    return Ragged(values, offsets)
