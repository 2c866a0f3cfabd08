"""What the word rules share: words, lines and characters of a text, as expressions over the shared columns.

Gopher's thresholds are for words between spaces. Chinese, Japanese, Thai, Lao, Khmer and Burmese write none, so a
sentence would be one word. Here two CJK characters, or four of the other scripts, count as one word beside the spaced
words around them. Texts without such characters are counted exactly as ``len(text.split())``.
"""

import polars as pl

from curation.rules.columns import CJK_SCALE, SOUTHEAST_SCALE, column


def unspaced_words() -> pl.Expr:
    """Number of words in scripts without spaces, by their characters."""
    return column("cjk") / CJK_SCALE + column("southeast") / SOUTHEAST_SCALE


def words() -> pl.Expr:
    """Number of words of any script."""
    return column("spaced_words") + unspaced_words()


def syllabic() -> pl.Expr:
    """Whether at least half of the characters that are not blank write syllables or words: CJK, Hangul, Thai etc."""
    return (column("cjk") + column("southeast") + column("hangul")) * 2 >= column("filled")


def southeast() -> pl.Expr:
    """Whether at least half of them are Thai, Lao, Khmer or Burmese, which mostly do without a full stop."""
    return (column("southeast") * 2 >= column("filled")) & (column("southeast") > 0)


def ratio(part: pl.Expr, whole: pl.Expr) -> pl.Expr:
    """``part / whole``, or null when the whole is zero."""
    return pl.when(whole > 0).then(part / whole)
