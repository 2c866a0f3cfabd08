"""Names of the columns that one pass over the texts gives to all rules, in the order of the kernels' arrays."""

import polars as pl

CJK_SCALE, SOUTHEAST_SCALE = 2, 4
"""Characters that stand for one word where no spaces are written."""

COUNTS = (
    "chars",
    "filled",
    "spaced_words",
    "spaced_chars",
    "cjk",
    "southeast",
    "hangul",
    "letters",
    "latin",
    "lettered_words",
    "hashes",
    "ellipses",
    "digits",
    "upper",
    "symbols",
    "broken",
    "brackets",
    "newlines",
    "longest_word",
    "stop_words",
)
"""Code points, those that are not blank, words, characters and kinds of characters."""

LINES = (
    "lines",
    "line_chars",
    "duplicate_lines",
    "duplicate_line_chars",
    "bullet_lines",
    "ellipsis_lines",
    "terminal_lines",
    "short_lines",
    "long_lines",
    "paragraphs",
    "paragraph_chars",
    "duplicate_paragraphs",
    "duplicate_paragraph_chars",
)
"""Lines that hold more than white space, trimmed; paragraphs are runs of them."""

TOP_NGRAMS = (2, 3, 4)
DUPLICATE_NGRAMS = (5, 6, 7, 8, 9, 10)
NGRAMS = (
    *(f"top_{size}gram_chars" for size in TOP_NGRAMS),
    *(f"duplicate_{size}gram_chars" for size in DUPLICATE_NGRAMS),
)
"""Characters in the most frequent n-gram, and in n-grams that repeat an earlier one."""

VARIANTS = ("tfds", "datatrove", "fineweb")
"""C4 as in the TFDS reference, as in datatrove, and as FineWeb ran the latter: without terminal punctuation."""
C4 = (
    *(f"{variant}_lines" for variant in VARIANTS),
    *(f"{variant}_sentences" for variant in VARIANTS),
    "javascript_lines",
    "policy_lines",
    "lorem_lines",
    "boilerplate_lines",
)
"""Lines and sentences that C4's line filters leave, and lines with phrases."""

LANGUAGE = ("confidence", "other_language_ratio")
"""Of ``curation.language``."""

GROUPS = {"counts": COUNTS, "lines": LINES, "ngrams": NGRAMS, "c4": C4, "language": LANGUAGE}


def column(name: str) -> pl.Expr:
    """A column that ``measure`` provides to the rules that ask for it.

    Parameters
    ----------
    name : one of those in ``GROUPS``.
    """
    return pl.col(f"shared.{name}")
