"""Korean business registration numbers: of a person, where the business is one person's."""

import re
from collections.abc import Iterator

from curation.pii import KINDS
from curation.pii.checksums import digits_of, weighted
from curation.pii.kind import Found, Kind
from curation.pii.surroundings import NUMBERS, Words, inside

_SHAPE = re.compile(r"(?<![0-9A-Za-z_.+\-/])[1-9][0-9]{2}(-?)[0-9]{2}\1[0-9]{5}(?![0-9A-Za-z_\-/]|[.,][0-9])")
_WORDS = Words("사업자 사업자번호 사업자등록번호 등록번호 business registration")


def _check(text: str, start: int, end: int) -> Iterator[Found]:
    """Office, kind, serial and the National Tax Service's check digit: weights 1 3 7 1 3 7 1 3 5, tens of the last."""
    for match in inside(_SHAPE, text, start, end):
        digits = digits_of(match[0])
        total = weighted(digits, (1, 3, 7, 1, 3, 7, 1, 3, 5)) + int(digits[8]) * 5 // 10
        if (10 - total % 10) % 10 != int(digits[9]):
            continue
        said = _WORDS.before(text, match.start()) > 0
        yield Found(match.start(), match.end(), 0.95 if said else 0.75 if match[1] else 0.2, checksum=True)


KINDS.register("kr_business_number")(Kind(tag="KR_BUSINESS_NUMBER", pattern=NUMBERS, num_digits=10, check=_check))
