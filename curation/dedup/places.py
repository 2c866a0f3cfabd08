"""Tokens of texts as they are compared, and where they stand in the texts as they are."""

import functools
import unicodedata
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl
import pyarrow as pa

from curation.dedup.characters import HARD, table
from curation.dedup.normalize import normalize
from curation.dedup.rows import Utf8

_FRAME = "\x01"
"""Stays what it is whatever is done, and joins nothing: what stands between two is normalized as inside a text."""

_KNOWN = 0x32400
"""Above it nothing is known of a character's neighbours."""


@dataclass(frozen=True)
class PlacedTokens:
    """Tokens of n texts, those of text ``i`` from ``offsets[i]`` to ``offsets[i + 1]``.

    Parameters
    ----------
    offsets : (n + 1,) int64.
    starts, ends : (total,) int32, in characters of the text as it is, counted from its start. A character that becomes
        several tokens (½) has them all in one place.
    prefix : (total + 1,) uint64; ``prefix[i + size] - prefix[i] * BASE**size`` is a hash of the tokens from ``i`` on.
    letters : normalized code points of all tokens, uint32.
    letter_offsets : (total + 1,) int64.
    """

    offsets: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    prefix: np.ndarray
    letters: np.ndarray
    letter_offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def spelled(self, text: int) -> list[str]:
        """The normalized tokens of one text: what ``curation.tokens.TOKEN`` finds in the normalized text."""
        bounds = self.letter_offsets[self.offsets[text] : self.offsets[text + 1] + 1].tolist()
        return ["".join(map(chr, self.letters[a:b].tolist())) for a, b in pairwise(bounds)]


def place_tokens(texts: Utf8) -> PlacedTokens:
    """Normalize and split texts, remembering where each token came from.

    A text's normal form is put together from those of its segments: single characters, and a character with those that
    may join it. Segments with a hard character go through ``normalize``, each distinct one once; the rest is looked up.
    """
    from curation.dedup.substring_kernels import tokenize_rows  # compiles: numba takes half a second

    entries = _entries()
    segments, folded = _hard(texts, entries)
    num_bytes = int(texts.offsets[-1] - texts.offsets[0])
    num_folded = int(np.diff(folded[1])[segments[2]].sum())
    # A token takes two bytes with what parts it from the next, unless it is made by a hard character.
    most = num_bytes // 2 + len(texts) + num_folded
    prefix, letter_offsets = np.zeros(most + 1, np.uint64), np.zeros(most + 1, np.int64)
    starts, ends = np.empty(most, np.int32), np.empty(most, np.int32)
    letters = np.empty(num_bytes + num_folded, np.uint32)
    offsets = np.zeros(len(texts) + 1, np.int64)
    tokenize_rows(
        texts.data, texts.offsets, entries, segments, folded, prefix, offsets, starts, ends, letters, letter_offsets
    )
    total = int(offsets[-1])
    return PlacedTokens(
        offsets, starts[:total], ends[:total], prefix[: total + 1], letters, letter_offsets[: total + 1]
    )


def _hard(texts: Utf8, entries: np.ndarray) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, np.ndarray]]:
    """Where the hard segments are and which normal form each has; the normal forms as table entries, with offsets."""
    from curation.dedup.substring_kernels import gather_bytes, hard_segments  # compiles: numba takes half a second

    nothing = np.empty(0, np.int64)
    count = hard_segments(texts.data, texts.offsets, entries, nothing, nothing)
    if not count:
        return (nothing, nothing, nothing), (np.empty(0, np.uint32), np.zeros(1, np.int64))
    starts, ends = np.empty(count, np.int64), np.empty(count, np.int64)
    hard_segments(texts.data, texts.offsets, entries, starts, ends)
    pieces, bounds = np.empty(int((ends - starts).sum()), np.uint8), np.zeros(count + 1, np.int64)
    gather_bytes(texts.data, starts, ends, pieces, bounds)
    strings = pa.LargeStringArray.from_buffers(count, pa.py_buffer(bounds), pa.py_buffer(pieces))
    found = pl.DataFrame({"segment": pl.Series(strings)})
    distinct = found.unique(maintain_order=True).with_row_index("number")
    numbers = found.join(distinct, on="segment", how="left", maintain_order="left")["number"]
    framed = pl.concat_str([pl.lit(_FRAME), pl.col("segment"), pl.lit(_FRAME)])
    normal = [text[1:-1] for text in distinct.select(normalize(framed)).to_series().to_list()]
    points = np.frombuffer("".join(normal).encode("utf-32-le"), dtype="<u4")
    offsets = np.zeros(len(normal) + 1, np.int64)
    np.cumsum([len(text) for text in normal], out=offsets[1:])
    return (starts, ends, numbers.to_numpy().astype(np.int64)), (entries[points], offsets)


@functools.cache
def _entries() -> np.ndarray:
    """The table of characters, with those marked that may join the one before them: a few too many do no harm."""
    from curation.dedup.substring_kernels import JOINS  # compiles: numba takes half a second

    entries = table().copy()
    hard = np.flatnonzero(entries & np.uint32(HARD))
    joins = [point for point in hard.tolist() if point > _KNOWN or _may_join(chr(point))]
    entries[joins] |= np.uint32(JOINS)
    entries.flags.writeable = False
    return entries


def _may_join(character: str) -> bool:
    if unicodedata.category(character) in ("Cn", "Cs"):
        return True
    first = unicodedata.normalize("NFKD", character)[0]
    return unicodedata.category(first)[0] == "M" or 0x1160 <= ord(first) <= 0x11FF
