"""JSON web tokens (RFC 7519)."""

import base64
import binascii
import json
from collections.abc import Iterator

from curation.pii import KINDS
from curation.pii.kind import Found, Kind


def _check(text: str, start: int, end: int) -> Iterator[Found]:
    """The first part must be a JSON object that names an algorithm (RFC 7515, section 4.1.1)."""
    head = text[start:end].partition(".")[0]
    try:
        header = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return
    if isinstance(header, dict) and "alg" in header:
        yield Found(start, end, 0.98)


KINDS.register("jwt")(
    Kind(
        tag="JWT",
        pattern=r"(?-u:\beyJ[A-Za-z0-9_\-]{5,}\.[A-Za-z0-9_\-]{5,}\.[A-Za-z0-9_\-]*)",
        check=_check,
        canonical=str,
        keep_first=3,
    )
)
