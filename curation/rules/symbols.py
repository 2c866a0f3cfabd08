"""Gopher: symbols per word; NeMo Curator: digits, symbols and white space among the characters."""

import polars as pl

from curation.rules import RULES
from curation.rules.bounds import bounded
from curation.rules.columns import column
from curation.rules.words import ratio, words


@RULES.register("symbol_hash_ratio", bounded(maximum=0.1))
def symbol_hash_ratio(_text: pl.Expr) -> pl.Expr:
    """Number of ``#`` per word; null for a text without words. Unspaced scripts: words as in ``word_count``.

    References
    ----------
    Rae et al. (2021), appendix A.1.1: remove when the symbol-to-word ratio is greater than 0.1, so 0.1 is kept.
    """
    return ratio(column("hashes"), words())


@RULES.register("symbol_ellipsis_ratio", bounded(maximum=0.1))
def symbol_ellipsis_ratio(_text: pl.Expr) -> pl.Expr:
    """Number of ellipses (``...`` or ``…``) per word; null for a text without words.

    References
    ----------
    Rae et al. (2021), appendix A.1.1: remove when the symbol-to-word ratio is greater than 0.1, so 0.1 is kept.
    """
    return ratio(column("ellipses"), words())


@RULES.register("digit_ratio", bounded(maximum=0.15))
def digit_ratio(_text: pl.Expr) -> pl.Expr:
    """Share of the characters that are decimal digits of any script.

    References
    ----------
    NeMo Curator, ``NumbersFilter``: at most 0.15.
    """
    return ratio(column("digits"), column("chars"))


@RULES.register("symbol_ratio", bounded(maximum=0.25))
def symbol_ratio(_text: pl.Expr) -> pl.Expr:
    """Share of the characters that are punctuation or symbols of any script, emoji among them.

    References
    ----------
    After NeMo Curator, ``NonAlphaNumericFilter``: at most 0.25. That one takes everything but ASCII letters, digits and
    a few signs for a symbol, so that no text in another alphabet would stay; here letters of any script are letters.
    """
    return ratio(column("symbols"), column("chars"))


@RULES.register("white_space_ratio", bounded(maximum=0.25))
def white_space_ratio(_text: pl.Expr) -> pl.Expr:
    """Share of the characters that are white space. Scripts without spaces have next to none, and pass.

    References
    ----------
    NeMo Curator, ``WhiteSpaceFilter``: at most 0.25.
    """
    return ratio(column("chars") - column("filled"), column("chars"))


@RULES.register("uppercase_ratio", bounded(maximum=0.4))
def uppercase_ratio(_text: pl.Expr) -> pl.Expr:
    """Share of the letters that are upper case; null for a text without letters. Scripts without case pass.

    The bound is ours: shouting and lists of codes.
    """
    return ratio(column("upper"), column("letters"))
