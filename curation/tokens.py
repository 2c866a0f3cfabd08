"""Hashed tokens of many texts as one flat array: what shingles and token counts are made of."""

from dataclasses import dataclass

import numpy as np
import polars as pl
import xxhash

from curation.scripts import UNSPACED

TOKEN = rf"[{UNSPACED}]|[\w--[{UNSPACED}]]+"
"""A word, or one character of a script without spaces."""


@dataclass(frozen=True)
class Ragged:
    """Rows of different length in one array: row ``i`` is ``values[offsets[i]:offsets[i + 1]]``.

    Parameters
    ----------
    values : (total,) uint64.
    offsets : (n + 1,) int64, from 0, not decreasing.
    """

    values: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """(n,) int64 row lengths."""
        return np.diff(self.offsets)


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """(n + 1,) int64 offsets of rows with the given lengths."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def hash_tokens(texts: pl.Series) -> Ragged:
    """Split texts into tokens and hash each with xxh3-64.

    A token is a run of letters, marks, digits and underscores; in Chinese, Japanese, Thai, Lao, Khmer and Burmese,
    every character. Punctuation and emoji are no tokens.

    Parameters
    ----------
    texts : n strings, none null.
    """
    found = texts.str.extract_all(TOKEN)
    offsets = offsets_of(found.list.len().to_numpy().astype(np.int64))
    words = found.explode(empty_as_null=False).to_list() if offsets[-1] else []
    digest = xxhash.xxh3_64_intdigest
    values = np.fromiter((digest(word.encode()) for word in words), dtype=np.uint64, count=len(words))
    return Ragged(values, offsets)


def hash_characters(texts: pl.Series) -> Ragged:
    """Every code point of every text as one mixed 64-bit value.

    Parameters
    ----------
    texts : n strings, none null.
    """
    offsets = offsets_of(texts.str.len_chars().to_numpy().astype(np.int64))
    points = np.frombuffer("".join(texts.to_list()).encode("utf-32-le"), dtype="<u4").astype(np.uint64)
    return Ragged(mix(points), offsets)


def mix(values: np.ndarray) -> np.ndarray:
    """Spread 64-bit values over all bits, one to one (the finalizer of splitmix64, Steele et al. 2014)."""
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
