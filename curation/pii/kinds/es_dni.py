"""Spanish identity numbers: DNI, and NIE of foreigners."""

from collections.abc import Iterator

from curation.pii import KINDS
from curation.pii.checksums import digits_of
from curation.pii.kind import Found, Kind, plain
from curation.pii.surroundings import Words

_WORDS = Words("dni nie nif documento identidad cif", against="")


def _check(text: str, start: int, end: int) -> Iterator[Found]:
    """Eight digits, or X, Y, Z for 0, 1, 2 and seven, and the letter of the number modulo 23 (Interior Ministry)."""
    if start and text[start - 1] in ("/", ".", "-", "_"):
        return
    value = plain(text[start:end])
    number = {"X": "0", "Y": "1", "Z": "2"}.get(value[0], "") + digits_of(value)
    if "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23] == value[-1]:
        sure = _WORDS.before(text, start) > 0 or value[0] in "XYZ"
        yield Found(start, end, 0.95 if sure else 0.6, checksum=True)


KINDS.register("es_dni")(
    Kind(tag="ES_DNI", pattern=r"(?-u:\b(?:[0-9]{8}|[XYZ]-?[0-9]{7})-?[A-HJ-NP-TV-Z]\b)", check=_check)
)
