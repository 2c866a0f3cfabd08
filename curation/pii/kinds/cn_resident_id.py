"""Resident identity numbers of mainland China (GB 11643-1999)."""

from collections.abc import Iterator

from curation.pii import KINDS
from curation.pii.checksums import is_date, weighted
from curation.pii.kind import Found, Kind

_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)


def _check(text: str, start: int, end: int) -> Iterator[Found]:
    """Province, date of birth, and the check character of ISO 7064, MOD 11-2."""
    value = text[start:end].upper()
    known = value[0] in "12345689" and is_date(int(value[6:10]), int(value[10:12]), int(value[12:14]))
    if known and "10X98765432"[weighted(value, _WEIGHTS) % 11] == value[17]:
        yield Found(start, end, 0.95, checksum=True)


KINDS.register("cn_resident_id")(
    Kind(tag="CN_RESIDENT_ID", pattern=r"(?-u:\b[1-9][0-9]{5}(?:18|19|20)[0-9]{9}[0-9Xx]\b)", check=_check)
)
