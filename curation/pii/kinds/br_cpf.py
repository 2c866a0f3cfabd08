"""Brazilian taxpayer numbers of persons (CPF)."""

import re
from collections.abc import Iterator

from curation.pii import KINDS
from curation.pii.checksums import digits_of, weighted
from curation.pii.kind import Found, Kind
from curation.pii.surroundings import NUMBERS, Words, inside

_SHAPE = re.compile(
    r"(?<![0-9A-Za-z_.+\-/])(?:[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}|[0-9]{11})(?![0-9A-Za-z_\-/]|[.,][0-9])"
)
_WORDS = Words("cpf cadastro", against="")


def _check(text: str, start: int, end: int) -> Iterator[Found]:
    """Two check digits modulo 11 (Receita Federal); without its signs only where a word says what it is."""
    for match in inside(_SHAPE, text, start, end):
        digits = digits_of(match[0])
        first = weighted(digits[:9], range(10, 1, -1)) * 10 % 11 % 10
        second = weighted(digits[:10], range(11, 1, -1)) * 10 % 11 % 10
        if len(set(digits)) > 1 and digits[9:] == f"{first}{second}":
            sure = not match[0].isdigit() or _WORDS.before(text, match.start()) > 0
            yield Found(match.start(), match.end(), 0.95 if sure else 0.2, checksum=True)


KINDS.register("br_cpf")(Kind(tag="BR_CPF", pattern=NUMBERS, num_digits=11, check=_check))
