"""Japanese individual numbers ("My Number")."""

import re
from collections.abc import Iterator

from curation.pii import KINDS
from curation.pii.checksums import digits_of, weighted
from curation.pii.kind import Found, Kind
from curation.pii.surroundings import NUMBERS, Words, inside

_SHAPE = re.compile(r"(?<![0-9A-Za-z_.+\-/])[0-9]{4}([ \-]?)[0-9]{4}\1[0-9]{4}(?![ \-]?[0-9]|[A-Za-z_])")
_WORDS = Words("マイナンバー 個人番号 mynumber", against="")


def _check(text: str, start: int, end: int) -> Iterator[Found]:
    """Twelve digits, the last by ordinance 85 of 2014, article 5. One in eleven holds: a word must say it."""
    for match in inside(_SHAPE, text, start, end):
        digits = digits_of(match[0])
        rest = weighted(digits, (6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2)) % 11
        if int(digits[11]) == (0 if rest <= 1 else 11 - rest):
            said = _WORDS.before(text, match.start()) > 0
            yield Found(match.start(), match.end(), 0.95 if said else 0.2, checksum=True)


KINDS.register("jp_my_number")(Kind(tag="JP_MY_NUMBER", pattern=NUMBERS, num_digits=12, check=_check))
