"""Korean resident and foreigner registration numbers."""

import re
from collections.abc import Iterator

from curation.pii import KINDS
from curation.pii.checksums import digits_of, is_date, weighted
from curation.pii.kind import Found, Kind
from curation.pii.surroundings import NUMBERS, Words, inside

_SHAPE = re.compile(r"(?<![0-9A-Za-z_.+\-/])[0-9]{6}[ ]?[\-\u2010-\u2013]?[ ]?[0-9]{7}(?![0-9A-Za-z_\-/]|[.,][0-9])")
_WORDS = Words("주민 주민번호 주민등록번호 외국인등록번호 생년월일 rrn resident registration 住民")
_CENTURY = {
    "1": 1900,
    "2": 1900,
    "3": 2000,
    "4": 2000,
    "5": 1900,
    "6": 1900,
    "7": 2000,
    "8": 2000,
    "9": 1800,
    "0": 1800,
}
_WEIGHTS = (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)


def _check(text: str, start: int, end: int) -> Iterator[Found]:
    """Date of birth, century and sex, check digit.

    Numbers given since October 2020 have six digits by lot behind the seventh, of which none is a check digit
    (enforcement rules of the Resident Registration Act, 2020). So one that does not hold speaks against a number only
    where nothing else speaks for it: neither the hyphen nor a word before.
    """
    for match in inside(_SHAPE, text, start, end):
        digits = digits_of(match[0])
        if not is_date(_CENTURY[digits[6]] + int(digits[:2]), int(digits[2:4]), int(digits[4:6])):
            continue
        said = _WORDS.before(text, match.start())
        foreigner = digits[6] in "5678"
        holds = ((13 if foreigner else 11) - weighted(digits, _WEIGHTS) % 11) % 10 == int(digits[12])
        hyphen = not match[0].isdigit()
        if said > 0:
            confidence = 0.98 if holds else 0.9
        elif hyphen:
            confidence = 0.95 if holds else 0.75
        else:
            confidence = 0.6 if holds and said == 0 and digits[6] in "12345678" else 0.2
        yield Found(match.start(), match.end(), confidence, checksum=holds)


KINDS.register("kr_resident_number")(Kind(tag="KR_RESIDENT_NUMBER", pattern=NUMBERS, num_digits=13, check=_check))
