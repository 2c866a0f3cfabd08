"""Payment cards: the issuer's prefix, its lengths and the Luhn digit."""

import re
from collections.abc import Iterator

from curation.pii import KINDS
from curation.pii.checksums import digits_of, luhn
from curation.pii.kind import Found, Kind
from curation.pii.surroundings import NUMBERS, Words, inside

_SHAPES = re.compile(
    r"(?<![0-9A-Za-z_.,+])(?:[0-9]{4}([ \-])[0-9]{4}\1[0-9]{4}\1[0-9]{4}(?:\1[0-9]{3})?"
    r"|[0-9]{4}([ \-])[0-9]{6}\2[0-9]{4,5}|[0-9]{6}[ \-][0-9]{13}|[0-9]{12,19})(?![0-9A-Za-z_\-]|[.,][0-9])"
)
_WORDS = Words(
    "card cards credit debit visa mastercard amex cc pan maestro discover diners jcb carte tarjeta karte cartão"
    " 카드 신용카드 체크카드 カード 信用卡 银行卡 卡号 บัตร"
)
_NETWORKS: tuple[tuple[str, frozenset[int], bool], ...] = (
    (r"4", frozenset({16, 19}), True),
    (r"4", frozenset({13}), False),
    (r"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720", frozenset({16}), True),
    (r"3[47]", frozenset({15}), True),
    (r"30[0-5]|3[689]", frozenset({14}), True),
    (r"6011|64[4-9]|65", frozenset({16, 19}), True),
    (r"352[89]|35[3-8]", frozenset({16}), True),
    (r"1800|2131", frozenset({15}), False),
    (r"62|81", frozenset({16, 17, 18, 19}), False),
    (r"220[0-4]", frozenset({16}), True),
    (r"50|5[6-9]|6[0-9]", frozenset(range(12, 20)), False),
    (r"9", frozenset({16}), False),
)
"""Prefix, lengths, and whether the two with the Luhn digit convince where no word and no grouping does: Visa, old
Visa, Mastercard, American Express, Diners, Discover, JCB, old JCB, UnionPay, Mir, Maestro, Korean domestic cards."""
_COMPILED = tuple((re.compile(prefix), lengths, sure) for prefix, lengths, sure in _NETWORKS)


def _check(text: str, start: int, end: int) -> Iterator[Found]:
    for match in inside(_SHAPES, text, start, end):
        digits = digits_of(match[0])
        fitting = [sure for prefix, lengths, sure in _COMPILED if len(digits) in lengths and prefix.match(digits)]
        said = _WORDS.before(text, match.start())
        # A word and the Luhn digit are enough for an issuer that is not listed.
        if not (fitting or said > 0) or len(set(digits)) < 2:
            continue
        grouped = not match[0].isdigit()
        holds = luhn(digits)
        if not holds:
            # A slip of the pen, or no card: too weak to be replaced by default.
            if said > 0:
                yield Found(match.start(), match.end(), 0.4, checksum=False)
        elif said > 0 or (grouped and said == 0):
            yield Found(match.start(), match.end(), 0.98, checksum=True)
        elif said == 0 and any(fitting):
            yield Found(match.start(), match.end(), 0.75, checksum=True)
        else:
            yield Found(match.start(), match.end(), 0.3, checksum=True)


KINDS.register("payment_card")(Kind(tag="PAYMENT_CARD", pattern=NUMBERS, num_digits=12, check=_check, keep_last=4))
