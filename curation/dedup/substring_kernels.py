# mypy: disallow-untyped-decorators=False, disallow-untyped-defs=False
"""Compiled loops of the substring stage: tokens and their places, sampled windows, verified and cut spans.

Everything works on a batch of texts in one UTF-8 buffer and releases the interpreter lock. Window hashes are modulo
2**64: the hash of the tokens ``[i, i + size)`` is ``prefix[i + size] - prefix[i] * BASE**size``, mixed. A place is a
character's number in its text; ``places`` flags each place of each text, and its end, with where one may cut.
"""

import numba
import numpy as np

from curation.dedup.characters import DROP, HARD, KIND_SHIFT, POINT, UNSPACED_WORD, WORD
from curation.dedup.kernels import mix

BASE = 0x9FB21C651E98DF25
"""Of the polynomials over code points and over tokens; odd, so that no information is shifted out."""
JOINS = 1 << 30
"""The entry's character may become one with the character before it."""
GRAPHEME, SENTENCE = 1, 2
"""Flags of a place: a grapheme cluster, a sentence, may end before it. Every sentence's end is also a cluster's."""

_BASE, _S32 = np.uint64(BASE), np.uint64(32)
_POINT, _HARD, _JOINS = np.uint32(POINT), np.uint32(HARD), np.uint32(JOINS)
_KIND, _KINDS = np.uint32(KIND_SHIFT), np.uint32(7)
_SIX, _LOW = np.uint32(6), np.uint32(0x3F)

compiled = numba.njit(nogil=True, cache=True, boundscheck=False)


@compiled
def decode(data, at):
    """The code point at byte ``at`` and where the next begins."""
    byte = np.uint32(data[at])
    if byte < 0x80:
        return byte, at + 1
    if byte < 0xE0:
        return (byte & np.uint32(0x1F)) << _SIX | (np.uint32(data[at + 1]) & _LOW), at + 2
    if byte < 0xF0:
        point = (byte & np.uint32(0x0F)) << np.uint32(12) | (np.uint32(data[at + 1]) & _LOW) << _SIX
        return point | (np.uint32(data[at + 2]) & _LOW), at + 3
    point = (byte & np.uint32(0x07)) << np.uint32(18) | (np.uint32(data[at + 1]) & _LOW) << np.uint32(12)
    return point | (np.uint32(data[at + 2]) & _LOW) << _SIX | (np.uint32(data[at + 3]) & _LOW), at + 4


@compiled
def hard_segments(data, offsets, table, starts, ends):
    """Bytes of all that must be normalized in one piece; how many (written as far as there is room).

    A segment is a hard character, or one character with those after it that may join it. Characters that are drawn as
    nothing keep none apart.
    """
    count = 0
    for row in range(len(offsets) - 1):
        at, stop = offsets[row], offsets[row + 1]
        before, begin, end = -1, -1, -1
        while at < stop:
            point, after = decode(data, at)
            entry = table[point]
            if entry & _JOINS:
                if begin < 0:
                    begin = before if before >= 0 else at
                end = after
            elif entry & _HARD or (entry >> _KIND) & _KINDS != DROP:
                if begin >= 0:
                    if count < len(starts):
                        starts[count], ends[count] = begin, end
                    count += 1
                begin, end = (at, after) if entry & _HARD else (-1, -1)
                before = at
            at = after
        if begin >= 0:
            if count < len(starts):
                starts[count], ends[count] = begin, end
            count += 1
    return count


@compiled
def gather_bytes(data, starts, ends, out, offsets):
    """Copy pieces of a buffer behind one another."""
    at = 0
    for piece in range(len(starts)):
        for byte in range(starts[piece], ends[piece]):
            out[at] = data[byte]
            at += 1
        offsets[piece + 1] = at


@compiled
def tokenize_rows(data, offsets, table, segments, folded, prefix, row_offsets, starts, ends, letters, letter_offsets):
    """Hash, first and last character, and normalized letters of every token.

    Parameters
    ----------
    segments : bytes where the hard segments start and end, and which of ``folded`` each becomes.
    folded : table entries of what hard segments become, and their offsets.
    """
    segment_starts, segment_ends, segment_folded = segments
    folded_entries, folded_offsets = folded
    number, segment, num_letters = 0, 0, 0
    for row in range(len(offsets) - 1):
        at, stop, place = offsets[row], offsets[row + 1], 0
        inside, value = False, np.uint64(0)
        while at < stop:
            hard = segment < len(segment_starts) and at == segment_starts[segment]
            if hard:
                first = folded_offsets[segment_folded[segment]]
                last = folded_offsets[segment_folded[segment] + 1]
                entry, after, next_place = np.uint32(0), segment_ends[segment], place
                for byte in range(at, after):
                    next_place += (data[byte] & 0xC0) != 0x80
                segment += 1
            else:
                first, last = 0, 1
                point, after = decode(data, at)
                entry, next_place = table[point], place + 1
            for index in range(first, last):
                one = folded_entries[index] if hard else entry
                kind = (one >> _KIND) & _KINDS
                if inside and kind != WORD and kind != DROP:
                    number = _end_token(number, value, num_letters, prefix, letter_offsets)
                    inside = False
                if kind in (WORD, UNSPACED_WORD):
                    if not inside:
                        inside, value = True, np.uint64(0)
                        starts[number] = place
                    ends[number] = next_place
                    value = (value + np.uint64(one & _POINT) + np.uint64(1)) * _BASE
                    value ^= value >> _S32
                    letters[num_letters] = one & _POINT
                    num_letters += 1
                if kind == UNSPACED_WORD:
                    number = _end_token(number, value, num_letters, prefix, letter_offsets)
                    inside = False
            at, place = after, next_place
        if inside:
            number = _end_token(number, value, num_letters, prefix, letter_offsets)
        row_offsets[row + 1] = number


@compiled
def _end_token(number, value, num_letters, prefix, letter_offsets):
    prefix[number + 1] = prefix[number] * _BASE + mix(value)
    letter_offsets[number + 1] = num_letters
    return number + 1


@compiled
def _anchors(prefix, begin, end, size, width, power, out):
    """For each window of ``width`` runs of ``size`` tokens, the run of the smallest hash, the last of equals; how many.

    References
    ----------
    Schleimer, Wilkerson and Aiken (2003), Winnowing: Local Algorithms for Document Fingerprinting, section 3.
    """
    num_windows = max(end - begin - (size + width - 1) + 1, 0)
    best, smallest = -1, np.uint64(0)
    for window in range(num_windows):
        # Of a window that has lost its smallest, all; otherwise the run that came in.
        for run in range(window if best < window else window + width - 1, window + width):
            at = begin + run
            value = mix(prefix[at + size] - prefix[at] * power)
            if best < window or value <= smallest:
                best, smallest = run, value
        out[window] = best
    return num_windows


@compiled
def sample_rows(prefix, row_offsets, size, width, power, hashes, rows, positions):
    """The anchors of all windows, each once; how many."""
    longest = 0
    for row in range(len(row_offsets) - 1):
        longest = max(longest, row_offsets[row + 1] - row_offsets[row])
    anchors = np.empty(longest, np.int64)
    count = 0
    for row in range(len(row_offsets) - 1):
        begin = row_offsets[row]
        num_windows = _anchors(prefix, begin, row_offsets[row + 1], size, width, power, anchors)
        for window in range(num_windows):
            anchor = anchors[window]
            if window == 0 or anchor != anchors[window - 1]:
                hashes[count] = mix(prefix[begin + anchor + size] - prefix[begin + anchor] * power)
                rows[count], positions[count] = row, anchor
                count += 1
    return count


@compiled
def window_rows(prefix, row_offsets, size, width, powers, shared, shared_offsets, hashes, rows, positions):
    """All windows whose anchor is among those of its row in ``shared`` (ascending); how many."""
    run_power, window_power = powers
    length = size + width - 1
    longest = 0
    for row in range(len(row_offsets) - 1):
        longest = max(longest, row_offsets[row + 1] - row_offsets[row])
    anchors = np.empty(longest, np.int64)
    count = 0
    for row in range(len(row_offsets) - 1):
        begin = row_offsets[row]
        num_windows = _anchors(prefix, begin, row_offsets[row + 1], size, width, run_power, anchors)
        at, stop = shared_offsets[row], shared_offsets[row + 1]
        for window in range(num_windows):
            while at < stop and shared[at] < anchors[window]:
                at += 1
            if at < stop and shared[at] == anchors[window]:
                first = begin + window
                hashes[count] = mix(prefix[first + length] - prefix[first] * window_power)
                rows[count], positions[count] = row, window
                count += 1
    return count


@compiled
def _same(letters, letter_offsets, one, other):
    start, size = letter_offsets[one], letter_offsets[one + 1] - letter_offsets[one]
    other_start = letter_offsets[other]
    if letter_offsets[other + 1] - other_start != size:
        return False
    index = 0
    while index < size and letters[start + index] == letters[other_start + index]:
        index += 1
    return index == size


@compiled
def verify_runs(letters, letter_offsets, starts, keeper_starts, length, out):
    """Join windows that go on together, compare their tokens letter by letter, keep what is equal and long enough.

    Parameters
    ----------
    starts, keeper_starts : (n,) token numbers of windows of ``length`` tokens, in text order, and of what each repeats.
    out : (n, 3) token numbers: first, behind the last, first of what it repeats. Both ends of a row are above those of
        the row before if that is of the same text.

    Returns
    -------
    Number of rows, and of tokens compared.
    """
    count, num_compared = 0, 0
    index = 0
    while index < len(starts):
        last = index
        while (
            last + 1 < len(starts)
            and starts[last + 1] == starts[last] + 1
            and keeper_starts[last + 1] == keeper_starts[last] + 1
        ):
            last += 1
        shift = keeper_starts[index] - starts[index]
        begin, end = starts[index], starts[last] + length
        for token in range(begin, end + 1):
            same = token < end and _same(letters, letter_offsets, token, token + shift)
            num_compared += token < end
            if not same:
                if token - begin >= length:
                    out[count, 0], out[count, 1], out[count, 2] = begin, token, begin + shift
                    count += 1
                begin = token + 1
        index = last + 1
    return count, num_compared


@compiled
def _opening(token, text, starts, ends, flags, kind):
    """The last place before a token, but behind the token before it, with a flag; -1: none."""
    first_token, last_token, flag_start, num_characters = text
    lowest = ends[token - 1] if token > first_token else 0
    place = starts[token] if token < last_token else num_characters
    while place >= lowest:
        if flags[flag_start + place] & kind:
            return place
        place -= 1
    return -1


@compiled
def _closing(token, text, starts, ends, flags, kind):
    """The first place behind the token before this one, but before this one, with a flag; -1: none."""
    first_token, last_token, flag_start, num_characters = text
    place = ends[token - 1] if token > first_token else 0
    highest = starts[token] if token < last_token else num_characters
    while place <= highest:
        if flags[flag_start + place] & kind:
            return place
        place += 1
    return -1


@compiled
def _trim(begin, end, text, starts, ends, flags, length):
    """Bounds of what leaves of the tokens ``[begin, end)``, as tokens and places: whole sentences if there is one.

    A side that would keep ``length`` tokens or more for this is cut at its outermost token instead: so much is a
    repeated span by itself. No token left: the first bound is not below the second.
    """
    first_token, last_token, _, num_characters = text
    first, start = begin, np.int64(-1)
    while first < end:
        start = _opening(first, text, starts, ends, flags, SENTENCE)
        if start >= 0:
            break
        first += 1
    last, stop = end, np.int64(-1)
    while last > first:
        stop = _closing(last, text, starts, ends, flags, SENTENCE)
        if stop >= 0:
            break
        last -= 1
    if first == first_token and last == last_token:
        return first, last, np.int64(0), num_characters
    whole = first < last
    if not whole or first - begin >= length:
        first, start = begin, np.int64(-1)
        while first < end:
            start = _opening(first, text, starts, ends, flags, GRAPHEME)
            if start >= 0:
                break
            first += 1
    if not whole or end - last >= length:
        last, stop = end, np.int64(-1)
        while last > first:
            stop = _closing(last, text, starts, ends, flags, GRAPHEME)
            if stop >= 0:
                break
            last -= 1
    return first, last, start, stop


@compiled
def _meeting(begin, end, text, starts, ends, flags):
    """The first token of ``begin`` to ``end`` before which one span may end and the next begin, and where; or -1."""
    for token in range(begin, end + 1):
        place = _closing(token, text, starts, ends, flags, SENTENCE)
        if place >= 0:
            return token, place
    for token in range(begin, end + 1):
        place = _opening(token, text, starts, ends, flags, GRAPHEME)
        if place >= 0:
            return token, place
    return -1, -1


@compiled
def cut_rows(matches, rows, row_offsets, starts, ends, flags, flag_offsets, length, out):
    """Cover what the matches cover with as few of them as can be, one behind the other, and cut where one may.

    Parameters
    ----------
    matches, rows : what ``verify_runs`` has found, and the text of each.
    flags, flag_offsets : where each text may be cut.
    out : (n, 5) number of the match, start and end place, first token and the one behind the last.

    Returns
    -------
    Number of spans.
    """
    count, index = 0, 0
    picked = np.empty(len(matches) + 1, np.int64)
    cut_tokens, cut_places = np.empty(len(matches) + 1, np.int64), np.empty(len(matches) + 1, np.int64)
    while index < len(matches):
        row = rows[index]
        num_characters = flag_offsets[row + 1] - flag_offsets[row] - 1
        text = (row_offsets[row], row_offsets[row + 1], flag_offsets[row], num_characters)
        begin, current = matches[index, 0], index
        num_picked = 1
        picked[0], cut_tokens[0] = index, begin
        while True:
            # Of the matches that begin within the current one or just behind it, the last reaches farthest.
            following = current
            while (
                following + 1 < len(matches)
                and rows[following + 1] == row
                and matches[following + 1, 0] <= matches[current, 1]
            ):
                following += 1
            if following == current:
                break
            if matches[following, 2] - matches[following, 0] != matches[current, 2] - matches[current, 0]:
                token, place = _meeting(matches[following, 0], matches[current, 1], text, starts, ends, flags)
                if token < 0:
                    break
                picked[num_picked], cut_tokens[num_picked], cut_places[num_picked] = following, token, place
                num_picked += 1
            current = following
        end = matches[current, 1]
        cut_tokens[num_picked] = end
        first, last, start, stop = _trim(begin, end, text, starts, ends, flags, length)
        for pick in range(num_picked):
            own_first, own_last = max(cut_tokens[pick], first), min(cut_tokens[pick + 1], last)
            if own_first < own_last:
                out[count, 0] = picked[pick]
                out[count, 1] = start if own_first == first else cut_places[pick]
                out[count, 2] = stop if own_last == last else cut_places[pick + 1]
                out[count, 3], out[count, 4] = own_first, own_last
                count += 1
        index = current + 1
    return count
