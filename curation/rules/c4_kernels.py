"""Compiled: what C4's line filters find in each line, in the order of the reference's checks.

Facts from the TFDS reference (``c4_utils.clean_page``) and from datatrove's ``C4QualityFilter``, which differ in three
things: TFDS keeps lines of five words counted after citations are gone, datatrove lines of three words counted before,
and takes ``'`` for an end of a line too. Where we differ from both: a line of Chinese, Japanese or Korean may also end
in its own full stops and quotation marks, one of Thai, Lao, Khmer or Burmese in anything, and their words are counted
as in ``word_count``.
"""

import numpy as np

from curation.rules.c4_marks import (
    BLANK,
    BOILERPLATE,
    DROPS,
    FEW,
    FEW_TFDS,
    JAVASCRIPT,
    LONG_WORD,
    LOREM,
    NO_END,
    NO_END_TFDS,
    PHRASES,
    POLICY,
)
from curation.rules.classes import (
    CJK_CHAR,
    CLOSER,
    NO_WORD,
    SOUTHEAST_CHAR,
    SPACE,
    TERMINAL,
    WIDE,
    WIDE_END,
)
from curation.rules.columns import CJK_SCALE, SOUTHEAST_SCALE
from curation.rules.kernels import compiled, decode, ends_in_ellipsis, longest_row

MAX_WORD, MIN_WORDS_TFDS, MIN_WORDS = 1000, 5, 3

_ALL = [(mark, phrase) for mark, phrases in PHRASES.items() for phrase in phrases]
_MARKS = np.array([mark for mark, _ in _ALL])
_ENDS = np.cumsum([len(phrase) for _, phrase in _ALL])
_STARTS = _ENDS - [len(phrase) for _, phrase in _ALL]
_POINTS = np.array([ord(char) for _, phrase in _ALL for char in phrase])
_BUCKETS = 1024
_SECOND = 31


def _bucketed() -> tuple[np.ndarray, np.ndarray]:
    """Phrases in the order of a hash of their first two characters, and where each hash begins."""
    hashes = (_POINTS[_STARTS] + _POINTS[_STARTS + 1] * _SECOND) % _BUCKETS
    order = np.argsort(hashes, kind="stable")
    return order, np.searchsorted(hashes[order], np.arange(_BUCKETS + 1))


_ORDER, _FROM = _bucketed()

_CITED = [ord(char) for char in "citation needed"]
_CITATION, _EDIT = np.array(_CITED), np.array([ord(char) for char in "edit"])


@compiled
def _citation(points, at, last):
    """Where the citation that begins at ``at`` ends, or ``at``: ``[12]``, ``[]``, ``[edit]``, ``[citation needed]``."""
    end = at + 1
    while end < last and 0x30 <= points[end] <= 0x39:
        end += 1
    if end < last and points[end] == 0x5D:
        return end + 1
    for words in (_EDIT, _CITATION):
        end = at + 1 + len(words)
        if end < last and points[end] == 0x5D:
            same = True
            for place in range(len(words)):
                same = same and points[at + 1 + place] == words[place]
            if same:
                return end + 1
    return at


@compiled
def _count_words(kinds, first, last):
    """Words as in ``word_count``, and characters of the longest between white space."""
    words, inside, longest, cjk, southeast = 0, 0, 0, 0, 0
    for at in range(first, last):
        if kinds[at] & NO_WORD == 0:
            words += inside == 0
            inside += 1
            longest = max(longest, inside)
        else:
            inside = 0
            cjk += kinds[at] & CJK_CHAR != 0
            southeast += kinds[at] & SOUTHEAST_CHAR != 0
    return words + cjk / CJK_SCALE + southeast / SOUTHEAST_SCALE, longest


@compiled
def _lower(point):
    return point | 0x20 if 0x41 <= point <= 0x5A else point


@compiled
def mark_line(points, kinds, first, last, line, line_kinds):
    """Marks of one line, trimmed; and how many characters are left of it in ``line`` once its citations are gone."""
    if first >= last:
        return BLANK, 0
    words, longest = _count_words(kinds, first, last)
    marks = LONG_WORD if longest > MAX_WORD else 0
    if words < MIN_WORDS:
        marks |= FEW
    length = 0
    at = first
    wide = southeast = filled = 0
    while at < last:
        point = points[at]
        if point == 0x5B:
            end = _citation(points, at, last)
            if end > at:
                at = end
                continue
        line[length], line_kinds[length] = point, kinds[at]
        wide += kinds[at] & WIDE != 0
        southeast += kinds[at] & SOUTHEAST_CHAR != 0
        filled += kinds[at] & SPACE == 0
        length += 1
        at += 1
    if length < last - first:
        words, _ = _count_words(line_kinds, 0, length)
    if words < MIN_WORDS_TFDS:
        marks |= FEW_TFDS
    if southeast * 2 < filled or filled == 0:
        end = line[length - 1] if length else 0x20
        quoted = wide and end in (0x201D, 0x2019)
        ended = end in (0x2E, 0x3F, 0x21, 0x22) or quoted or (length and line_kinds[length - 1] & WIDE_END != 0)
        dots = length >= 3 and line[length - 1] != 0x2026 and ends_in_ellipsis(line, 0, length)
        if not ended or dots:
            marks |= NO_END_TFDS
            if end != 0x27:
                marks |= NO_END
    following = _lower(line[0]) if length else 0
    for at in range(length - 1):
        point, following = following, _lower(line[at + 1])
        bucket = (point + following * _SECOND) % _BUCKETS
        for place in range(_FROM[bucket], _FROM[bucket + 1]):
            phrase = _ORDER[place]
            begin, size = _STARTS[phrase], _ENDS[phrase] - _STARTS[phrase]
            if at + size > length:
                continue
            same = True
            for one in range(size):
                if _lower(line[at + one]) != _POINTS[begin + one]:
                    same = False
                    break
            if same:
                marks |= _MARKS[phrase]
    return marks, length


@compiled
def count_sentences(kinds, length):
    """Stretches that end in a sentence's end, closing quotes and brackets behind it, and white space or nothing.

    Chinese and Japanese full stops need no white space; what stands behind the last end is one more.
    """
    number = 0
    open_ = False
    at = 0
    while at < length:
        if kinds[at] & TERMINAL == 0:
            open_ = open_ or kinds[at] & SPACE == 0
            at += 1
            continue
        wide = False
        while at < length and kinds[at] & TERMINAL:
            wide = wide or kinds[at] & WIDE_END != 0
            at += 1
        while at < length and kinds[at] & CLOSER:
            at += 1
        open_ = True
        if wide or at == length or kinds[at] & SPACE:
            number += 1
            open_ = False
    return number + open_


@compiled
def c4_row(points, kinds, length, line, line_kinds, out):
    """``columns.C4`` of one row."""
    out[:] = 0
    start = 0
    for at in range(length + 1):
        if at < length and points[at] != 0x0A:
            continue
        first, last = start, at
        start = at + 1
        while first < last and kinds[first] & SPACE:
            first += 1
        while last > first and kinds[last - 1] & SPACE:
            last -= 1
        marks, left = mark_line(points, kinds, first, last, line, line_kinds)
        sentences = -1
        for variant in range(3):
            if marks & DROPS[variant] == 0:
                if sentences < 0:
                    sentences = count_sentences(line_kinds, left)
                out[variant] += 1
                out[3 + variant] += sentences
        out[6] += marks & JAVASCRIPT != 0
        out[7] += marks & POLICY != 0
        out[8] += marks & LOREM != 0
        out[9] += marks & BOILERPLATE != 0


@compiled
def c4_rows(data, offsets, first, last, table, out):
    """``columns.C4`` of each row."""
    longest = longest_row(offsets, first, last)
    points, kinds = np.empty(longest, np.int32), np.empty(longest, table.dtype)
    line, line_kinds = np.empty(longest, np.int32), np.empty(longest, table.dtype)
    for row in range(first, last):
        length = decode(data, offsets[row], offsets[row + 1], table, points, kinds)
        c4_row(points, kinds, length, line, line_kinds, out[row])


@compiled
def mark_rows(data, offsets, table, lines, marks):
    """Marks of each line of each row, one after another; row ``i``'s begin at ``lines[i]``."""
    longest = longest_row(offsets, 0, len(offsets) - 1)
    points, kinds = np.empty(longest, np.int32), np.empty(longest, table.dtype)
    line, line_kinds = np.empty(longest, np.int32), np.empty(longest, table.dtype)
    for row in range(len(offsets) - 1):
        length = decode(data, offsets[row], offsets[row + 1], table, points, kinds)
        start, number = 0, lines[row]
        for at in range(length + 1):
            if at < length and points[at] != 0x0A:
                continue
            first, last = start, at
            start = at + 1
            while first < last and kinds[first] & SPACE:
                first += 1
            while last > first and kinds[last - 1] & SPACE:
                last -= 1
            marks[number], _ = mark_line(points, kinds, first, last, line, line_kinds)
            number += 1
