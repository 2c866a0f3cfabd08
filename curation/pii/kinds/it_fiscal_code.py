"""Italian fiscal codes of persons."""

from collections.abc import Iterator

from curation.pii import KINDS
from curation.pii.kind import Found, Kind

_ODD = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)


def _place(character: str) -> int:
    return int(character) if character.isdigit() else ord(character) - ord("A")


def _check(text: str, start: int, end: int) -> Iterator[Found]:
    """The last letter by decree of 23 December 1976: odd places by a table, even ones as they are, modulo 26."""
    value = text[start:end].upper()
    total = sum(_ODD[_place(one)] for one in value[:15:2]) + sum(_place(one) for one in value[1:15:2])
    if ord(value[15]) - ord("A") == total % 26:
        yield Found(start, end, 0.97, checksum=True)


_DIGIT = "[0-9LMNPQRSTUVlmnpqrstuv]"
"""Letters stand for digits where two persons would have one code."""

KINDS.register("it_fiscal_code")(
    Kind(
        tag="IT_FISCAL_CODE",
        pattern=rf"(?-u:\b[A-Za-z]{{6}}{_DIGIT}{{2}}[A-EHLMPR-Ta-ehlmpr-t]{_DIGIT}{{2}}[A-Za-z]{_DIGIT}{{3}}[A-Za-z]\b)",
        check=_check,
    )
)
