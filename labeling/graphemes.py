"""Where a text may be cut: between characters as readers see them. Offsets count Unicode code points, half open.

A Hangul syllable of jamo, an emoji with its skin tone or its joined companions, a flag, a letter with its accents and a
line break of two characters are one character to a reader: an offset inside one points at nothing anybody sees.
"""

from itertools import pairwise


def is_boundary(text: str, at: int) -> bool:
    """Whether a text may be cut before its code point number ``at``, in [0, len(text)].

    References
    ----------
    Unicode Standard Annex 29, section 3.1.1 (extended grapheme clusters).

    Examples
    --------
    >>> flags = "🇰🇷🇯🇵"
    >>> [is_boundary(flags, at) for at in range(5)]
    [True, False, True, False, True]
    """
    if at in (0, len(text)):
        return True
    if text[at - 1].isascii() and text[at].isascii():
        return text[at - 1 : at + 1] != "\r\n"
    import regex

    begin = at - 1
    while begin > 0 and not _is_anchor(text[begin]):
        begin -= 1
    return any(found.start() == at - begin for found in regex.finditer(r"\X", text[begin : at + 1]))


def snapped(text: str, start: int, end: int) -> tuple[int, int]:
    """The smallest span that contains this one and cuts no character.

    Examples
    --------
    >>> snapped("ok👍🏽!", 2, 3)
    (2, 4)
    """
    while not is_boundary(text, start):
        start -= 1
    while not is_boundary(text, end):
        end += 1
    return start, end


def words(text: str) -> list[tuple[int, int]]:
    """Start and end of every word and mark of a text; white space lies between them.

    Scripts without spaces come character by character, as readers see characters: which of them form a word, only a
    dictionary knows.

    References
    ----------
    Unicode Standard Annex 29, section 4.1 (word boundaries).

    Examples
    --------
    >>> [text[a:b] for text in ["서울에서 만나요, 👩‍👧!"] for a, b in words(text)]
    ['서울에서', '만나요', ',', '👩‍👧', '!']
    """
    import regex

    cuts = [found.start() for found in regex.finditer(r"(?w)\b", text)]
    # Word boundaries part a flag or an emoji from what extends it in rare cases; characters are never cut.
    if not text.isascii():
        # Once over the text: one by one, a text of emoji alone would be gone through again for each of them.
        clusters = {found.start() for found in regex.finditer(r"\X", text)}
        cuts = [at for at in cuts if at in clusters]
    bounds = list(dict.fromkeys([0, *cuts, len(text)]))
    return [(start, end) for start, end in pairwise(bounds) if not text[start:end].isspace()]


def _is_anchor(char: str) -> bool:
    """Whether clusters behind this character do not depend on what stands before it. Flags, emoji and marks do."""
    return (
        char.isascii()
        or "\u00c0" <= char <= "\u024f"
        or "\u0400" <= char <= "\u0481"
        or "\u0e01" <= char <= "\u0e30"
        or "\u3041" <= char <= "\u3096"
        or "\u30a1" <= char <= "\u30fa"
        or "\u4e00" <= char <= "\u9fff"
        or "\uac00" <= char <= "\ud7a3"
    )
