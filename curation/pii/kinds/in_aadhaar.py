"""Indian Aadhaar numbers."""

import re
from collections.abc import Iterator

from curation.pii import KINDS
from curation.pii.checksums import digits_of
from curation.pii.kind import Found, Kind
from curation.pii.surroundings import NUMBERS, Words, inside

_SHAPE = re.compile(r"(?<![0-9A-Za-z_.+\-/])[2-9][0-9]{3}([ \-]?)[0-9]{4}\1[0-9]{4}(?![ \-]?[0-9]|[A-Za-z_])")
_BEFORE = re.compile(r"[0-9][ \-]$")
_WORDS = Words("aadhaar aadhar uidai uid आधार")
_STEP = ("0123456789", "1576283094", "5803796142", "8916043527", "9453126870", "4286573901", "2793806415", "7046913258")
"""How the digit at a place is permuted (Verhoeff 1969); places repeat after eight."""


def _times(a: int, b: int) -> int:
    """The group of a pentagon's symmetries: 0 to 4 turn, 5 to 9 reflect."""
    if a < 5:
        return (a + b) % 5 if b < 5 else 5 + (a + b - 5) % 5
    return 5 + (a - 5 - b) % 5 if b < 5 else (a - b) % 5


def verhoeff(digits: str) -> bool:
    """Whether the last digit is right (Verhoeff 1969, Error Detecting Decimal Codes).

    >>> verhoeff("2363"), verhoeff("2364")
    (True, False)
    """
    check = 0
    for place, digit in enumerate(reversed(digits)):
        check = _times(check, int(_STEP[place % 8][int(digit)]))
    return check == 0


def _check(text: str, start: int, end: int) -> Iterator[Found]:
    """Twelve digits, the first from 2, the last by Verhoeff's rule (UIDAI).

    One in ten holds, and invoices are grouped alike: a word must say it.
    """
    for match in inside(_SHAPE, text, start, end):
        if _BEFORE.search(text, max(0, match.start() - 2), match.start()) or not verhoeff(digits_of(match[0])):
            continue
        said = _WORDS.before(text, match.start()) > 0
        yield Found(match.start(), match.end(), 0.95 if said else 0.45 if match[1] else 0.2, checksum=True)


KINDS.register("in_aadhaar")(Kind(tag="IN_AADHAAR", pattern=NUMBERS, num_digits=12, check=_check, keep_last=4))
