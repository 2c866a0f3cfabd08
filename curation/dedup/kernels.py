"""Compiled loops over UTF-8 bytes: from raw text to shingles, signatures and band hashes with no object a token.

Everything here works on rows of one flat buffer and releases the interpreter lock, so threads take slices of the rows.
Arithmetic is modulo 2**64 (shingles, bands) or 2**32 (signatures). Changing a result is a new version of ``METHOD``.
"""

from typing import Any

import numba
import numpy as np

from curation.dedup.characters import DROP, HARD, KIND_SHIFT, POINT, SPACE, UNSPACED_WORD, WORD

_BASE = np.uint64(0x9FB21C651E98DF25)
"""Base of the rolling polynomial over tokens; odd, so that no information is shifted out."""
_WORD_DOMAIN, _CHAR_DOMAIN, _WHOLE_DOMAIN = np.uint64(0x5761), np.uint64(0x4368), np.uint64(0x5768)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1, _MIX2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S27, _S30, _S31, _S32 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(32)
_FMIX1, _FMIX2 = np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35)
_S13, _S16 = np.uint32(13), np.uint32(16)
_ONES = np.uint32(0xFFFFFFFF)
_POINT, _HARD, _KIND = np.uint32(POINT), np.uint32(HARD), np.uint32(KIND_SHIFT)
_SIX = np.uint32(6)
_LOW = np.uint32(0x3F)

compiled: Any = numba.njit(nogil=True, cache=True, boundscheck=False)


@compiled
def mix(value):
    """Spread a 64-bit value over all bits, one to one (the finalizer of splitmix64, Steele et al. 2014)."""
    value = value + _GOLDEN
    value = (value ^ (value >> _S30)) * _MIX1
    value = (value ^ (value >> _S27)) * _MIX2
    return value ^ (value >> _S31)


@compiled
def fold(data, start, stop, table, strict, points):
    """Normalize one text into code points; -1 when ``strict`` and it has a hard character.

    ``points`` takes entries of the table (code point and kind), runs of white space as one space, ends trimmed.
    """
    length = 0
    pending = False
    at = start
    while at < stop:
        byte = np.uint32(data[at])
        if byte < 0x80:
            entry = table[byte]
            at += 1
        elif byte < 0xE0:
            entry = table[(byte & np.uint32(0x1F)) << _SIX | (np.uint32(data[at + 1]) & _LOW)]
            at += 2
        elif byte < 0xF0:
            point = (byte & np.uint32(0x0F)) << np.uint32(12)
            point |= (np.uint32(data[at + 1]) & _LOW) << _SIX | (np.uint32(data[at + 2]) & _LOW)
            entry = table[point]
            at += 3
        else:
            point = (byte & np.uint32(0x07)) << np.uint32(18) | (np.uint32(data[at + 1]) & _LOW) << np.uint32(12)
            point |= (np.uint32(data[at + 2]) & _LOW) << _SIX | (np.uint32(data[at + 3]) & _LOW)
            entry = table[point]
            at += 4
        if strict and entry & _HARD:
            return -1
        kind = (entry & ~_HARD) >> _KIND
        if kind == DROP:
            continue
        if kind == SPACE:
            pending = length > 0
            continue
        if pending:
            points[length] = np.uint32(32) | np.uint32(SPACE) << _KIND
            length += 1
            pending = False
        points[length] = entry & ~_HARD
        length += 1
    return length


@compiled
def encode(points, length, out, at):
    """Write code points as UTF-8 at ``out[at:]``; the end."""
    for index in range(length):
        point = points[index] & _POINT
        if point < 0x80:
            out[at] = point
            at += 1
        elif point < 0x800:
            out[at] = np.uint32(0xC0) | point >> _SIX
            out[at + 1] = np.uint32(0x80) | point & _LOW
            at += 2
        elif point < 0x10000:
            out[at] = np.uint32(0xE0) | point >> np.uint32(12)
            out[at + 1] = np.uint32(0x80) | point >> _SIX & _LOW
            out[at + 2] = np.uint32(0x80) | point & _LOW
            at += 3
        else:
            out[at] = np.uint32(0xF0) | point >> np.uint32(18)
            out[at + 1] = np.uint32(0x80) | point >> np.uint32(12) & _LOW
            out[at + 2] = np.uint32(0x80) | point >> _SIX & _LOW
            out[at + 3] = np.uint32(0x80) | point & _LOW
            at += 4
    return at


@compiled
def fold_ascii(data, start, stop, table, out, at):
    """``fold`` and ``encode`` in one, of a text of ASCII alone: the end in ``out``; -1 where there is another byte."""
    begin = at
    pending = False
    for place in range(start, stop):
        byte = data[place]
        if byte >= 0x80:
            return -1
        entry = table[byte]
        kind = (entry & ~_HARD) >> _KIND
        if kind == SPACE:
            pending = at > begin
        elif kind != DROP:
            if pending:
                out[at] = 32
                at += 1
                pending = False
            out[at] = entry & _POINT
            at += 1
    return at


@compiled
def shingles(points, length, word_ngram, char_ngram, min_words, tokens, out):
    """Hash the shingles of one normalized text into ``out``, in text order, repeats included; how many."""
    num_tokens, num_unspaced, num_filled = 0, 0, 0
    inside = False
    word = np.uint64(0)
    for index in range(length):
        point = points[index]
        kind = point >> _KIND
        if kind == WORD:
            if not inside:
                word = np.uint64(0)
                inside = True
            word = (word + np.uint64(point & _POINT) + np.uint64(1)) * _BASE
            word ^= word >> _S32
            num_filled += 1
            continue
        if inside:
            tokens[num_tokens] = mix(word)
            num_tokens += 1
            inside = False
        if kind == UNSPACED_WORD:
            tokens[num_tokens] = mix(np.uint64(point & _POINT))
            num_tokens += 1
            num_unspaced += 1
        if kind != SPACE:
            num_filled += 1
    if inside:
        tokens[num_tokens] = mix(word)
        num_tokens += 1
    if num_tokens >= word_ngram and num_tokens >= min_words and num_unspaced * 2 < num_filled:
        return _ngrams(tokens, num_tokens, word_ngram, _WORD_DOMAIN, out)
    for index in range(length):
        tokens[index] = mix(np.uint64(points[index] & _POINT))
    if num_tokens >= word_ngram and length >= char_ngram:
        return _ngrams(tokens, length, char_ngram, _CHAR_DOMAIN, out)
    return _ngrams(tokens, length, max(length, 1), _WHOLE_DOMAIN, out)


@compiled
def _ngrams(items, length, size, domain, out):
    leading = np.uint64(1)
    for _ in range(size):
        leading *= _BASE
    rolling = np.uint64(0)
    for index in range(min(size, length)):
        rolling = rolling * _BASE + items[index]
    out[0] = mix(rolling ^ domain)
    for index in range(size, length):
        rolling = rolling * _BASE + items[index] - leading * items[index - size]
        out[index - size + 1] = mix(rolling ^ domain)
    return max(length - size, 0) + 1


@compiled
def sign(hashes, length, multipliers, addends, signature):
    """MinHash of a set: datasketch's scheme ``affine32`` over the upper halves of the hashes."""
    signature[:] = _ONES
    for index in range(length):
        half = np.uint32(hashes[index] >> _S32)
        half = np.uint32(half ^ (half >> _S16))
        half = np.uint32(half * _FMIX1)
        half = np.uint32(half ^ (half >> _S13))
        half = np.uint32(half * _FMIX2)
        half = np.uint32(half ^ (half >> _S16))
        for place in range(len(signature)):
            permuted = np.uint32(np.uint32(multipliers[place] * half) + addends[place])
            signature[place] = min(signature[place], permuted)


@compiled
def band(signature, bands, rows, out):
    """One 64-bit hash a band of a signature. The band's number is in it, so that bands can share one table."""
    for one in range(bands):
        value = np.uint64(one)
        for row in range(one * rows, (one + 1) * rows):
            value = mix(value * _BASE + np.uint64(signature[row]))
        out[one] = value


@compiled
def sketch(signature, out):
    """The lowest bit of the first 128 places, packed: two sets agree in a bit with probability (1 + Jaccard) / 2."""
    out[0] = out[1] = np.uint64(0)
    for place in range(min(len(signature), 128)):
        out[place >> 6] |= np.uint64(signature[place] & np.uint32(1)) << np.uint64(place & 63)


@compiled
def _longest(offsets, first, last):
    longest = 1
    for row in range(first, last):
        longest = max(longest, offsets[row + 1] - offsets[row])
    return longest


@compiled
def fold_rows(data, offsets, first, last, table, strict, out, lengths, hard):
    """Normalized UTF-8 of each row at twice its own offset in ``out``, with its length in bytes; or ``hard``."""
    points = np.empty(_longest(offsets, first, last), np.uint32)
    for row in range(first, last):
        end = fold_ascii(data, offsets[row], offsets[row + 1], table, out, offsets[row] * 2)
        if end >= 0:
            lengths[row] = end - offsets[row] * 2
            continue
        length = fold(data, offsets[row], offsets[row + 1], table, strict, points)
        hard[row] = length < 0
        if length >= 0:
            # Folding may lengthen a character's bytes, but never to twice as many.
            lengths[row] = encode(points, length, out, offsets[row] * 2) - offsets[row] * 2


@compiled
def sign_rows(
    data, offsets, first, last, table, strict, shape, multipliers, addends, signatures, hashes, sketches, hard
):
    """Signature (where ``signatures`` has rows), band hashes and sketch (where ``hashes`` has) of what is not hard."""
    word_ngram, char_ngram, min_words, bands, rows = shape
    longest = _longest(offsets, first, last)
    points = np.empty(longest, np.uint32)
    tokens = np.empty(longest, np.uint64)
    found = np.empty(longest, np.uint64)
    signature = np.empty(len(multipliers), np.uint32)
    for row in range(first, last):
        length = fold(data, offsets[row], offsets[row + 1], table, strict, points)
        hard[row] = length < 0
        if length < 0:
            continue
        number = shingles(points, length, word_ngram, char_ngram, min_words, tokens, found)
        sign(found, number, multipliers, addends, signature)
        if len(signatures):
            signatures[row] = signature
        if len(hashes):
            band(signature, bands, rows, hashes[row])
            sketch(signature, sketches[row])


@compiled
def shingle_rows(data, offsets, first, last, table, strict, shape, out, lengths, hard):
    """The sorted set of each row's shingles at its own byte offset plus row number of ``out``, with its size."""
    word_ngram, char_ngram, min_words = shape
    longest = _longest(offsets, first, last)
    points = np.empty(longest, np.uint32)
    tokens = np.empty(longest, np.uint64)
    found = np.empty(longest, np.uint64)
    for row in range(first, last):
        length = fold(data, offsets[row], offsets[row + 1], table, strict, points)
        hard[row] = length < 0
        if length < 0:
            continue
        number = shingles(points, length, word_ngram, char_ngram, min_words, tokens, found)
        found[:number].sort()
        place = offsets[row] + row
        kept = 0
        for index in range(number):
            if index == 0 or found[index] != found[index - 1]:
                out[place + kept] = found[index]
                kept += 1
        lengths[row] = kept


@compiled
def compact(values, offsets, lengths, out, ends):
    """Close the gaps that ``shingle_rows`` left."""
    at = 0
    for row in range(len(lengths)):
        place = offsets[row] + row
        for index in range(lengths[row]):
            out[at + index] = values[place + index]
        at += lengths[row]
        ends[row + 1] = at


@compiled
def shared_counts(values, offsets, first, second, begin, end, out):
    """Number of elements that two sorted sets share, for each pair."""
    for pair in range(begin, end):
        one, one_end = offsets[first[pair]], offsets[first[pair] + 1]
        other, other_end = offsets[second[pair]], offsets[second[pair] + 1]
        shared = 0
        while one < one_end and other < other_end:
            left, right = values[one], values[other]
            shared += left == right
            one += left <= right
            other += right <= left
        out[pair] = shared


@compiled
def _ones(word):
    """Number of bits set."""
    word -= (word >> np.uint64(1)) & np.uint64(0x5555555555555555)
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (word * np.uint64(0x0101010101010101)) >> np.uint64(56)


@compiled
def _differ(sketches, one, other):
    """Number of places in which two sketches differ."""
    return _ones(sketches[one, 0] ^ sketches[other, 0]) + _ones(sketches[one, 1] ^ sketches[other, 1])


@compiled
def perhaps_repeated(hashes, shift, seen, out):
    """Places of hashes whose bits above ``shift`` occur twice, how many of them; ``seen`` counts up to 2."""
    for place in range(len(hashes)):
        cell = hashes[place] >> shift
        seen[cell] = min(seen[cell] + 1, 2)
    count = 0
    for place in range(len(hashes)):
        if seen[hashes[place] >> shift] > 1:
            out[count] = place
            count += 1
    return count


@compiled
def bucket_pairs(starts, hot, members, sketches, allowed, first, second):
    """Pairs of each bucket whose sketches differ in at most ``allowed`` places; how many.

    In a hot bucket members, which stand in the order of their sketches, gather behind leaders: the first whose sketch
    is near enough, else a member leads itself. Everyone is then paired with the lowest member behind the same leader.
    With empty ``first`` pairs are only counted.
    """
    count = 0
    fill = len(first) > 0
    for bucket in range(len(starts) - 1):
        begin, end = starts[bucket], starts[bucket + 1]
        if not hot[bucket]:
            for one in range(begin, end):
                for other in range(one + 1, end):
                    if _differ(sketches, one, other) <= allowed:
                        if fill:
                            first[count] = min(members[one], members[other])
                            second[count] = max(members[one], members[other])
                        count += 1
            continue
        leaders = np.empty(end - begin, np.int64)
        best = np.empty(end - begin, np.int64)
        behind = np.empty(end - begin, np.int64)
        num_leaders = 0
        for one in range(begin, end):
            chosen = num_leaders
            for place in range(num_leaders):
                if _differ(sketches, leaders[place], one) <= allowed:
                    chosen = place
                    break
            if chosen == num_leaders:
                leaders[chosen], best[chosen] = one, members[one]
                num_leaders += 1
            best[chosen] = min(best[chosen], members[one])
            behind[one - begin] = chosen
        for one in range(begin, end):
            lowest = best[behind[one - begin]]
            if members[one] != lowest:
                if fill:
                    first[count], second[count] = lowest, members[one]
                count += 1
    return count


@compiled
def unite(parents, first, second):
    """Merge the sets of each pair; a set's root is its lowest member. Paths are halved on the way."""
    for pair in range(len(first)):
        one, other = first[pair], second[pair]
        while parents[one] != one:
            parents[one] = parents[parents[one]]
            one = parents[one]
        while parents[other] != other:
            parents[other] = parents[parents[other]]
            other = parents[other]
        if one < other:
            parents[other] = one
        elif other < one:
            parents[one] = other


@compiled
def settle_roots(parents):
    """Point every member straight at its root: parents are never above their children, so one pass does it."""
    for one in range(len(parents)):
        parents[one] = parents[parents[one]]


@compiled
def take_neighbours(first, second, num_fixed, keepers):
    """Let each record that has no keeper yet take its neighbours that have none; pairs in order of ``first``."""
    for pair in range(len(first)):
        one, other = first[pair], second[pair]
        # Sorted pairs: all that could remove ``one`` have been seen when it is looked at as a keeper.
        if other >= num_fixed and keepers[one] < 0 and keepers[other] < 0:
            keepers[other] = one


@compiled
def near_any(old_starts, old_sketches, new_starts, new_sketches, allowed, out):
    """Whether the sketch of each old member of a bucket is near enough to that of any new member."""
    for bucket in range(len(old_starts) - 1):
        for old in range(old_starts[bucket], old_starts[bucket + 1]):
            for new in range(new_starts[bucket], new_starts[bucket + 1]):
                low = _ones(old_sketches[old, 0] ^ new_sketches[new, 0])
                if low + _ones(old_sketches[old, 1] ^ new_sketches[new, 1]) <= allowed:
                    out[old] = True
                    break


@compiled
def reach(sketches, reached, allowed):
    """Mark all members of a bucket to which near enough sketches lead, step by step, from those marked already."""
    waiting = np.empty(len(sketches), np.int64)
    number = 0
    for one in range(len(sketches)):
        if reached[one]:
            waiting[number] = one
            number += 1
    while number:
        number -= 1
        one = waiting[number]
        for other in range(len(sketches)):
            if not reached[other] and _differ(sketches, one, other) <= allowed:
                reached[other] = True
                waiting[number] = other
                number += 1
