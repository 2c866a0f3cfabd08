"""What every code point becomes in a compared text, and of what kind it is: one table, made by the reference.

The kernels normalize while they read bytes. Most code points turn into one other, whatever stands beside them; they
are in the table. A text with any other (combining marks, ligatures, Jamo, letters that fold into two) is *hard*: it
goes through ``normalize`` first, whose results the table leaves as they are. So there is one definition, ``normalize``,
and the kernels are the fast way to the same characters.
"""

import functools
import sys
import unicodedata

import numpy as np
import polars as pl

from curation.dedup.normalize import normalize
from curation.scripts import UNSPACED

POINT = 0x1FFFFF
"""Bits of an entry that hold the folded code point."""
KIND_SHIFT = 24
OTHER, WORD, UNSPACED_WORD, SPACE, DROP = range(5)
"""Punctuation and symbols; a letter, mark, digit or underscore; one of a script without spaces; white space; none."""
HARD = 1 << 31
"""The entry's character depends on its neighbours, or becomes several: normalize the text first."""

_SEPARATOR = "\x01"
"""Stays what it is whatever is done, and joins nothing."""
_ASSIGNED = range(0x32400)
"""Above it are only private planes, tags and what no version of Unicode has given out: hard, should they occur."""
_UNKNOWN = frozenset({"Cn", "Co", "Cs"})
"""Categories of code points that are no characters to this Python: not given out, private, halves of a pair."""
_HANGUL_VOWELS_AND_TAILS = range(0x1161, 0x1200)


def table(*, fold_digits: bool = False) -> np.ndarray:
    """An entry for every code point: ``folded | kind << 24 | HARD``.

    Parameters
    ----------
    fold_digits : every decimal digit becomes ``0``: texts that differ in numbers only become equal.

    Returns
    -------
    (0x110000,) uint32, read-only.
    """
    return _table(fold_digits)


@functools.cache
def _table(fold_digits: bool) -> np.ndarray:  # noqa: FBT001 - functools tells calls apart by how they are written
    size = sys.maxunicode + 1
    everything = np.delete(np.arange(size, dtype="<u4"), np.arange(0xD800, 0xE000)).tobytes().decode("utf-32-le")
    kinds = np.zeros(size, dtype=np.uint32)
    for kind, pattern in ((WORD, r"\w+"), (UNSPACED_WORD, f"[{UNSPACED}]+"), (SPACE, r"\s+")):
        kinds[_points(pl.select(pl.lit(everything).str.extract_all(pattern).list.join("")).item())] = kind
    entries = np.arange(size, dtype=np.uint32) | kinds << KIND_SHIFT | np.uint32(HARD)
    alone = _standing_alone()
    framed = _SEPARATOR.join(["", *map(chr, alone), ""])
    folded = pl.select(normalize(pl.lit(framed))).item().split(_SEPARATOR)[1:-1]
    for point, becomes in zip(alone, folded, strict=True):
        if not becomes:
            entries[point] = DROP << KIND_SHIFT
        elif len(becomes) == 1:
            entries[point] = ord(becomes) | int(kinds[ord(becomes)]) << KIND_SHIFT
    if fold_digits:
        digits = [point for point in alone if chr(int(entries[point]) & POINT).isdecimal()]
        entries[digits] = entries[digits] & ~np.uint32(POINT) | np.uint32(ord("0"))
    entries.flags.writeable = False
    return entries


def _points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")


def _standing_alone() -> list[int]:
    """Code points whose normal form never depends on their neighbours. Unknown to this Python: not among them."""
    characters = [character for character in map(chr, _ASSIGNED) if unicodedata.category(character) not in _UNKNOWN]
    decompositions = list(map(unicodedata.decomposition, characters))
    # What can join the character before it into another.
    joining = {chr(point) for point in _HANGUL_VOWELS_AND_TAILS}
    pairs = [parts for parts in map(str.split, filter(None, decompositions)) if len(parts) == 2]
    joining |= {chr(int(second, 16)) for first, second in pairs if not first.startswith("<")}
    # Most have no decomposition: they are their own first character.
    firsts = [
        unicodedata.normalize("NFKD", character)[0] if decomposition else character
        for character, decomposition in zip(characters, decompositions, strict=True)
    ]
    return [
        ord(character)
        for character, first in zip(characters, firsts, strict=True)
        if character not in joining
        and first not in joining
        and not unicodedata.combining(first)
        and character != _SEPARATOR
    ]
