"""Tokens of GitHub."""

from collections.abc import Iterator
from zlib import crc32

from curation.pii import KINDS
from curation.pii.kind import Found, Kind

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def base62(number: int, width: int) -> str:
    """A number in digits, capitals and small letters, with zeros in front.

    >>> base62(62, 3)
    '010'
    """
    places = ""
    for _ in range(width):
        number, rest = divmod(number, 62)
        places = _DIGITS[rest] + places
    return places


def _check(text: str, start: int, end: int) -> Iterator[Found]:
    """The last six characters are the CRC-32 of those behind the prefix (GitHub, Behind GitHub's new authentication
    token formats, 2021). Fine-grained tokens publish no such rule.
    """
    value = text[start:end]
    holds = None if value.startswith("github") else base62(crc32(value[4:-6].encode()), 6) == value[-6:]
    yield Found(start, end, 0.9 if holds is False else 0.99, holds)


KINDS.register("github_token")(
    Kind(
        tag="GITHUB_TOKEN",
        pattern=r"(?-u:\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59})\b)",
        check=_check,
        canonical=str,
        keep_first=3,
    )
)
