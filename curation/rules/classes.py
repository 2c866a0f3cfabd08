"""What each code point is to the rules: one table of bits, made from the regular expressions that define them."""

import functools
import sys

import numpy as np
import polars as pl

from curation.scripts import CJK, EAST_ASIAN_PUNCTUATION, SOUTHEAST_ASIAN

SPACE, CJK_CHAR, SOUTHEAST_CHAR, HANGUL, EAST_PUNCTUATION = 1, 2, 4, 8, 16
LETTER, LATIN, DIGIT, WORD, UPPER = 32, 64, 128, 256, 512
BULLET, TERMINAL, BROKEN, CLOSER, WIDE_END = 1024, 2048, 4096, 8192, 16384
SYMBOL = 32768

UNSPACED_CHAR = CJK_CHAR | SOUTHEAST_CHAR
NO_WORD = SPACE | UNSPACED_CHAR | EAST_PUNCTUATION
"""What a word between white space does not hold."""
WIDE = CJK_CHAR | HANGUL | EAST_PUNCTUATION
"""Takes the room of two letters, and says about as much."""

BULLETS = r"•‣◦▪●・*\-"
TERMINALS = r"\p{Sentence_Terminal}\x{17D6}\x{17D9}\x{17DA}"
"""Ends of sentences in any script: Unicode's property, and three signs of Khmer."""

_PATTERNS = {
    SPACE: r"\s",
    CJK_CHAR: CJK,
    SOUTHEAST_CHAR: SOUTHEAST_ASIAN,
    HANGUL: r"\p{Hangul}",
    EAST_PUNCTUATION: EAST_ASIAN_PUNCTUATION,
    LETTER: r"\p{Alphabetic}",
    LATIN: r"\p{Latin}",
    DIGIT: r"\p{Nd}",
    WORD: r"\w",
    UPPER: r"\p{Uppercase}",
    BULLET: BULLETS,
    TERMINAL: TERMINALS,
    BROKEN: r"\x{FFFD}\x{80}-\x{9F}",
    CLOSER: r"\p{Pe}\p{Pf}\x22\x27",
    WIDE_END: "。！？｡．」』",
    SYMBOL: r"\p{P}\p{S}",
}


@functools.cache
def classes() -> np.ndarray:
    """Bits of every code point.

    Returns
    -------
    (0x110000,) uint16, read-only.
    """
    size = sys.maxunicode + 1
    everything = np.delete(np.arange(size, dtype="<u4"), np.arange(0xD800, 0xE000)).tobytes().decode("utf-32-le")
    text = pl.Series([everything])
    bits = np.zeros(size, dtype=np.uint16)
    for bit, pattern in _PATTERNS.items():
        found = text.str.extract_all(f"[{pattern}]+").list.join("").item()
        bits[np.frombuffer(found.encode("utf-32-le"), dtype="<u4")] |= np.uint16(bit)
    bits.flags.writeable = False
    return bits
