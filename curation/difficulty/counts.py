"""How often tokens occur in a corpus, in a fixed number of hashed buckets."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from catalog.errors import DataError
from curation.tokens import hash_tokens

NUM_BUCKETS = 2**18
FRAME_SCHEMA = {"bucket": pl.Int64, "count": pl.Int64}


def buckets_of(hashes: np.ndarray) -> np.ndarray:
    """The bucket of each 64-bit token hash."""
    return (hashes % np.uint64(NUM_BUCKETS)).astype(np.int64)


@dataclass(frozen=True, eq=False)
class TokenCounts:
    """Occurrences of tokens by the hash of the token; counts of parts of a corpus add up.

    Parameters
    ----------
    counts : (2**18,) int64. Tokens that share a bucket are counted together.
    """

    counts: np.ndarray

    @property
    def total(self) -> int:
        """Number of tokens counted."""
        return int(self.counts.sum())

    @classmethod
    def empty(cls) -> "TokenCounts":
        """Counts of no text."""
        return cls(np.zeros(NUM_BUCKETS, dtype=np.int64))

    def merge(self, other: "TokenCounts") -> "TokenCounts":
        """Counts of both corpora together."""
        return TokenCounts(self.counts + other.counts)

    def to_frame(self) -> pl.DataFrame:
        """The buckets that are not zero: ``bucket`` i64, ``count`` i64, sorted by bucket."""
        used = np.flatnonzero(self.counts)
        return pl.DataFrame({"bucket": used.astype(np.int64), "count": self.counts[used]}, schema=FRAME_SCHEMA)

    @classmethod
    def from_frame(cls, frame: pl.DataFrame) -> "TokenCounts":
        """Counts from ``bucket`` and ``count`` columns; a bucket that stands more than once is added up.

        Raises
        ------
        DataError : a bucket is outside [0, 2**18), a count is negative.
        """
        buckets = frame["bucket"].cast(pl.Int64).to_numpy()
        occurrences = frame["count"].cast(pl.Int64).to_numpy()
        if len(buckets) and not (buckets.min() >= 0 and buckets.max() < NUM_BUCKETS and occurrences.min() >= 0):
            raise DataError(f"token counts need buckets in [0, {NUM_BUCKETS}) and counts of at least 0; count again")
        counts = np.zeros(NUM_BUCKETS, dtype=np.int64)
        np.add.at(counts, buckets, occurrences)
        return cls(counts)


def count_tokens(texts: pl.Series) -> TokenCounts:
    """Count the tokens of texts, case ignored.

    Parameters
    ----------
    texts : n strings, none null.
    """
    hashes = hash_tokens(texts.str.to_lowercase()).values
    return TokenCounts(np.bincount(buckets_of(hashes), minlength=NUM_BUCKETS).astype(np.int64))
