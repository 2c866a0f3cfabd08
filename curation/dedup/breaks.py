# mypy: disallow-untyped-decorators=False, disallow-untyped-defs=False
"""Where a text may be cut: between characters as readers see them, and between sentences."""

import functools
import sys
import unicodedata

import numpy as np
import polars as pl

from curation.dedup.rows import Utf8
from curation.dedup.substring_kernels import GRAPHEME, SENTENCE, compiled, decode
from curation.tokens import Ragged

(_OTHER, _CONTROL, _CR, _LF, _EXTEND, _VIRAMA, _SPACING, _PREPEND, _ZWJ, _FLAG, _L, _V, _T, _LV, _LVT) = range(15)
(_ANY, _LINE, _SPACE, _PASSED, _POINT, _CALL, _STOP, _CLOSE, _CONTINUE, _LOWER, _UPPER, _LETTER, _THAI) = range(13)

_GRAPHEME_CLASSES = {
    "Control": _CONTROL,
    "CR": _CR,
    "LF": _LF,
    "Extend": _EXTEND,
    "SpacingMark": _SPACING,
    "Prepend": _PREPEND,
    "ZWJ": _ZWJ,
    "Regional_Indicator": _FLAG,
    "L": _L,
    "V": _V,
    "T": _T,
    "LV": _LV,
    "LVT": _LVT,
}
_SENTENCE_CLASSES = {
    "Sep": _LINE,
    "CR": _LINE,
    "LF": _LINE,
    "Sp": _SPACE,
    "Extend": _PASSED,
    "Format": _PASSED,
    "ATerm": _POINT,
    "STerm": _STOP,
    "Close": _CLOSE,
    "SContinue": _CONTINUE,
    "Lower": _LOWER,
    "Upper": _UPPER,
    "OLetter": _LETTER,
}


def mark_breaks(texts: Utf8) -> Ragged:
    """Flags of every place of every text, the last behind its last character: where it may be cut.

    Clusters are those of Unicode, but that two flags are never parted and nothing is cut after a zero-width joiner or,
    before a letter, after a virama. Sentences end with a line; after 。！？ and their like in any script; after ``!``
    and ``?`` with white space or a letter without case (Hangul) behind; so too after a full stop unless a lower case
    letter follows, so that 3.14, U.S. and "e.g. this" stay whole; and in Thai and Lao at a space between letters.
    Closing quotes, closing brackets and white space belong to the sentence before them.

    Returns
    -------
    Rows of one value more than the text has characters; each row's first and last allow every cut.

    References
    ----------
    Unicode Standard Annex 29, sections 3.1.1 (clusters) and 5.1 (sentences, from which the above differs where it says
    so: no end of a sentence inside "c?d" or "end.Next"; Thai).
    """
    counts = np.empty(len(texts), dtype=np.int64)
    _count_characters(texts.data, texts.offsets, counts)
    offsets = np.zeros(len(texts) + 1, dtype=np.int64)
    np.cumsum(counts + 1, out=offsets[1:])
    flags = np.zeros(int(offsets[-1]), dtype=np.uint8)
    _mark(texts.data, texts.offsets, _classes(), offsets, flags)
    return Ragged(flags, offsets)


def extends(character: str) -> bool:
    """Whether a character belongs to the one before it, whichever that is, unless a line or control character."""
    return int(_classes()[ord(character)] & 15) in (_EXTEND, _VIRAMA, _SPACING, _ZWJ)


@functools.cache
def _classes() -> np.ndarray:
    """For every code point its class of cluster and, times 16, of sentence."""
    everything = np.delete(np.arange(sys.maxunicode + 1, dtype="<u4"), np.arange(0xD800, 0xE000))
    line = pl.lit(everything.tobytes().decode("utf-32-le"))

    def such(pattern: str) -> np.ndarray:
        found: str = pl.select(line.str.extract_all(f"{pattern}+").list.join("")).item()
        return np.frombuffer(found.encode("utf-32-le"), dtype="<u4")

    clusters = np.zeros(sys.maxunicode + 1, dtype=np.uint8)
    sentences = np.zeros(sys.maxunicode + 1, dtype=np.uint8)
    for name, value in _GRAPHEME_CLASSES.items():
        clusters[such(rf"\p{{gcb={name}}}")] = value
    for name, value in _SENTENCE_CLASSES.items():
        sentences[such(rf"\p{{sb={name}}}")] = value
    viramas = [point for point in such(r"\p{M}").tolist() if unicodedata.combining(chr(point)) == 9]
    clusters[viramas] = _VIRAMA
    sentences[[ord("!"), ord("?")]] = _CALL
    # An opening bracket begins what follows, even right behind a 。 (Unicode has it close).
    sentences[such(r"\p{Ps}")] = _ANY
    spaced = such(r"[\p{Thai}\p{Lao}]")
    sentences[spaced[sentences[spaced] == _LETTER]] = _THAI
    return clusters | sentences << 4


@compiled
def _count_characters(data, offsets, counts):
    for row in range(len(offsets) - 1):
        count = 0
        for byte in range(offsets[row], offsets[row + 1]):
            count += (data[byte] & 0xC0) != 0x80
        counts[row] = count


@compiled
def _joined(before, after, after_virama):
    """Whether two neighbours are of one cluster, by their classes; in doubt they are."""
    if before == _CR and after == _LF:
        return True
    if before in (_CONTROL, _CR, _LF) or after in (_CONTROL, _CR, _LF):
        return False
    if after in (_EXTEND, _VIRAMA, _SPACING, _ZWJ) or before in (_PREPEND, _ZWJ):
        return True
    if before == _FLAG and after == _FLAG:
        return True
    if before == _L:
        return after in (_L, _V, _LV, _LVT)
    if before in (_V, _LV):
        return after in (_V, _T)
    if before in (_T, _LVT):
        return after == _T
    return after_virama


@compiled
def _lower_follows(data, at, stop, classes):
    """Whether the first letter before the next end of a sentence is a lower case one."""
    while at < stop:
        point, at = decode(data, at)
        sentence = classes[point] >> 4
        if sentence == _LOWER:
            return True
        if sentence in (_UPPER, _LETTER, _THAI, _LINE, _POINT, _CALL, _STOP):
            return False
    return False


@compiled
def _mark(data, offsets, classes, flag_offsets, flags):
    for row in range(len(offsets) - 1):
        at, stop, place = offsets[row], offsets[row + 1], flag_offsets[row]
        flags[place] = GRAPHEME | SENTENCE
        flags[flag_offsets[row + 1] - 1] = GRAPHEME | SENTENCE
        before, virama, line, thai, ended, spaced = _CONTROL, False, False, False, _ANY, False
        while at < stop:
            point, after = decode(data, at)
            cluster, sentence = classes[point] & 15, classes[point] >> 4
            letter = sentence in (_LOWER, _UPPER, _LETTER, _THAI)
            if at > offsets[row] and not _joined(before, cluster, virama and letter):
                flags[place] |= GRAPHEME
                if line or (thai and spaced and sentence == _THAI):
                    flags[place] |= SENTENCE
                elif ended != _ANY and sentence not in (_LINE, _SPACE, _POINT, _CALL, _STOP, _CONTINUE, _PASSED):
                    # Closing marks belong to the sentence unless a space has come: then they open the next.
                    caseless = sentence in (_LETTER, _THAI)
                    if sentence == _CLOSE and not spaced:
                        pass
                    elif (
                        ended == _STOP
                        or caseless
                        or (spaced and ended == _CALL)
                        or (spaced and not _lower_follows(data, at, stop, classes))
                    ):
                        flags[place] |= SENTENCE
            before = cluster
            virama = cluster == _VIRAMA or (virama and cluster in (_EXTEND, _ZWJ))
            line = sentence == _LINE
            if sentence in (_POINT, _CALL, _STOP):
                ended, spaced = sentence, False
            elif sentence == _SPACE:
                spaced = True
            elif sentence != _PASSED and not (sentence == _CLOSE and not spaced):
                ended, spaced = _ANY, False
            if sentence not in (_SPACE, _PASSED):
                thai = sentence == _THAI
            at, place = after, place + 1
