"""British NHS numbers."""

import re
from collections.abc import Iterator

from curation.pii import KINDS
from curation.pii.checksums import digits_of, weighted
from curation.pii.kind import Found, Kind
from curation.pii.surroundings import NUMBERS, Words, inside

_SHAPE = re.compile(r"(?<![0-9A-Za-z_.+\-/])[0-9]{3}([ \-]?)[0-9]{3}\1[0-9]{4}(?![0-9A-Za-z_\-/]|[.,][0-9])")
_WORDS = Words("nhs patient")


def _check(text: str, start: int, end: int) -> Iterator[Found]:
    """Ten digits, weights 10 to 2 modulo 11. One number in eleven holds, and phones look alike: a word must say it."""
    for match in inside(_SHAPE, text, start, end):
        digits = digits_of(match[0])
        if (11 - weighted(digits[:9], range(10, 1, -1)) % 11) % 11 == int(digits[9]):
            said = _WORDS.before(text, match.start()) > 0
            yield Found(match.start(), match.end(), 0.97 if said else 0.3, checksum=True)


KINDS.register("uk_nhs")(Kind(tag="UK_NHS", pattern=NUMBERS, num_digits=10, check=_check))
