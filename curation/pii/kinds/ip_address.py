"""IP addresses that lead to somebody: public ones only."""

import re
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from curation.pii import KINDS
from curation.pii.kind import Found, Kind
from curation.pii.surroundings import Words

_SPECIAL = tuple(
    ip_network(one)
    for one in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"),
        *("192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
        *(
            "224.0.0.0/4",
            "240.0.0.0/4",
            "::/8",
            "64:ff9b::/96",
            "64:ff9b:1::/48",
            "100::/64",
            "2001::/23",
            "2001:db8::/32",
        ),
        *("3fff::/20", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8"),
    )
)
"""Networks of nobody in particular (IANA's special-purpose registries, RFC 6890), and multicast. Written out: Python's
``is_global`` changed between patch releases."""
_UNICAST = IPv6Network("2000::/3")
_WORDS = Words(
    "ip ipv4 ipv6 address addr host server client login logged from peer gateway dns ping traceroute 아이피 주소"
    " 서버 접속 アドレス 地址 服务器",
    against="version ver v release build firmware section chapter oid driver revision rev 버전 版本 バージョン",
)
_SMALL = 20
"""Four numbers all below it look like a version or the number of a section."""


def _check(text: str, start: int, end: int) -> Iterator[Found]:
    value = text[start:end]
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    if before[-1:] in (".", ":", "-", "_") or (before[-1:].isalnum() and before[-1:].isascii()):
        return
    if re.match(r"[\w:]|[.\-][0-9A-Za-z:]", after, re.ASCII):
        return
    try:
        address = ip_address(value)
    except ValueError:
        return
    if any(address in network for network in _SPECIAL if network.version == address.version):
        return
    said = _WORDS.before(text, start)
    if address.version == 6:
        groups = value.split(":")
        if max(map(len, groups)) < 3 or (len(groups) < 8 and address not in _UNICAST):
            # Bytes of a fingerprint, names in C++.
            return
        yield Found(start, end, 0.95)
    elif said > 0:
        yield Found(start, end, 0.9)
    elif said == 0 and max(address.packed) >= _SMALL:
        yield Found(start, end, 0.7)
    else:
        yield Found(start, end, 0.3)


def _pseudonym(digest: bytes, value: str) -> str:
    """An address of the same version that is nobody's: of 240.0.0.0/4, or of the prefix for documentation."""
    number = int.from_bytes(digest[:12], "big")
    if ":" in value:
        return str(IPv6Network("2001:db8::/32")[number])
    return str(IPv4Network("240.0.0.0/4")[number % (2**28 - 1)])


KINDS.register("ip_address")(
    Kind(
        tag="IP_ADDRESS",
        pattern=(
            r"(?-u:[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}"
            r"|[0-9A-Fa-f]{1,4}:(?:[0-9A-Fa-f]{0,4}:){1,6}[0-9A-Fa-f]{0,4})"
        ),
        check=_check,
        canonical=lambda value: str(ip_address(value)),
        pseudonym=_pseudonym,
    )
)
