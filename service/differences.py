"""Where two texts differ, for people to see: runs that both have, and runs that only one of them has."""

import re
import unicodedata
from difflib import SequenceMatcher
from itertools import groupby, pairwise

Runs = list[tuple[str, str]]
"""Pieces of text in order, each with ``SHARED``, ``OWN`` (only this text has it) or ``MISSING`` (only the kept one)."""

SHARED, OWN, MISSING = "shared", "own", "missing"
CONTEXT_CHARS = 80
SPACELESS = re.compile(
    r"[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
ZERO_WIDTH_JOINER = "\u200d"
SKIN_TONES = "\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff"
FLAG_LETTERS = ("\U0001f1e6", "\U0001f1ff")


def differences(kept: str, other: str, *, num_pieces: int | None = None) -> Runs:
    """Cut ``other`` into runs, with what it lacks of ``kept`` in between; case, width and white space do not count.

    Parameters
    ----------
    num_pieces : of ``other`` that are looked at, from its beginning; twice as many of ``kept``, so that what it has
        before does not make the end of the other look like its own. None: all. Time grows with its square.

    Returns
    -------
    Runs of which all but the missing ones, joined, are ``other``.

    References
    ----------
    Ratcliff and Obershelp, as in ``difflib``: longest common block first. Not the shortest edit script.

    Examples
    --------
    >>> differences("order 12 is late", "Order 99 is late")
    [('Order ', 'shared'), ('12', 'missing'), ('99', 'own'), (' is late', 'shared')]
    """
    left, right = pieces(kept, num_pieces and 2 * num_pieces), pieces(other, num_pieces)
    # White space is no anchor: two texts that share nothing else would be cut up between their words.
    matcher = SequenceMatcher(str.isspace, [_key(one) for one in left], [_key(one) for one in right], autojunk=False)
    codes = matcher.get_opcodes()

    def is_shared(numbered: tuple[int, tuple[str, int, int, int, int]]) -> bool:
        number, (tag, _, _, start, end) = numbered
        at_an_end = number in (0, len(codes) - 1)
        return tag == "equal" and (at_an_end or not "".join(right[start:end]).isspace())

    runs: Runs = []
    for shared, group in groupby(enumerate(codes), key=is_shared):
        blocks = [code for _, code in group]
        lacked = "".join(left[blocks[0][1] : blocks[-1][2]])
        had = "".join(right[blocks[0][3] : blocks[-1][4]])
        if not shared and lacked.strip():
            runs.append((lacked, MISSING))
        if had:
            runs.append((had, OWN if not shared and had.strip() else SHARED))
    return [("".join(text for text, _ in run), kind) for kind, run in groupby(runs, key=lambda one: one[1])]


def excerpt(runs: Runs, num_chars: int) -> Runs:
    """Shorten what is shared, then the end, until about ``num_chars`` characters are left; ``…`` stands for the rest.

    Examples
    --------
    >>> excerpt([("a" * 300, "shared"), ("b", "own")], 250)[1:]
    [('b', 'own')]
    """
    if sum(len(text) for text, _ in runs) <= num_chars:
        return runs
    left = num_chars
    out: Runs = []
    for number, (text, kind) in enumerate(runs):
        if kind == SHARED and len(text) > 2 * CONTEXT_CHARS and len(runs) > 1:
            is_last = number == len(runs) - 1
            text = f"{text[:CONTEXT_CHARS]}…{'' if is_last else text[-CONTEXT_CHARS:]}"
        if len(text) > left:
            return [*out, (f"{text[:left]}…", kind)]
        out.append((text, kind))
        left -= len(text)
    return out


def pieces(text: str, most: int | None = None) -> list[str]:
    """Words, white space, flags, and single characters of all else and of scripts without spaces; ``most`` at most.

    What combines with a character is never parted from it: accents, vowel signs, the parts of one emoji.
    """
    starts: list[int] = []
    end, last = len(text), ""
    for at, char in enumerate(text):
        kind = _kind(char)
        joined = kind == "joined" or text[at - 1 : at] == ZERO_WIDTH_JOINER
        if starts and (joined or (kind == last and kind != "single")):
            continue
        if len(starts) == most:
            end = at
            break
        starts.append(at)
        last = kind
    return [text[start:stop] for start, stop in pairwise([*starts, end])]


def _kind(char: str) -> str:
    category = unicodedata.category(char)
    if category[0] == "M" or category == "Cf" or char in SKIN_TONES:
        return "joined"
    if SPACELESS.match(char):
        return "single"
    if char.isalnum() or char == "_":
        return "word"
    if char.isspace():
        return "space"
    return "flag" if FLAG_LETTERS[0] <= char <= FLAG_LETTERS[1] else "single"


def _key(piece: str) -> str:
    return " " if piece.isspace() else unicodedata.normalize("NFKC", piece).casefold()
