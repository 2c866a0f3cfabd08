"""Quality by an n-gram model of a reference: of its words, or of its characters."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from catalog.errors import ConfigError, DataError, nearest
from curation.dedup.index import pack, unpack
from curation.kneser_ney import MAX_ORDER, MIN_TOKENS, KneserNey, fit_kneser_ney
from curation.quality import SCORERS, Model, Score, Scored

UNITS = ("word", "character")
DEFAULT_ORDER = 3
DIGITS = 4
_CHARACTERS = "characters"


@dataclass(frozen=True, kw_only=True)
class ReferenceConfig:
    """What of a reference is counted.

    Parameters
    ----------
    unit : ``word``: sees word order, wants megabytes of reference; ``character``: sees spelling, wants less, and is
        the better one for Korean and other languages with many forms of a word.
    order : of words, the longest n-gram, 2 to 8; of characters it is always 5.
    """

    unit: str = "word"
    order: int | None = None

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        if self.unit not in UNITS:
            raise ConfigError(f"unit={self.unit!r}; {nearest(str(self.unit), UNITS)}")
        if self.order is not None and self.unit != "word":
            raise ConfigError(f"order={self.order!r} is of words; leave it out, n-grams of characters have 5")
        if self.order is not None and not 2 <= self.order <= MAX_ORDER:
            raise ConfigError(f"order={self.order!r} must be a whole number from 2 to {MAX_ORDER}")


def count_reference(texts: pl.Series, config: ReferenceConfig) -> bytes:
    """The n-grams of a reference as a file, of which ``perplexity`` is a score. The order of texts has no effect.

    Raises
    ------
    DataError : there is too little text.
    """
    if config.unit == "word":
        return fit_kneser_ney(texts, config.order or DEFAULT_ORDER).to_bytes()
    num_chars = int(texts.str.len_chars().sum())
    if num_chars < MIN_TOKENS:
        raise DataError(f"the reference has {num_chars:,} characters, at least {MIN_TOKENS:,} are needed; give more")
    from curation.ngram import count_ngrams  # compiles: numba takes half a second

    frame = count_ngrams(texts.str.to_lowercase()).to_frame()
    slots, counts = frame["slot"].to_numpy().astype(np.uint32), frame["count"].to_numpy().astype(np.uint32)
    return pack({_CHARACTERS: slots, "count": counts})


@SCORERS.register("perplexity", Scored)
def perplexity(model: Model) -> Score:
    """Perplexity a word, or a character, under an n-gram model of a reference; lower is more like it. Case is ignored.

    References
    ----------
    Wenzek et al. (2020), CCNet: Extracting High Quality Monolingual Datasets from Web Crawl Data, section 4.2, who
    rank web pages by the perplexity of a model of Wikipedia; the threshold depends on the reference and is the user's.
    """
    arrays = unpack(model.raw)
    known = _of_characters(arrays) if _CHARACTERS in arrays else KneserNey.from_bytes(model.raw).perplexity

    def score(texts: pl.Series) -> np.ndarray:
        return np.round(known(texts), DIGITS)

    return score


def _of_characters(arrays: dict[str, np.ndarray]) -> Any:
    from curation.ngram import NgramCounts, surprise  # compiles: numba takes half a second

    counts = NgramCounts.from_frame(pl.DataFrame({"slot": arrays[_CHARACTERS], "count": arrays["count"]}))

    def known(texts: pl.Series) -> np.ndarray:
        found = np.exp(surprise(texts.str.to_lowercase(), counts))
        return np.where(texts.str.contains(r"\S").to_numpy(), found, np.nan)

    return known
