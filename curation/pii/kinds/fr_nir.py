"""French social security numbers (NIR)."""

import re
from collections.abc import Iterator

from curation.pii import KINDS
from curation.pii.checksums import digits_of
from curation.pii.kind import Found, Kind
from curation.pii.surroundings import NUMBERS, inside

_SHAPE = re.compile(
    r"(?<![0-9A-Za-z_.+\-/])[12][ ]?[0-9]{2}[ ]?(?:0[1-9]|1[0-2]|[2-4][0-9])[ ]?[0-9]{2}[ ]?[0-9]{3}[ ]?"
    r"[0-9]{3}[ ]?[0-9]{2}"
    r"(?![0-9A-Za-z_\-/]|[.,][0-9])"
)


def _check(text: str, start: int, end: int) -> Iterator[Found]:
    """Sex, year and month of birth, place, order, 97 less the number modulo 97 (INSEE). Not Corsica's letters."""
    for match in inside(_SHAPE, text, start, end):
        digits = digits_of(match[0])
        if 97 - int(digits[:13]) % 97 == int(digits[13:]):
            yield Found(match.start(), match.end(), 0.95, checksum=True)


KINDS.register("fr_nir")(Kind(tag="FR_NIR", pattern=NUMBERS, num_digits=15, check=_check))
