"""What a text's difficulty may be held against: the corpus that it is a part of, as counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from curation.difficulty.counts import TokenCounts

if TYPE_CHECKING:
    from curation.ngram import NgramCounts


@dataclass(frozen=True, kw_only=True)
class Reads:
    """What a part of difficulty reads besides the text.

    Parameters
    ----------
    ngrams : the corpus's character n-grams, which are only counted where a part of the recipe reads them.
    """

    ngrams: bool = False


@dataclass(frozen=True, eq=False)
class Corpus:
    """Counts over a corpus.

    Parameters
    ----------
    tokens : of words.
    ngrams : of characters; None where they were not counted.
    """

    tokens: TokenCounts
    ngrams: NgramCounts | None = None
