"""The words that tell a topic from the others: class-based TF-IDF."""

import re
from collections import Counter

import numpy as np
import polars as pl

from curation.scripts import SOUTHEAST_ASIAN, UNSPACED

NUM_TERMS = 5
CHARACTERS_A_CJK_WORD, CHARACTERS_A_SOUTHEAST_ASIAN_WORD = 2, 4
READ_CHARS = 2_000
"""Characters of a text that are read."""
MIN_LIFT = 1.5
"""A term of a topic is so much more frequent in it than in all."""
_RUN = rf"[{UNSPACED}]+|[\w--[{UNSPACED}]]+"
_NUMBER = re.compile(r"[\d_]+")


def cluster_terms(texts: pl.Series, home: np.ndarray, number: int, *, count: int = NUM_TERMS) -> list[list[str]]:
    """The most salient terms of each cluster, best first.

    A term is a word of ``curation.tokens``; of scripts without spaces, neighbouring characters: two of Chinese and
    Japanese, four of Thai, Lao, Khmer and Burmese. It counts once a text, so that one long text names no topic.

    Parameters
    ----------
    texts : n strings.
    home : (n,) cluster of each, below ``number``; -1 for none.

    References
    ----------
    Grootendorst (2022), BERTopic, section 3.3: tf(t, c) ln(1 + A / f(t)); here with shares of texts for frequencies, A
    the mean number of texts a cluster, and without terms that are hardly more frequent in the cluster than elsewhere.
    """
    counts = [Counter[str]() for _ in range(number)]
    runs = texts.str.slice(0, READ_CHARS).str.to_lowercase().str.extract_all(_RUN)
    unspaced = texts.str.contains(f"[{UNSPACED}]").to_list()
    southeast = texts.str.contains(f"[{SOUTHEAST_ASIAN}]").to_list()
    for words, cluster, has_unspaced, has_southeast in zip(
        runs.to_list(), home.tolist(), unspaced, southeast, strict=True
    ):
        if cluster >= 0:
            counts[cluster].update(_terms(words, has_unspaced=has_unspaced, has_southeast=has_southeast))
    sizes = np.bincount(home[home >= 0], minlength=number)
    everywhere: Counter[str] = Counter()
    for one in counts:
        everywhere.update(one)
    mean_size, total = sizes.sum() / max(number, 1), max(int(sizes.sum()), 1)
    named = []
    for one, size in zip(counts, sizes.tolist(), strict=True):
        least = max(2, size // 100)
        weights = {
            term: found / size * np.log1p(mean_size / everywhere[term])
            for term, found in one.items()
            if found >= min(least, size) and found / size >= MIN_LIFT * everywhere[term] / total
        }
        if not weights:
            # One topic, or several that say the same.
            weights = {term: float(found) for term, found in one.items()}
        named.append(_distinct(sorted(weights, key=lambda term: (-weights[term], term)), count))
    return named


def _terms(words: list[str], *, has_unspaced: bool, has_southeast: bool) -> set[str]:
    found = {word for word in words if len(word) > 1 and not _NUMBER.fullmatch(word)}
    if has_unspaced:
        for word in words:
            if _is_unspaced(word):
                found.discard(word)
                is_southeast = has_southeast and _is_southeast(word)
                size = CHARACTERS_A_SOUTHEAST_ASIAN_WORD if is_southeast else CHARACTERS_A_CJK_WORD
                found.update(word[at : at + size] for at in range(max(1, len(word) - size + 1)))
    return found


def _is_southeast(word: str) -> bool:
    return any(
        "\u0e00" <= one <= "\u0eff" or "\u1000" <= one <= "\u109f" or "\u1780" <= one <= "\u17ff" for one in word
    )


def _is_unspaced(word: str) -> bool:
    first = word[0]
    return (
        _is_southeast(first)
        or first == "ー"
        or "\u3005" <= first <= "\u30ff"
        or ("\u3400" <= first <= "\u9fff" or "\uf900" <= first <= "\ufaff" or "\U00020000" <= first <= "\U0003ffff")
    )


def _distinct(terms: list[str], count: int) -> list[str]:
    """The first terms, without a run of neighbouring characters that overlaps a better one."""
    chosen: list[str] = []
    for term in terms:
        if not (_is_unspaced(term) and any(_is_unspaced(one) and set(one) & set(term) for one in chosen)):
            chosen.append(term)
        if len(chosen) == count:
            break
    return chosen
