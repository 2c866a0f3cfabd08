"""Compiled loops over UTF-8 bytes that count what the rules divide: each row is decoded once for all of them.

Each function fills one row of a group of ``curation.rules.columns``, in that order. Threads take slices of the rows.
"""

from typing import Any

import numba
import numpy as np

from curation.dedup.kernels import mix
from curation.rules.classes import (
    BROKEN,
    BULLET,
    CJK_CHAR,
    DIGIT,
    HANGUL,
    LATIN,
    LETTER,
    NO_WORD,
    SOUTHEAST_CHAR,
    SPACE,
    SYMBOL,
    TERMINAL,
    UNSPACED_CHAR,
    UPPER,
    WIDE,
    WORD,
)
from curation.rules.columns import CJK_SCALE, SOUTHEAST_SCALE

compiled: Any = numba.njit(nogil=True, cache=True, boundscheck=False)

_BASE = np.uint64(0x9FB21C651E98DF25)
_S32 = np.uint64(32)
_ONE = np.uint64(1)
_NEWLINE, _DOT, _ELLIPSIS, _HASH, _WIDE_HASH, _BRACKET = 0x0A, 0x2E, 0x2026, 0x23, 0xFF03, 0x7B
SHORT_LINE, LONG_LINE = 30, 200
"""Columns up to which a line is short (FineWeb), and characters from which it makes a paragraph (C4)."""


def _pack(word: str) -> int:
    return int.from_bytes(word.encode(), "big")


_STOP_WORDS = np.array([_pack(word) for word in ("the", "be", "to", "of", "and", "that", "have", "with")])


@compiled
def decode(data, start, stop, table, points, kinds):
    """Code points of one row and their bits; how many."""
    length = 0
    at = start
    while at < stop:
        byte = np.int32(data[at])
        if byte < 0x80:
            point = byte
            at += 1
        elif byte < 0xE0:
            point = (byte & 0x1F) << 6 | (np.int32(data[at + 1]) & 0x3F)
            at += 2
        elif byte < 0xF0:
            point = (byte & 0x0F) << 12 | (np.int32(data[at + 1]) & 0x3F) << 6 | (np.int32(data[at + 2]) & 0x3F)
            at += 3
        else:
            point = (byte & 0x07) << 18 | (np.int32(data[at + 1]) & 0x3F) << 12
            point |= (np.int32(data[at + 2]) & 0x3F) << 6 | (np.int32(data[at + 3]) & 0x3F)
            at += 4
        points[length] = point
        kinds[length] = table[point]
        length += 1
    return length


@compiled
def find_tokens(points, kinds, length, tokens, lengths):
    """Hash and length of each word, and of each character of a script without spaces; how many."""
    number = 0
    word = np.uint64(0)
    inside = 0
    for at in range(length):
        if kinds[at] & NO_WORD == 0:
            word = (word + np.uint64(points[at]) + _ONE) * _BASE
            word ^= word >> _S32
            inside += 1
            continue
        if inside:
            tokens[number], lengths[number] = mix(word), inside
            number += 1
            word, inside = np.uint64(0), 0
        if kinds[at] & UNSPACED_CHAR:
            tokens[number], lengths[number] = mix((np.uint64(points[at]) + _ONE) * _BASE), 1
            number += 1
    if inside:
        tokens[number], lengths[number] = mix(word), inside
        number += 1
    return number


@compiled
def count_row(points, kinds, length, out):
    """``COUNTS`` of one row."""
    filled = cjk = southeast = hangul = letters = latin = digits = upper = symbols = broken = 0
    hashes = brackets = newlines = ellipses = dots = 0
    words = word_chars = lettered = longest = inside = 0
    has_letter = False
    packed = run = 0
    stops = 0
    for at in range(length + 1):
        kind = kinds[at] if at < length else SPACE
        point = points[at] if at < length else 0x20
        if kind & NO_WORD == 0:
            inside += 1
            has_letter = has_letter or kind & LETTER != 0
        elif inside:
            words += 1
            word_chars += inside
            lettered += has_letter
            longest = max(longest, inside)
            inside = 0
            has_letter = False
        if kind & WORD:
            run += 1
            packed = (
                packed << 8 | (point | 0x20 if 0x41 <= point <= 0x5A else point) if run <= 4 and point < 0x80 else 0
            )
        elif run:
            if 2 <= run <= 4:
                for one in range(len(_STOP_WORDS)):
                    if packed == _STOP_WORDS[one]:
                        stops |= 1 << one
            run = packed = 0
        if point == _DOT:
            dots += 1
            if dots == 3:
                ellipses += 1
                dots = 0
        else:
            dots = 0
        if at == length:
            break
        filled += kind & SPACE == 0
        cjk += kind & CJK_CHAR != 0
        southeast += kind & SOUTHEAST_CHAR != 0
        hangul += kind & HANGUL != 0
        letters += kind & LETTER != 0
        latin += kind & LATIN != 0
        digits += kind & DIGIT != 0
        upper += kind & UPPER != 0
        symbols += kind & SYMBOL != 0
        broken += kind & BROKEN != 0
        hashes += point in (_HASH, _WIDE_HASH)
        brackets += point == _BRACKET
        newlines += point == _NEWLINE
        ellipses += point == _ELLIPSIS
    found = 0
    while stops:
        found += stops & 1
        stops >>= 1
    out[0], out[1], out[2], out[3] = length, filled, words, word_chars
    out[4], out[5], out[6], out[7], out[8], out[9] = cjk, southeast, hangul, letters, latin, lettered
    out[10], out[11], out[12], out[13], out[14] = hashes, ellipses, digits, upper, symbols
    out[15], out[16], out[17], out[18], out[19] = broken, brackets, newlines, longest, found


@compiled
def _seen(keys, stamps, stamp, mask, key):
    """Whether a key was put into the table since it had this stamp; it is there after."""
    slot = np.int64(key & mask)
    while stamps[slot] == stamp:
        if keys[slot] == key:
            return True
        slot = (slot + 1) & np.int64(mask)
    stamps[slot], keys[slot] = stamp, key
    return False


@compiled
def line_row(points, kinds, length, keys, stamps, stamp, mask, out):
    """``LINES`` of one row. Lines and paragraphs share the table."""
    out[:] = 0
    start = 0
    paragraph, paragraph_chars = np.uint64(0), 0
    for at in range(length + 1):
        if at < length and points[at] != _NEWLINE:
            continue
        first, last, raw = start, at, at - start
        start = at + 1
        while first < last and kinds[first] & SPACE:
            first += 1
        while last > first and kinds[last - 1] & SPACE:
            last -= 1
        if first < last:
            key = np.uint64(0)
            columns = last - first
            for place in range(first, last):
                key = (key + np.uint64(points[place]) + _ONE) * _BASE
                key ^= key >> _S32
                columns += kinds[place] & WIDE != 0
            key = mix(key)
            size = last - first
            out[0] += 1
            out[1] += size
            if _seen(keys, stamps, stamp, mask, key):
                out[2] += 1
                out[3] += size
            out[4] += kinds[first] & BULLET != 0
            out[5] += ends_in_ellipsis(points, first, last)
            out[6] += kinds[last - 1] & TERMINAL != 0
            out[7] += columns <= SHORT_LINE
            out[8] += raw + columns - size >= LONG_LINE
            paragraph = mix((paragraph + key) * _BASE)
            paragraph_chars += size
        if paragraph_chars and (first >= last or at == length):
            out[9] += 1
            out[10] += paragraph_chars
            if _seen(keys, stamps, stamp, mask, ~paragraph):
                out[11] += 1
                out[12] += paragraph_chars
            paragraph, paragraph_chars = np.uint64(0), 0


@compiled
def ends_in_ellipsis(points, first, last):
    """Whether a line ends in three dots, or the sign for them."""
    if points[last - 1] == _ELLIPSIS:
        return True
    return last - first >= 3 and points[last - 1] == _DOT and points[last - 2] == _DOT and points[last - 3] == _DOT


@compiled
def _unit(kinds, length):
    """Tokens that make one word: 1, or where most characters belong to scripts without spaces, 2 or 4."""
    cjk = southeast = filled = 0
    for at in range(length):
        cjk += kinds[at] & CJK_CHAR != 0
        southeast += kinds[at] & SOUTHEAST_CHAR != 0
        filled += kinds[at] & SPACE == 0
    if (cjk + southeast) * 2 < filled or filled == 0:
        return 1
    return CJK_SCALE if cjk >= southeast else SOUTHEAST_SCALE


@compiled
def _top(tokens, lengths, number, size, gap, keys, stamps, counts, stamp, mask):
    """Characters in the most frequent n-gram (of equals, the first), and how often it stands there."""
    leading = _ONE
    for _ in range(size - 1):
        leading *= _BASE
    most = best = 0
    # Two walks: count, then find the first n-gram with the highest count.
    for walk in range(2):
        rolling = np.uint64(0)
        chars = 0
        for at in range(number):
            if at >= size:
                rolling -= leading * tokens[at - size]
                chars -= lengths[at - size]
            rolling = rolling * _BASE + tokens[at]
            chars += lengths[at]
            if at < size - 1:
                continue
            key = mix(rolling)
            slot = np.int64(key & mask)
            while stamps[slot] == stamp and keys[slot] != key:
                slot = (slot + 1) & np.int64(mask)
            if walk:
                if counts[slot] == most:
                    best = chars + gap * (size - 1)
                    break
            else:
                if stamps[slot] != stamp:
                    stamps[slot], keys[slot], counts[slot] = stamp, key, 0
                counts[slot] += 1
                most = max(most, counts[slot])
        if most == 1 and walk == 0:
            for at in range(size):
                best += lengths[at]
            return best + gap * (size - 1), 1
    return best * most, most


@compiled
def _duplicates(tokens, lengths, number, size, keys, stamps, stamp, mask):
    """Characters in n-grams that repeat an earlier one, none counted twice: after one the search goes on behind it."""
    leading = _ONE
    for _ in range(size - 1):
        leading *= _BASE
    total = 0
    rolling = np.uint64(0)
    chars = held = at = 0
    while at < number:
        if held == size:
            rolling -= leading * tokens[at - size]
            chars -= lengths[at - size]
            held -= 1
        rolling = rolling * _BASE + tokens[at]
        chars += lengths[at]
        held += 1
        at += 1
        if held == size and _seen(keys, stamps, stamp, mask, mix(rolling)):
            total += chars
            rolling, chars, held = np.uint64(0), 0, 0
    return total


@compiled
def ngram_row(tokens, lengths, number, unit, keys, stamps, counts, stamp, mask, out):
    """``NGRAMS`` of one row; the next unused stamp."""
    out[:] = 0
    most = 2
    for size in range(2, 5):
        if number >= size * unit:
            top, most = _top(tokens, lengths, number, size * unit, int(unit == 1), keys, stamps, counts, stamp, mask)
            out[size - 2] = top
            stamp += 1
    if most < 2:
        # Where no 4-gram stands twice, no longer one does.
        return stamp
    for size in range(5, 11):
        out[size - 2] = _duplicates(tokens, lengths, number, size * unit, keys, stamps, stamp, mask)
        stamp += 1
        if out[size - 2] == 0:
            break
    return stamp


@compiled
def longest_row(offsets, first, last):
    """Bytes of the longest row, at least one."""
    longest = 1
    for row in range(first, last):
        longest = max(longest, offsets[row + 1] - offsets[row])
    return longest


@compiled
def table_size(number):
    """The power of two that holds so many keys at most half full."""
    size = 4
    while size < 2 * number:
        size *= 2
    return size


@compiled
def profile_rows(data, offsets, first, last, table, counts, lines, ngrams):
    """Each group's rows where its array has any."""
    longest = longest_row(offsets, first, last)
    points, kinds = np.empty(longest, np.int32), np.empty(longest, table.dtype)
    # A word and what ends it are two bytes at least, a line that ends a paragraph three.
    room = longest // 2 + 1 if len(lines) or len(ngrams) else 1
    size = table_size(room)
    keys, stamps, found = np.empty(size, np.uint64), np.zeros(size, np.int32), np.empty(size, np.int32)
    tokens, lengths = np.empty(room, np.uint64), np.empty(room, np.int32)
    stamp = 1
    for row in range(first, last):
        length = decode(data, offsets[row], offsets[row + 1], table, points, kinds)
        if len(counts):
            count_row(points, kinds, length, counts[row])
        if len(lines):
            newlines = 0
            for at in range(length):
                newlines += points[at] == _NEWLINE
            mask = np.uint64(min(size, table_size(2 * newlines + 2)) - 1)
            line_row(points, kinds, length, keys, stamps, stamp, mask, lines[row])
            stamp += 1
        if len(ngrams):
            number = find_tokens(points, kinds, length, tokens, lengths)
            mask = np.uint64(table_size(number) - 1)
            unit = _unit(kinds, length)
            stamp = ngram_row(tokens, lengths, number, unit, keys, stamps, found, stamp, mask, ngrams[row])
