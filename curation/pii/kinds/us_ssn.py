"""US social security numbers."""

import re
from collections.abc import Iterator

from curation.pii import KINDS
from curation.pii.checksums import digits_of
from curation.pii.kind import Found, Kind
from curation.pii.surroundings import NUMBERS, Words, inside

_SHAPE = re.compile(
    r"(?<![0-9A-Za-z_.+\-/])(?:[0-9]{3}([ \-\u2010-\u2013])[0-9]{2}\1[0-9]{4}|[0-9]{9})(?![0-9A-Za-z_\-/]|[.,][0-9])"
)
_WORDS = Words("ssn ssns social security soc taxpayer")
_NOBODYS = frozenset({"078051120", "219099999", "123456789"})
"""Of a wallet's insert and of a pamphlet, which many have copied; and what people type."""


def _check(text: str, start: int, end: int) -> Iterator[Found]:
    """Area not 000, 666 or from 900, group not 00, serial not 0000 (SSA, randomization of 2011)."""
    for match in inside(_SHAPE, text, start, end):
        digits = digits_of(match[0])
        area, group, serial = digits[:3], digits[3:5], digits[5:]
        if area in ("000", "666") or area >= "900" or group == "00" or serial == "0000" or digits in _NOBODYS:
            continue
        said = _WORDS.before(text, match.start())
        if match[0].isdigit():
            confidence = 0.7 if said > 0 else 0.1
        else:
            confidence = 0.95 if said > 0 else 0.3 if said < 0 else 0.5 if " " in match[0] else 0.8
        yield Found(match.start(), match.end(), confidence)


KINDS.register("us_ssn")(Kind(tag="US_SSN", pattern=NUMBERS, num_digits=9, check=_check))
