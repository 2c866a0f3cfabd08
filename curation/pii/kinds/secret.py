"""Passwords, keys and tokens that are assigned by name."""

import re
from collections.abc import Iterator

from curation.pii import KINDS
from curation.pii.kind import Found, Kind
from curation.pii.secrets import entropy

_VALUE = re.compile(r"(?:['\"`]?[ \t]{0,3}(?:=>|:=|=|:)[ \t]{0,3}['\"`]?)(?P<value>[^\s'\"`,;&<>(){}\[\]]{8,500})")
_PASSWORD = re.compile(r"pass|pwd|비밀번호|암호|暗証|密码|パスワード", re.IGNORECASE)
_WORDLIKE = re.compile(
    r"[A-Za-z]+(?:[._\-][A-Za-z]+)*[0-9]{0,2}|[a-z]+(?:[A-Z][a-z]+)+[0-9]{0,2}|[./~]?/?(?:[\w.\-]+/)+[\w.\-]*|[0-9.,:\-/]+"
)
"""Names, paths, calls and dates: what code assigns to such a name when it is no secret."""
_BITS, _PASSWORD_BITS = 3.5, 2.5
"""Bits a character from which a value counts as drawn by lot: 20 hex digits drawn so have 3.4 on average, 20 of base64
4.0, English identifiers below 3.3. A password is shorter and chosen, so its name says more."""


def _check(text: str, start: int, end: int) -> Iterator[Found]:
    match = _VALUE.search(text, start)
    if match is None or match.start() > end:
        return
    value = match["value"].rstrip(".!?:")
    kinds = sum(bool(re.search(one, value)) for one in ("[a-z]", "[A-Z]", "[0-9]", r"[^A-Za-z0-9]"))
    password = _PASSWORD.search(text, start, end) is not None
    enough = entropy(value) >= (_PASSWORD_BITS if password else _BITS - (len(value) >= 32 and value.isalnum()) * 0.3)
    if len(value) < 8 or "**" in value or value[0] in "$%&*" or _WORDLIKE.fullmatch(value) or not enough or kinds < 2:
        return
    if not re.search("[0-9]", value) and kinds < 3:
        return
    at = match.start("value")
    yield Found(at, at + len(value), 0.6 if password and len(value) < 16 else 0.75)


KINDS.register("secret")(
    Kind(
        tag="SECRET",
        pattern=(
            r"(?i-u:(?:api|access|secret|private|auth|encryption|signing|account)[_ \-]?(?:key|token|secret)|secret"
            r"|token|passwo?r?d|passphrase|\bpwd|client[_\-]?secret|credential)s?"
            r"(?:[_\-](?:key|token|id|value|access|hash))?['\"`]?[ \t]{0,3}(?:=>|:=|=|:)"
            r"|(?:비밀번호|암호|密码|パスワード)[ \t]{0,3}[:=：]"
        ),
        check=_check,
        canonical=str,
        hides_signs=True,
    )
)
