"""Singaporean NRIC and FIN numbers."""

from collections.abc import Iterator

from curation.pii import KINDS
from curation.pii.checksums import weighted
from curation.pii.kind import Found, Kind

_LETTERS = {
    "S": (0, "JZIHGFEDCBA"),
    "T": (4, "JZIHGFEDCBA"),
    "F": (0, "XWUTRQPNMLK"),
    "G": (4, "XWUTRQPNMLK"),
    "M": (3, "XWUTRQPNJLK"),
}
"""Offset and check letters by the first letter: citizens and foreigners of both centuries, foreigners since 2022."""


def _check(text: str, start: int, end: int) -> Iterator[Found]:
    """Weights 2 7 6 5 4 3 2 and an offset, modulo 11, name the last letter."""
    value = text[start:end].upper()
    offset, table = _LETTERS[value[0]]
    place = (offset + weighted(value[1:8], (2, 7, 6, 5, 4, 3, 2))) % 11
    if table[10 - place if value[0] == "M" else place] == value[8]:
        yield Found(start, end, 0.9, checksum=True)


KINDS.register("sg_nric")(Kind(tag="SG_NRIC", pattern=r"(?-u:\b[STFGM][0-9]{7}[A-Z]\b)", check=_check, keep_last=4))
