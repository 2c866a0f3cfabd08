"""What the word rules share: words, lines and characters of a text, as expressions.

Gopher's thresholds are for words between spaces. Chinese, Japanese, Thai, Lao, Khmer and Burmese write none, so a
sentence would be one word. Here two CJK characters, or four of the other scripts, count as one word beside the spaced
words around them. Texts without such characters are counted exactly as ``len(text.split())``.
"""

import polars as pl

from curation.scripts import CJK, EAST_ASIAN_PUNCTUATION, SOUTHEAST_ASIAN, UNSPACED

CHARACTERS_A_CJK_WORD = 2
CHARACTERS_A_SOUTHEAST_ASIAN_WORD = 4

_IN_WORD = rf"[^\s{UNSPACED}{EAST_ASIAN_PUNCTUATION}]"
_LINE = r"\S(?:[^\n]*\S)?"


def spaced_words(text: pl.Expr) -> pl.Expr:
    """Number of words between white space."""
    return text.str.count_matches(f"{_IN_WORD}+").cast(pl.Float64)


def spaced_characters(text: pl.Expr) -> pl.Expr:
    """Number of characters in the words between white space."""
    return text.str.count_matches(_IN_WORD).cast(pl.Float64)


def unspaced_words(text: pl.Expr) -> pl.Expr:
    """Number of words in scripts without spaces, by their characters."""
    cjk = text.str.count_matches(f"[{CJK}]").cast(pl.Float64) / CHARACTERS_A_CJK_WORD
    southeast = text.str.count_matches(f"[{SOUTHEAST_ASIAN}]").cast(pl.Float64) / CHARACTERS_A_SOUTHEAST_ASIAN_WORD
    return cjk + southeast


def words(text: pl.Expr) -> pl.Expr:
    """Number of words of any script."""
    return spaced_words(text) + unspaced_words(text)


def words_with_letter(text: pl.Expr) -> pl.Expr:
    """Number of words that contain at least one letter; every unspaced word does."""
    lettered = text.str.count_matches(rf"{_IN_WORD}*[\p{{Alphabetic}}--[{UNSPACED}]]{_IN_WORD}*").cast(pl.Float64)
    return lettered + unspaced_words(text)


def characters(text: pl.Expr) -> pl.Expr:
    """Number of Unicode code points."""
    return text.str.len_chars().cast(pl.Float64)


def lines(text: pl.Expr) -> pl.Expr:
    """Number of lines that hold more than white space."""
    return text.str.count_matches(_LINE).cast(pl.Float64)


def line_list(text: pl.Expr) -> pl.Expr:
    """The lines that hold more than white space, trimmed."""
    return text.str.extract_all(_LINE)


def ratio(part: pl.Expr, whole: pl.Expr) -> pl.Expr:
    """``part / whole``, or null when the whole is zero."""
    return pl.when(whole > 0).then(part / whole)
