"""A language model of words: how much the order of a text's words surprises who has read a reference.

Interpolated modified Kneser-Ney over hashed tokens (``curation.tokens``: words, and the characters of scripts without
spaces). N-grams are 64-bit keys, so a model holds no text. ``curation.ngram`` is the model of characters: it sees
spelling and needs less text, this one sees word order and boilerplate.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from catalog.errors import ConfigError, DataError
from curation.dedup.index import pack, unpack
from curation.tokens import Ragged, hash_tokens, offsets_of

MAX_ORDER = 8
MIN_TOKENS = 1_000
_BEGINNING = np.uint64(0xB0_5B05_B05B_05B0)
"""What stands in front of a text's first token."""
_FALLBACK = (0.5, 1.0, 1.5)
"""Discounts where counts of counts give none (KenLM's ``--discount_fallback``)."""
_VERSION = 1
ROWS = 2_000
"""Texts tokenised at a time."""


@dataclass(frozen=True, eq=False)
class KneserNey:
    """Probabilities of the n-grams of a reference; made by ``fit_kneser_ney`` or ``from_bytes``.

    Parameters
    ----------
    order : tokens of the longest n-gram.
    keys, share, backoff : (m,) uint64, float32, float32: an n-gram's key, its own part of the probability of its last
        token, and as a context the part that is left to the shorter one.
    floor : probability that the empty context leaves to each token, seen or not.
    num_tokens : of the reference.
    """

    order: int
    keys: np.ndarray
    share: np.ndarray
    backoff: np.ndarray
    floor: float
    num_tokens: int
    table: np.ndarray

    @classmethod
    def of(cls, order: int, arrays: Mapping[str, np.ndarray], floor: float, num_tokens: int) -> "KneserNey":
        """With its table of slots, half of which stay free at least."""
        from curation.kneser_ney_kernels import fill_table  # compiles: numba takes half a second

        keys = arrays["keys"]
        table = np.full(1 << max(4, (2 * len(keys) - 1).bit_length()), -1, dtype=np.int32)
        fill_table(keys, table)
        return cls(order, keys, arrays["share"], arrays["backoff"], floor, num_tokens, table)

    def surprise(self, texts: pl.Series) -> tuple[np.ndarray, np.ndarray]:
        """Sum of -ln p over each text's tokens, in nats, and the number of them.

        Parameters
        ----------
        texts : n strings, none null.

        Returns
        -------
        (n,) float64 and (n,) int64.
        """
        from curation.kneser_ney_kernels import surprise  # compiles: numba takes half a second

        sums, counts = np.zeros(len(texts)), np.zeros(len(texts), dtype=np.int64)
        for start in range(0, len(texts), ROWS):
            tokens = _tokens_of(texts.slice(start, ROWS))
            part = np.empty(len(tokens))
            surprise(
                tokens.values,
                tokens.offsets,
                self.order,
                self.keys,
                self.table,
                self.share,
                self.backoff,
                self.floor,
                part,
            )
            sums[start : start + len(part)], counts[start : start + len(part)] = part, tokens.lengths
        return sums, counts

    def perplexity(self, texts: pl.Series) -> np.ndarray:
        """exp of the mean of -ln p a token: 1 is known by heart, higher is more surprising.

        Returns
        -------
        (n,) float64, NaN for a text without tokens. Each value depends on its own text alone.
        """
        sums, counts = self.surprise(texts)
        return np.where(counts > 0, np.exp(sums / np.maximum(counts, 1)), np.nan)

    def to_bytes(self) -> bytes:
        """The model as a file: equal models give equal bytes."""
        return pack(
            {
                "header": np.array([_VERSION, self.order, self.num_tokens], dtype=np.int64),
                "floor": np.array([self.floor]),
                "keys": self.keys,
                "share": self.share,
                "backoff": self.backoff,
            }
        )

    @classmethod
    def from_bytes(cls, raw: object) -> "KneserNey":
        """The model of ``to_bytes``.

        Raises
        ------
        DataError : it was written by another version.
        """
        arrays = unpack(raw)
        version, order, num_tokens = arrays["header"].tolist()
        if version != _VERSION:
            raise DataError(f"an n-gram model of version {version}, this release reads {_VERSION}; train it again")
        return cls.of(order, arrays, float(arrays["floor"][0]), num_tokens)


def _tokens_of(texts: pl.Series) -> Ragged:
    return hash_tokens(texts.str.to_lowercase())


def fit_kneser_ney(texts: pl.Series, order: int = 3) -> KneserNey:
    """Count a reference.

    The order of the texts has no effect. Memory is about 150 bytes a token and order while it counts.

    Parameters
    ----------
    texts : n strings, none null.
    order : tokens of the longest n-gram, 2 to 8.

    Raises
    ------
    ConfigError : the order is out of range. DataError : there are too few tokens to tell anything.

    References
    ----------
    Chen and Goodman (1998), An Empirical Study of Smoothing Techniques for Language Modeling, section 3: interpolated,
    three discounts an order from counts of counts, lower orders by the number of distinct tokens in front. What begins
    a text has the beginning in front of it; an unseen token gets what the empty context leaves, shared among the
    vocabulary and one. There is no end of text, as records are cut anywhere.
    """
    if isinstance(order, bool) or not isinstance(order, int) or not 2 <= order <= MAX_ORDER:
        raise ConfigError(f"order={order!r} must be a whole number from 2 to {MAX_ORDER}")
    parts = [_tokens_of(texts.slice(start, ROWS)) for start in range(0, len(texts), ROWS)]
    tokens = np.concatenate([np.empty(0, np.uint64), *(one.values for one in parts)])
    offsets = offsets_of(np.concatenate([np.empty(0, np.int64), *(one.lengths for one in parts)]))
    if len(tokens) < MIN_TOKENS:
        raise DataError(f"the reference has {len(tokens):,} words, at least {MIN_TOKENS:,} are needed; give more")
    place = np.arange(len(tokens)) - np.repeat(offsets[:-1], np.diff(offsets))
    orders = [_Order(*one) for one in _count(tokens, place, order)]
    for shorter, longer in pairwise(orders):
        contexts, group = np.unique(longer.contexts, return_inverse=True)
        discounts = _discounts(longer.counts)
        totals = np.bincount(group, longer.counts)
        longer.share = ((longer.counts - discounts) / totals[group]).astype(np.float32)
        shorter.backoff[np.searchsorted(shorter.keys, contexts)] = np.bincount(group, discounts) / totals
    first = orders[0]
    discounts, total = _discounts(first.counts), first.counts.sum()
    first.share = ((first.counts - discounts) / total).astype(np.float32)
    floor = float(discounts.sum() / total / (len(first.keys) + 1))
    arrays = {name: np.concatenate([getattr(one, name) for one in orders]) for name in ("keys", "share", "backoff")}
    return KneserNey.of(order, arrays, floor, len(tokens))


class _Order:
    """The n-grams of one length: sorted keys, their (continuation) counts, and the keys of their contexts."""

    def __init__(self, keys: np.ndarray, counts: np.ndarray, contexts: np.ndarray) -> None:
        self.keys, self.counts, self.contexts = keys, counts, contexts
        self.share = np.zeros(len(keys), dtype=np.float32)
        self.backoff = np.zeros(len(keys), dtype=np.float32)


def _extended(keys: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    from curation.kneser_ney_kernels import extend_all  # compiles: numba takes half a second

    out = np.empty(len(keys), dtype=np.uint64)
    extend_all(keys, tokens, out)
    return out


def _count(tokens: np.ndarray, place: np.ndarray, order: int) -> Any:
    """Of each length from one: keys, counts and contexts of the distinct n-grams."""
    ends = np.arange(len(tokens))
    keys = _extended(np.zeros(len(tokens), dtype=np.uint64), tokens)
    before = np.zeros(len(tokens), dtype=np.uint64)
    for length in range(1, order + 1):
        # Of n-grams that end at ``ends``: their keys, and those of what stands before their last token.
        contexts = before[ends - 1] if length > 1 else np.zeros(len(ends), dtype=np.uint64)
        inside = place[ends] >= length
        longer = _extended(keys[inside], tokens[ends[inside] - length])
        if length < order:
            fronts = _extended(keys, np.full(len(keys), _BEGINNING))
            fronts[inside] = longer
            rows = np.unique(fronts, return_index=True)[1]
        else:
            rows = np.arange(len(keys))
        found, first, counts = np.unique(keys[rows], return_index=True, return_counts=True)
        yield found, counts.astype(np.float64), contexts[rows][first]
        before = np.zeros(len(tokens), dtype=np.uint64)
        before[ends] = keys
        ends, keys = ends[inside], longer


def _discounts(counts: np.ndarray) -> np.ndarray:
    """(m,) float64: what is taken off each count and left to the shorter context (Chen and Goodman 1998, eq. 26)."""
    n1, n2, n3, n4 = (int((counts == one).sum()) for one in (1, 2, 3, 4))
    steps = _FALLBACK
    if min(n1, n2, n3, n4) > 0:
        rest = n1 / (n1 + 2 * n2)
        found = (1 - 2 * rest * n2 / n1, 2 - 3 * rest * n3 / n2, 3 - 4 * rest * n4 / n3)
        if all(0 < one <= number for number, one in enumerate(found, 1)):
            steps = found
    off: np.ndarray = np.asarray(steps)[np.minimum(counts, 3).astype(np.int64) - 1]
    return off
