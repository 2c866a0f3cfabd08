"""Candidate patterns that kinds share, and the words before a candidate that make the case for it or against it."""

import re
from collections.abc import Iterator

SEPARATOR = r"[ .\-/\u00a0\u2010-\u2013]"
"""Between groups of digits, for ``re``: space, full stop, hyphens and dashes, stroke."""
NUMBERS = r"[+(]{0,3}[0-9][0-9() .\-/\x{a0}\x{2010}-\x{2013}]{5,}[0-9]"
"""Candidates that hold a number of any grouping: the longest run of digits with what may stand between them."""
REACH, REACH_AGAINST = 40, 20
"""Characters before a candidate in which a word for it counts, about half a line, and one against it."""

NUMBER_NAMES = (
    "order invoice isbn issn ean upc doi tracking shipment parcel serial sku reference ref ticket case account acct"
    " version ver build lot model part patent coordinates latitude longitude receipt transaction id zip postcode 주문"
    " 운송장 송장 계좌 접수 관리번호 등록번호 사업자 우편 버전 품번 영수증 거래번호 예약번호 일련번호 注文 伝票 订单"
    " 快递 运单 訂單"
)
"""Names of numbers that belong to a thing: they speak against a number of a person."""


_NUMBER = re.compile(r"[0-9]{3,}|[0-9]+(?:\.[0-9]+)+")
_LATIN = re.compile("[a-z]+")


class Words:
    """Words that speak for a kind, and those that speak against it: the nearest before a candidate decides.

    Words in Latin letters stand alone, others may be within a compound.
    """

    def __init__(self, words: str, against: str = NUMBER_NAMES) -> None:
        own = words.split()
        says = dict.fromkeys(against.split(), -1) | dict.fromkeys(own, 1)
        self._latin = {word: said for word, said in says.items() if _LATIN.fullmatch(word)}
        self._others = tuple((word, said) for word, said in says.items() if word not in self._latin)

    def before(self, text: str, start: int) -> int:
        """1 where the nearest word before ``start`` speaks for the kind, -1 against it, 0 where there is none."""
        window = text[max(0, start - REACH) : start].lower()
        # A word speaks for the number that follows it, not for the one behind that.
        for other in _NUMBER.finditer(window):
            window = " " * other.end() + window[other.end() :]
        far = len(window) - REACH_AGAINST
        nearest, decision = -1, 0
        for one in _LATIN.finditer(window):
            said = self._latin.get(one[0], 0)
            if said > 0 or (said < 0 and one.end() >= far):
                nearest, decision = one.start(), said
        if not window.isascii():
            for word, said in self._others:
                place = window.rfind(word)
                # A compound counts whole: its end decides, not its beginning.
                if place + len(word) > nearest and place >= 0 and (said > 0 or place + len(word) >= far):
                    nearest, decision = place + len(word), said
        return decision


def inside(pattern: re.Pattern[str], text: str, start: int, end: int) -> Iterator[re.Match[str]]:
    """Matches that begin within a candidate; look-around sees the characters beside it."""
    return pattern.finditer(text, start, min(len(text), end + 1))
