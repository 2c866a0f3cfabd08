"""E-mail addresses."""

import re
from collections.abc import Iterator

from curation.pii import KINDS
from curation.pii.kind import Found, Kind, letters

_NOBODYS = re.compile(r"\.(?:invalid|example|test|localhost)$", re.IGNORECASE)
"""Top-level domains that are nobody's (RFC 2606, section 2); our own pseudonyms end in the first."""
_FILES = frozenset(
    [
        "png",
        "jpg",
        "jpeg",
        "gif",
        "svg",
        "webp",
        "bmp",
        "css",
        "js",
        "mjs",
        "ts",
        "tsx",
        "jsx",
        "json",
        "html",
        "htm",
        "xml",
        "txt",
        "pdf",
        "exe",
        "dll",
        "jar",
        "yml",
        "yaml",
    ]
)
"""Endings of files, none a top-level domain: ``logo@2x.png`` is no address."""


def _check(text: str, start: int, end: int) -> Iterator[Found]:
    value = text[start:end]
    local, _, domain = value.rpartition("@")
    start += len(local) - len(local.lstrip(".+-%'"))
    local = local.lstrip(".+-%'")
    if (
        not local
        or len(local) > 64
        or len(domain) > 253
        or ".." in local
        or local[-1] == "."
        or _NOBODYS.search(domain)
    ):
        return
    if domain.rpartition(".")[2].lower() in _FILES or (local.lower() == "git" and text[end : end + 1] in (":", "/")):
        return
    yield Found(start, end, 0.95)


KINDS.register("email")(
    Kind(
        tag="EMAIL",
        # RFC 5322, section 3.4.1, less what nobody writes: quoted local parts, and signs that stand before an address
        # more often than in it.
        pattern=(
            r"(?-u:[A-Za-z0-9._%+'\-]+@(?:[A-Za-z0-9](?:[A-Za-z0-9\-]{0,61}[A-Za-z0-9])?\.)+"
            r"(?:[A-Za-z]{2,24}|xn--[A-Za-z0-9\-]{2,59}\b)(?:\b|_))"
        ),
        check=_check,
        canonical=str.lower,
        pseudonym=lambda digest, _value: f"{letters(digest)}@pii.invalid",
        keep_first=1,
    )
)
