"""The form in which texts are compared: spelling variants of the same text become the same string."""

import polars as pl

_INVISIBLE = r"[\x{AD}\x{200B}\x{2060}\x{FEFF}]"
"""Soft hyphen, zero-width space, word joiner, byte-order mark: drawn as nothing, so no reader sees a difference."""


def normalize(text: pl.Expr) -> pl.Expr:
    """Fold compatibility forms, case and white space; digits and punctuation stay.

    NFKC, lower case with ``ß`` as ``ss`` and final sigma as sigma, runs of white space as one space, ends trimmed,
    invisible characters dropped. Applying it twice changes nothing.

    References
    ----------
    Unicode Standard Annex 15 (NFKC); The Unicode Standard, section 3.13 (caseless matching).
    """
    folded = text.str.replace_all(_INVISIBLE, "").str.normalize("NFKC").str.to_lowercase()
    folded = folded.str.replace_many(["ß", "ς"], ["ss", "σ"]).str.normalize("NFKC")
    return folded.str.replace_all(r"\s+", " ").str.strip_chars(" ")
