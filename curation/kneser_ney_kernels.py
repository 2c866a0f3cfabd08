"""Compiled loops of the n-gram model: a table of n-grams, and the probability of every token of many texts."""

from typing import Any

import numba
import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_ODD = np.uint64(0x9FB21C651E98DF25)
_MIX1, _MIX2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S27, _S30, _S31 = np.uint64(27), np.uint64(30), np.uint64(31)
_FREE = np.uint64(0)

compiled: Any = numba.njit(nogil=True, cache=True, boundscheck=False)


@compiled
def extend(key, token):
    """The key of an n-gram with one token more in front; never zero, which marks a free slot."""
    value = key * _ODD + token + _GOLDEN
    value = (value ^ (value >> _S30)) * _MIX1
    value = (value ^ (value >> _S27)) * _MIX2
    value = value ^ (value >> _S31)
    return value if value != _FREE else _GOLDEN


@compiled
def extend_all(keys, tokens, out):
    """``extend`` for n keys (uint64) and their tokens."""
    for row in range(len(keys)):
        out[row] = extend(keys[row], tokens[row])


@compiled
def fill_table(keys, table):
    """Put n distinct keys into a table of more slots, a power of two; ``table`` (slots,) int32 of -1 gets rows."""
    mask = np.uint64(len(table) - 1)
    for row in range(len(keys)):
        at = keys[row] & mask
        while table[at] >= 0:
            at = (at + np.uint64(1)) & mask
        table[at] = row


@compiled
def find(keys, table, key):
    """The row of a key, or -1."""
    mask = np.uint64(len(table) - 1)
    at = key & mask
    while True:
        row = table[at]
        if row < 0:
            return np.int64(-1)
        if keys[row] == key:
            return np.int64(row)
        at = (at + np.uint64(1)) & mask


@compiled
def surprise(tokens, offsets, order, keys, table, share, backoff, floor, out):
    """Sum of -ln p over the tokens of every text, in nats.

    p(w | h) = share(hw) + backoff(h) p(w | h without its first token); ``floor`` is what the empty context leaves to
    each token. The row of the context of one order is that of the n-gram one order lower at the token before, so there
    is one look-up an order.

    Parameters
    ----------
    tokens, offsets : (total,) uint64 and (n + 1,) int64.
    keys, share, backoff : (m,) uint64, float32, float32.
    table : (slots,) int32 of ``fill_table``.
    out : (n,) float64.
    """
    before = np.empty(order + 1, dtype=np.int64)
    now = np.empty(order + 1, dtype=np.int64)
    for text in range(len(offsets) - 1):
        start, stop = offsets[text], offsets[text + 1]
        total = 0.0
        before[:] = -1
        for at in range(start, stop):
            key = extend(np.uint64(0), tokens[at])
            row = find(keys, table, key)
            p = floor + (share[row] if row >= 0 else np.float32(0.0))
            now[1] = row
            length = 2
            while length <= order and at - length + 1 >= start:
                context = before[length - 1]
                if context < 0:
                    break
                if row >= 0:
                    # Longer n-grams end in shorter ones: what is not there cannot be in a longer one.
                    key = extend(key, tokens[at - length + 1])
                    row = find(keys, table, key)
                if backoff[context] > 0:
                    p = backoff[context] * p + (share[row] if row >= 0 else np.float32(0.0))
                now[length] = row
                length += 1
            now[length:] = -1
            before[:] = now
            total -= np.log(p)
        out[text] = total
