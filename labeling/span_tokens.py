"""What a span tagger sees of a text: tokens with code-point offsets, and what each looks like in any script."""

import unicodedata
from dataclasses import dataclass

from labeling.graphemes import snapped, words

MAX_CHARS = 20_000
"""Of a text so many code points are read."""
AFFIX_CHARS = 4
SYLLABLES = 8
"""Of the rest of its word so many characters on each side are seen of a syllable."""
NEAR = (-2, -1, 1, 2)
"""Neighbours that a token is judged by beside itself."""


@dataclass(frozen=True, slots=True)
class Look:
    """A token as the tagger sees it; equal ones are judged alike.

    Parameters
    ----------
    text : of the token.
    gap : what stands before it: nothing, a space or a line's end.
    before, after : the rest of its word, at most 8 characters each, where a word is cut into syllables.
    """

    text: str
    gap: str
    before: str = ""
    after: str = ""


@dataclass(frozen=True, slots=True)
class Token:
    """Code points ``start`` up to ``end`` of a text."""

    start: int
    end: int
    look: Look


def tokens(text: str) -> list[Token]:
    """The words and marks of a text; Hangul syllable by syllable, since particles are written without a space.

    No token cuts a character as readers see it.

    Examples
    --------
    >>> [one.look.text for one in tokens("서울에서 K리그 2024, 👩‍👧!")]
    ['서', '울', '에', '서', 'K', '리', '그', '2024', ',', '👩‍👧', '!']
    """
    found: list[Token] = []
    last = 0
    for start, end in words(text[: snapped(text, min(len(text), MAX_CHARS), len(text))[0]]):
        between = text[last:start]
        gap = "\n" if "\n" in between else between[:1] and " "
        last = end
        for first, stop in _pieces(text, start, end):
            look = Look(
                text[first:stop],
                gap if first == start else "",
                text[max(start, first - SYLLABLES) : first],
                text[stop : min(end, stop + SYLLABLES)],
            )
            found.append(Token(first, stop, look))
    return found


def _pieces(text: str, start: int, end: int) -> list[tuple[int, int]]:
    if not any(_is_hangul(char) for char in text[start:end]):
        return [(start, end)]
    import regex

    cut: list[tuple[int, int]] = []
    was_hangul = True
    for found in regex.finditer(r"\X", text[start:end]):
        first, stop = start + found.start(), start + found.end()
        is_hangul = _is_hangul(text[first])
        if is_hangul or was_hangul:
            cut.append((first, stop))
        else:
            cut[-1] = (cut[-1][0], stop)
        was_hangul = is_hangul
    return cut


def _is_hangul(char: str) -> bool:
    return "\uac00" <= char <= "\ud7a3" or "\u1100" <= char <= "\u11ff"


def names(look: Look | None, place: int) -> tuple[str, ...]:
    """What is looked at in the token at a place beside the one that is judged (0: itself); None is outside the text."""
    if look is None:
        return (f"{place}outside",)
    low = look.text.casefold()
    brief = (f"w={low}", f"s={shape(look.text)}", f"c={_script(look.text[0])}", f"g={look.gap}", f"3={low[-3:]}")
    if place:
        return tuple(f"{place}{name}" for name in brief)
    most = min(AFFIX_CHARS, len(low) - 1)
    heads = [f"h={low[:size]}" for size in range(1, most + 1)]
    tails = [f"t={low[-size:]}" for size in range(1, most + 1)]
    if not look.before and not look.after:
        return ("any", *brief, *heads, *tails)
    # A syllable: where it stands in its word, and what follows, which may be a particle.
    word = (f"p={len(look.before)}", f"b={look.before[-2:]}", f"a={look.after}", f"a1={look.after[:1]}")
    return ("any", *brief, *word, f"e={look.before}{look.text}")


def pair_name(first: Look, second: Look, place: int) -> str:
    """Two neighbours, of which the one at a place (-1 or 1) is not the one that is judged."""
    return f"{place}|{first.text.casefold()}|{second.text.casefold()}"


def shape(text: str) -> str:
    """Kinds of letters in their order, each run once or, if longer, twice.

    >>> shape("McDonald"), shape("2024"), shape("서울"), shape("U.S.")
    ('XxXxx', 'dd', 'oo', 'X.X.')
    """
    kinds = []
    for char in text[:50]:
        kind = "d" if char.isdigit() else "X" if char.isupper() else "x" if char.islower() else char
        kinds.append("o" if kind == char and char.isalpha() and kind not in "dXx" else kind)
    return "".join(kind for at, kind in enumerate(kinds) if at < 2 or kinds[at - 2 : at] != [kind, kind])


def _script(char: str) -> str:
    return unicodedata.name(char, "other").split(" ", 1)[0].split("-", 1)[0]
