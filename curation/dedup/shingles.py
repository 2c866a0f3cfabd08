"""Texts as sets of hashed shingles: overlapping runs of words or of characters."""

import numpy as np
import polars as pl

from curation.scripts import UNSPACED
from curation.tokens import Ragged, hash_characters, hash_tokens, mix, offsets_of

_WORD_DOMAIN = np.uint64(0x5761)
_CHAR_DOMAIN = np.uint64(0x4368)
_MULTIPLIER = np.uint64(0x9FB21C651E98DF25)
CHUNK_TEXTS = 20_000
"""Texts shingled at a time: bounds the intermediate arrays."""


def shingle(texts: pl.Series, *, word_ngram: int = 5, char_ngram: int = 5, min_words: int = 50) -> Ragged:
    """Turn each normalized text into the sorted set of its 64-bit shingle hashes.

    Word n-grams are taken of texts with at least ``min_words`` tokens that are mostly written with spaces, character
    n-grams (spaces and punctuation included) of all others; a text shorter than one n-gram is one shingle. So no text
    has an empty set, and short texts do not collapse into one.

    Parameters
    ----------
    texts : n normalized strings.
    word_ngram, char_ngram : shingle length, in words and in characters.
    min_words : below it a text is taken by characters.

    Returns
    -------
    n sets; values sorted and unique within each.

    References
    ----------
    Broder (1997), On the resemblance and containment of documents, section 2.
    """
    parts = [
        _shingle(texts.slice(start, CHUNK_TEXTS), word_ngram, char_ngram, min_words)
        for start in range(0, len(texts), CHUNK_TEXTS)
    ]
    if not parts:
        return Ragged(np.empty(0, np.uint64), np.zeros(1, np.int64))
    lengths = np.concatenate([part.lengths for part in parts])
    return Ragged(np.concatenate([part.values for part in parts]), offsets_of(lengths))


def _shingle(texts: pl.Series, word_ngram: int, char_ngram: int, min_words: int) -> Ragged:
    tokens = hash_tokens(texts)
    num_unspaced = texts.str.count_matches(f"[{UNSPACED}]").to_numpy().astype(np.int64)
    num_filled = texts.str.count_matches(r"\S").to_numpy().astype(np.int64)
    by_words = (tokens.lengths >= max(min_words, word_ngram)) & (num_unspaced * 2 < num_filled)
    words = _ngrams(_rows(tokens, by_words), word_ngram, _WORD_DOMAIN)
    chars = _ngrams(hash_characters(texts.filter(pl.Series(~by_words))), char_ngram, _CHAR_DOMAIN)
    lengths = np.empty(len(texts), np.int64)
    lengths[by_words], lengths[~by_words] = words.lengths, chars.lengths
    owners = np.concatenate(
        [np.repeat(np.flatnonzero(by_words), words.lengths), np.repeat(np.flatnonzero(~by_words), chars.lengths)]
    )
    return _unique(owners, np.concatenate([words.values, chars.values]), len(texts))


def _rows(ragged: Ragged, chosen: np.ndarray) -> Ragged:
    return Ragged(ragged.values[np.repeat(chosen, ragged.lengths)], offsets_of(ragged.lengths[chosen]))


def _ngrams(items: Ragged, size: int, domain: np.uint64) -> Ragged:
    """Hash of every run of ``size`` items; a shorter row gives the hash of all it has."""
    lengths = np.maximum(items.lengths - size + 1, 1)
    offsets = offsets_of(lengths)
    position = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths) + np.repeat(items.offsets[:-1], lengths)
    end = np.repeat(items.offsets[1:], lengths)
    padded = np.append(items.values, np.uint64(0))
    hashes = np.full(offsets[-1], domain, dtype=np.uint64)
    for step in range(size):
        at = position + step
        inside = at < end
        combined = mix(hashes * _MULTIPLIER + padded[np.where(inside, at, -1)])
        hashes = np.where(inside, combined, hashes)
    return Ragged(hashes, offsets)


def _unique(owners: np.ndarray, values: np.ndarray, num_rows: int) -> Ragged:
    order = np.lexsort((values, owners))
    owners, values = owners[order], values[order]
    first = np.ones(len(values), dtype=bool)
    first[1:] = (owners[1:] != owners[:-1]) | (values[1:] != values[:-1])
    return Ragged(values[first], offsets_of(np.bincount(owners[first], minlength=num_rows)))
