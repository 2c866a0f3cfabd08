"""Korean driver's licence numbers."""

import re
from collections.abc import Iterator

from curation.pii import KINDS
from curation.pii.kind import Found, Kind
from curation.pii.surroundings import NUMBERS, Words, inside

_SHAPE = re.compile(r"(?<![0-9A-Za-z_.+\-/])(?:1[1-9]|2[0-68])-[0-9]{2}-[0-9]{6}-[0-9]{2}(?![0-9A-Za-z_\-/]|[.,][0-9])")
_WORDS = Words("면허 운전면허 면허번호 licence license driver", against="")


def _check(text: str, start: int, end: int) -> Iterator[Found]:
    """Region 11 to 26 or 28, year, serial, check digits by a rule that is not public."""
    for match in inside(_SHAPE, text, start, end):
        yield Found(match.start(), match.end(), 0.95 if _WORDS.before(text, match.start()) > 0 else 0.7)


KINDS.register("kr_driver_license")(Kind(tag="KR_DRIVER_LICENSE", pattern=NUMBERS, num_digits=12, check=_check))
