"""The form in which texts are compared: spelling variants of the same text become the same string."""

import polars as pl
import xxhash

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


def exact_hash(texts: pl.Series) -> pl.Series:
    """32 hex digits of the xxh3-128 of each normalized text: equal for texts that are exact duplicates.

    Parameters
    ----------
    texts : n strings, none null.
    """
    normalized = texts.alias("text").to_frame().select(normalize(pl.col("text")))["text"]
    digest = xxhash.xxh3_128_hexdigest
    return pl.Series("hash", [digest(text.encode()) for text in normalized.to_list()], dtype=pl.String)
