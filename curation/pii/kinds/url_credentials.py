"""User and password in a web address."""

from collections.abc import Iterator

from curation.pii import KINDS
from curation.pii.kind import Found, Kind

_PLACEHOLDERS = frozenset(
    [
        "pass",
        "password",
        "passwd",
        "pwd",
        "secret",
        "token",
        "repo",
        "mypass",
        "mypassword",
        "yourpassword",
        "x-oauth-basic",
    ]
)


def _check(text: str, start: int, end: int) -> Iterator[Found]:
    """What stands between ``://`` and ``@`` (RFC 3986, section 3.2.1), unless it is the words of a manual."""
    first = text.index("://", start, end) + 3
    _, _, password = text[first : end - 1].partition(":")
    if not password.strip("*xX.$%{}<>[]") or password[0] in "<{$[%" or password.strip("*") == "":
        return
    yield Found(first, end - 1, 0.3 if password.lower() in _PLACEHOLDERS else 0.97)


KINDS.register("url_credentials")(
    Kind(
        tag="URL_CREDENTIALS",
        pattern=r"(?-u:\b[A-Za-z][A-Za-z0-9+.\-]{1,15}://)[^\s/:@<>\"'|\[\]]{1,100}:[^\s/@<>\"'|\[\]]{1,200}@",
        check=_check,
        canonical=str,
        hides_signs=True,
    )
)
