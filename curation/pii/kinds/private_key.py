"""Private keys in PEM (RFC 7468)."""

import re
from collections.abc import Iterator

from curation.pii import KINDS
from curation.pii.kind import Found, Kind

_LONGEST, _HEADER = 20_000, 45
"""Characters of a body (an RSA key of 16,384 bits has 12,500) and of the words before PRIVATE KEY."""
_LAST = re.compile(r"PRIVATE KEY(?: BLOCK)?-----")
_LOOSE = re.compile(r"(?:[ \t]*[A-Za-z0-9+/=\\]+\r?(?:\n|$))*")


def _check(text: str, start: int, end: int) -> Iterator[Found]:
    """From the first line to the last; where the last is missing, as far as the lines look like base64."""
    stop = text.find("-----END ", end)
    close = text.find("PRIVATE KEY", stop) if 0 <= stop - end <= _LONGEST else -1
    if 0 <= close - stop <= _HEADER:
        final = _LAST.match(text, close)
        if final:
            yield Found(start, final.end(), 0.99)
            return
    line = text[end:].lstrip(" \r\n")
    begin = len(text) - len(line) if line else end
    loose = _LOOSE.match(text, begin)
    body = loose[0].rstrip() if loose else ""
    yield Found(start, begin + len(body) if body else end, 0.9 if body else 0.6)


KINDS.register("private_key")(
    Kind(
        tag="PRIVATE_KEY",
        pattern=r"-----BEGIN (?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY(?: BLOCK)?-----",
        check=_check,
    )
)
