"""US individual taxpayer identification numbers."""

import re
from collections.abc import Iterator

from curation.pii import KINDS
from curation.pii.kind import Found, Kind
from curation.pii.surroundings import NUMBERS, Words, inside

_SHAPE = re.compile(
    r"(?<![0-9A-Za-z_.+\-/])9[0-9]{2}([ \-]?)(?:5[0-9]|6[0-5]|7[0-9]|8[0-8]|9[0-24-9])\1[0-9]{4}"
    r"(?![0-9A-Za-z_\-/]|[.,][0-9])"
)
_WORDS = Words("itin taxpayer tin tax ssn")


def _check(text: str, start: int, end: int) -> Iterator[Found]:
    """9xx, then 50 to 65, 70 to 88, 90 to 92 or 94 to 99 (IRS publication 1915)."""
    for match in inside(_SHAPE, text, start, end):
        said = _WORDS.before(text, match.start())
        plain = match[0].isdigit()
        yield Found(match.start(), match.end(), 0.9 if said > 0 else 0.1 if plain or said < 0 else 0.6)


KINDS.register("us_itin")(Kind(tag="US_ITIN", pattern=NUMBERS, num_digits=9, check=_check))
