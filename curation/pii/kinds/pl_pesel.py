"""Polish PESEL numbers."""

import re
from collections.abc import Iterator

from curation.pii import KINDS
from curation.pii.checksums import is_date, weighted
from curation.pii.kind import Found, Kind
from curation.pii.surroundings import NUMBERS, Words, inside

_SHAPE = re.compile(r"(?<![0-9A-Za-z_.+\-/])[0-9]{11}(?![0-9A-Za-z_\-/]|[.,][0-9])")
_WORDS = Words("pesel", against="")
_CENTURIES = (1900, 2000, 2100, 2200, 1800)
"""By twenties of the month."""


def _check(text: str, start: int, end: int) -> Iterator[Found]:
    """Date of birth with the century in the month, and weights 1 3 7 9 to ten (act of 24 September 2010)."""
    for match in inside(_SHAPE, text, start, end):
        value = match[0]
        century, month = divmod(int(value[2:4]), 20)
        born = is_date(_CENTURIES[century] + int(value[:2]), month, int(value[4:6]))
        if born and weighted(value, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1)) % 10 == 0:
            said = _WORDS.before(text, match.start()) > 0
            yield Found(match.start(), match.end(), 0.95 if said else 0.4, checksum=True)


KINDS.register("pl_pesel")(Kind(tag="PL_PESEL", pattern=NUMBERS, num_digits=11, check=_check))
