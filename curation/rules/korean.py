"""What stands in for Gopher's English rules in Korean. Bounds: measured on KLUE's sentences (docs/rules.md)."""

import polars as pl

from curation.rules import RULES
from curation.rules.bounds import bounded
from curation.rules.columns import column
from curation.rules.words import ratio

ENDINGS = ("은|는", "이|가", "을|를", "에|에서", "의", "로|으로", "도", "와|과", "고", "다|요|까")
"""Particles and verb endings that Korean prose cannot do without, alternatives of one together."""


def _korean() -> pl.Expr:
    return (column("hangul") * 2 >= column("letters")) & (column("hangul") > 0)


@RULES.register("korean_word_length", bounded(minimum=2.0, maximum=7.0))
def korean_word_length(_text: pl.Expr) -> pl.Expr:
    """Mean length of the words between white space, in characters; null unless most letters are Hangul.

    The bounds are ours: they take the place of Gopher's 3 to 10 letters (``mean_word_length``), since a Korean word is
    a few syllables with its particle.
    """
    return pl.when(_korean()).then(ratio(column("spaced_chars"), column("spaced_words")))


@RULES.register("korean_ending_count", bounded(minimum=2.0))
def korean_ending_count(text: pl.Expr) -> pl.Expr:
    """Number of distinct Korean particles and endings at ends of words; null unless most letters are Hangul.

    It takes the place of Gopher's stop words (``stop_word_count``): lists of nouns, menus and keywords have few.
    """
    found = [text.str.contains(rf"[가-힣](?:{ending})(?:[^\w]|$)").cast(pl.Float64) for ending in ENDINGS]
    return pl.when(_korean()).then(pl.sum_horizontal(found))
