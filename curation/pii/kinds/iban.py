"""International bank account numbers (ISO 13616)."""

import re
from collections.abc import Iterator

from curation.pii import KINDS
from curation.pii.checksums import digits_of, mod97
from curation.pii.kind import Found, Kind, plain

_LENGTHS = {
    **dict.fromkeys(["NO"], 15),
    **dict.fromkeys(["BE"], 16),
    **dict.fromkeys(["DK", "FI", "FK", "FO", "GL", "NL", "SD"], 18),
    **dict.fromkeys(["MK", "SI"], 19),
    **dict.fromkeys(["AT", "BA", "EE", "KZ", "LT", "LU", "MN", "XK"], 20),
    **dict.fromkeys(["CH", "HR", "LI", "LV"], 21),
    **dict.fromkeys(["BG", "BH", "CR", "DE", "GB", "GE", "IE", "ME", "RS", "VA"], 22),
    **dict.fromkeys(["AE", "GI", "IL", "IQ", "OM", "SO", "TL"], 23),
    **dict.fromkeys(["AD", "CZ", "ES", "MD", "PK", "RO", "SA", "SE", "SK", "TN", "VG"], 24),
    **dict.fromkeys(["LY", "PT", "ST"], 25),
    **dict.fromkeys(["IS", "TR"], 26),
    **dict.fromkeys(["BI", "DJ", "FR", "GR", "IT", "MC", "MR", "SM"], 27),
    **dict.fromkeys(["AL", "AZ", "BY", "CY", "DO", "GT", "HU", "LB", "NI", "PL", "SV"], 28),
    **dict.fromkeys(["BR", "EG", "PS", "QA", "UA"], 29),
    **dict.fromkeys(["JO", "KW", "MU", "YE"], 30),
    **dict.fromkeys(["MT", "SC"], 31),
    **dict.fromkeys(["LC"], 32),
    **dict.fromkeys(["RU"], 33),
}
"""Characters by country, of the SWIFT IBAN registry."""
_ALNUM = re.compile("[A-Za-z0-9]")


def _check(text: str, start: int, end: int) -> Iterator[Found]:
    length = _LENGTHS.get(text[start : start + 2].upper())
    places = [start + match.start() for match in _ALNUM.finditer(text[start:end])]
    if length is None or len(places) < length:
        return
    stop = places[length - 1] + 1
    value = plain(text[start:stop])
    # What follows must not belong to it: the candidate may have run on into the next word.
    if _ALNUM.match(text, stop) or len(digits_of(value)) < 8 or mod97(value[4:] + value[:4]) != 1:
        return
    yield Found(start, stop, 0.99, checksum=True)


KINDS.register("iban")(
    Kind(
        tag="IBAN",
        pattern=r"(?-u:\b[A-Za-z]{2}[0-9]{2}[ \-]?[A-Za-z0-9]{4}(?:[ \-]?[A-Za-z0-9]{1,4}){1,8})",
        check=_check,
        keep_first=2,
        keep_last=4,
    )
)
