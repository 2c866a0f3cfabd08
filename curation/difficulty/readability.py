"""Difficulty by the school grade that an English text is written for."""

import polars as pl

from curation.difficulty import DIFFICULTY
from curation.difficulty.corpus import Corpus, Reads

_WORD = r"[\p{L}\p{M}'’]*\p{L}[\p{L}\p{M}'’]*"
_SENTENCE = r"[.!?…。！？]+(?:[\s\p{Pf}\p{Pe}\x22']|$)"
_VOWELS = "aeiouyàáâãäåæèéêëìíîïòóôõöøùúûüýœ"
_SILENT = rf"[{_VOWELS}](?:l|[a-z]*?(?:[^{_VOWELS}l\W\d_]|[{_VOWELS}]l))(?:e|es|ed)\b"
"""A last e that is not the only vowel and is not heard; after a consonant and l it is (ta-ble)."""
_HEARD = r"(?:[dt]ed|(?:[sxzcg]|[cs]h)es)\b"
"""An ending that is a syllable after all: wan-ted, hou-ses."""
_NO_VOWEL = rf"\b[^{_VOWELS}\W\d_]+\b"


@DIFFICULTY.register("readability", Reads)
def readability(texts: pl.Series, corpus: Corpus) -> pl.Series:  # noqa: ARG001 - one contract
    """Flesch-Kincaid grade: ``0.39 words / sentences + 11.8 syllables / words - 15.59``, in American school years.

    Null where fewer than half of the letters are Latin: syllables and words of other scripts are counted otherwise,
    and no grade would compare. Of other languages in Latin script it ranks, but the years are English ones. Syllables
    are groups of vowels, silent endings taken off: a rule, not a dictionary, right for about nine words of ten.

    References
    ----------
    Flesch (1948), A New Readability Yardstick; Kincaid et al. (1975), Derivation of New Readability Formulas for Navy
    Enlisted Personnel, page 14, for the grade. As an effective curriculum signal: arXiv 2506.11300.
    """
    low = pl.col("text").str.to_lowercase()
    counted = (
        texts.alias("text")
        .to_frame()
        .select(
            words=pl.col("text").str.count_matches(_WORD),
            sentences=pl.max_horizontal(pl.col("text").str.count_matches(_SENTENCE), 1),
            syllables=low.str.count_matches(f"[{_VOWELS}]+").cast(pl.Int64)
            - low.str.count_matches(_SILENT).cast(pl.Int64)
            + low.str.count_matches(_HEARD).cast(pl.Int64)
            + low.str.count_matches(_NO_VOWEL).cast(pl.Int64),
            latin=2 * pl.col("text").str.count_matches(r"\p{Latin}") >= pl.col("text").str.count_matches(r"\p{L}"),
        )
    )
    grade = 0.39 * pl.col("words") / pl.col("sentences") + 11.8 * pl.col("syllables") / pl.col("words") - 15.59
    known = pl.col("latin") & (pl.col("words") > 0)
    return counted.select(readability=pl.when(known).then(grade).cast(pl.Float64))["readability"]
