"""Telephone numbers: international ones, Korean ones, and national shapes of other countries."""

import re
from collections.abc import Iterator

from curation.pii import KINDS
from curation.pii.checksums import digits_of
from curation.pii.kind import Found, Kind
from curation.pii.surroundings import NUMBERS, SEPARATOR, Words, inside

_S = SEPARATOR
_TWO_DIGITS = re.compile("2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]")
_THREE_DIGITS = re.compile(
    r"2(?:1[12368]|[2346]\d|5[0-8]|9[01789])|3(?:[57]\d|8[0-35-79])|42[013]|50\d|59\d|6(?:7[02-9]|8\d|9[0-2])|800|808"
    r"|85[02356]|87[08]|88[01268]|96[0-8]|97[0-79]|99[2-68]"
)
"""Country calling codes of ITU-T E.164 (list of assigned codes); +999, which our pseudonyms have, is nobody's."""
_NATIONAL = {
    "1": (10, 10),
    "7": (10, 10),
    "33": (9, 9),
    "34": (9, 9),
    "44": (7, 10),
    "81": (8, 10),
    "82": (7, 11),
    "86": (7, 11),
}
"""Digits behind the code, fewest and most; for others 5 to 12, 15 in all (E.164, section 6.2)."""
_KOREAN = re.compile(
    r"01[016-9][0-9]{7,8}|02[2-9][0-9]{6,7}|0(?:3[1-3]|4[1-4]|5[1-5]|6[1-4])[2-9][0-9]{6,7}|0(?:60|70|80)[0-9]{7,8}"
    r"|050[2-8][0-9]{7,8}"
)
"""Mobile, Seoul, provinces, premium and internet, personal numbers, with the 0 and no signs between."""
_EXTENSION = r"(?:[ ,]{0,2}(?:x|ext\.?|내선)[ ]?[0-9]{1,6}(?![0-9]))?"
_LEFT = r"(?<![0-9A-Za-z_+(#$€£¥₩%])(?<![0-9][.,\-/])"
_RIGHT = r"(?![0-9A-Za-z_%]|[.,:\-/][0-9])"
_SHAPES = (
    re.compile(
        rf"(?<![0-9A-Za-z_+])\(?(?:\+|(?<![/.:#\-])00[ ]?)\(?[1-9](?:{_S}?\(?[0-9]{{1,12}}\)?){{1,7}}"
        rf"{_EXTENSION}{_RIGHT}"
    ),
    re.compile(rf"{_LEFT}\(?0[0-9]{{1,3}}\)?{_S}?[0-9]{{3,4}}{_S}?[0-9]{{4}}{_RIGHT}"),
    re.compile(
        rf"{_LEFT}(?:1{_S})?(?:\([2-9][0-9]{{2}}\)[ ]?|[2-9][0-9]{{2}}{_S})[2-9][0-9]{{2}}{_S}[0-9]{{4}}"
        rf"{_EXTENSION}{_RIGHT}"
    ),
    re.compile(
        rf"{_LEFT}(?:\(0[1-9][0-9]{{0,3}}\)[ ]?|0[1-9][0-9]{{0,3}}{_S})(?:[0-9]{{2,7}}{_S}?){{0,4}}[0-9]{{2,7}}"
        rf"{_EXTENSION}{_RIGHT}"
    ),
    re.compile(rf"{_LEFT}\((?!19|20[0-9]{{2}})[0-9]{{2,4}}\)[ ]?[0-9]{{3,4}}[ \-][0-9]{{3,4}}{_RIGHT}"),
    re.compile(
        rf"{_LEFT}(?:\([0-9]{{1,5}}\)[ ]?|[0-9]{{1,5}}{_S})?(?:[0-9]{{2,11}}{_S}){{0,4}}[0-9]{{2,12}}"
        rf"{_EXTENSION}{_RIGHT}"
    ),
)
_INTERNATIONAL, _KR, _NANP, _TRUNK, _PARENTHESES, _ANY = range(len(_SHAPES))
_DATE = re.compile(
    r"\(?(?:[0-3]?[0-9]([.\-/ ])[01]?[0-9]\1(?:(?:19|20)[0-9]{2}(?![0-9])|[0-9]{2}(?![0-9]|\1[0-9]))"
    r"|(?:19|20)[0-9]{2}([.\-/ ]?)[01][0-9]\2[0-3][0-9]"
    r"|[0-1]?[0-9]([.\-/])[0-3]?[0-9]\3(?:19|20)[0-9]{2}(?![0-9]))"
)
_DECIMAL = re.compile(r"\+?[0-9]+\.[0-9]+")
_ZIP = re.compile(r"[0-9]{5}-[0-9]{4}")
_WORDS = Words(
    "phone telephone tel call mobile cell fax whatsapp viber hotline dial sms contact desk téléphone telefon teléfono"
    " telefone telefono handy móvil celular portable cellulare 전화 전화번호 연락처 연락 휴대폰 핸드폰 휴대전화 팩스"
    " 문의 대표번호 ☎ 📞 📱 電話 携帯 ファックス 电话 手机 联系 传真 โทร เบอร์ телефон тел"
)

_LABEL = re.compile(r"[ \-,]{0,2}\(?(?:office|fax|mobile|cell|main|home|work|desk|direct|tel)\b", re.IGNORECASE)
"""What a signature writes behind a number."""


def _starts_with_country(digits: str) -> tuple[str, bool]:
    """The calling code, and whether what follows has a length that it can have."""
    for code in (digits[:1], digits[:2], digits[:3]):
        known = code in ("1", "7") or _TWO_DIGITS.fullmatch(code) or (len(code) == 3 and _THREE_DIGITS.fullmatch(code))
        if known:
            fewest, most = _NATIONAL.get(code, (5, 12))
            national = digits[len(code) :]
            trunk = national.startswith("0") and code not in ("39",)
            return code, fewest <= len(national) - trunk <= most
    return "", False


def _judge(text: str, match: re.Match[str], shape: int) -> float:
    """Confidence of a match of one shape; 0 where it is no number."""
    value = re.split(r"x|ext|내선", match[0])[0]
    digits = digits_of(value)
    if _DECIMAL.fullmatch(value):
        return 0.0
    if shape == _INTERNATIONAL:
        plus = "+" in value
        code, fits = _starts_with_country(digits if plus else digits[2:])
        if not code or not fits:
            return 0.0
        if plus:
            return 0.9
        said = _WORDS.before(text, match.start())
        return 0.0 if said < 0 or _ZIP.fullmatch(value) else 0.7 if said or not value.isdigit() else 0.4
    if _DATE.match(value) or len(set(digits)) < 3:
        return 0.0
    said = 1 if _LABEL.match(text, match.end()) else _WORDS.before(text, match.start())
    separated = not value.isdigit()
    if shape == _KR and _KOREAN.fullmatch(digits):
        base = 0.9 if separated else 0.7
    elif shape == _NANP and digits[-10:][1:3] != "11" and digits[-7:][1:3] != "11":
        base = 0.75
    elif shape == _TRUNK and separated and 9 <= len(digits) <= 11 and not _ZIP.fullmatch(value):
        base = 0.6
    elif shape == _PARENTHESES:
        base = 0.55
    elif shape == _ANY and said == 0 and re.fullmatch(r"0[1-9][0-9]{8,9}", value):
        return 0.5
    elif 7 <= len(digits) <= 15 and (separated or len(digits) >= 8):
        return 0.65 if said > 0 else 0.2
    else:
        return 0.0
    if said < 0:
        # The name of another number beside it: only a mobile's prefix stands up to that.
        return base - (0.3 if digits.startswith("01") else 0.45)
    return min(0.95, base + 0.15) if said else base


def _check(text: str, start: int, end: int) -> Iterator[Found]:
    """What any of the shapes takes for a number; of those that overlap, the best is chosen later."""
    # An extension may stand behind the candidate.
    end = min(len(text), end + 12)
    for number, shape in enumerate(_SHAPES):
        for match in inside(shape, text, start, end):
            confidence = _judge(text, match, number)
            if number == _INTERNATIONAL and not confidence:
                # Another number may stand right behind it.
                match, confidence = _shortened(text, match)
            if confidence:
                first = match.start() + (match[0].startswith("(") and ")" not in match[0])
                yield Found(first, match.start() + len(match[0].rstrip()), round(confidence, 2))


def _shortened(text: str, match: re.Match[str]) -> tuple[re.Match[str], float]:
    """The longest beginning of an international number, by its groups, that can be one."""
    for end in sorted((match.start() + one.start() for one in re.finditer(_S, match[0])), reverse=True):
        shorter = _SHAPES[_INTERNATIONAL].fullmatch(text, match.start(), end)
        confidence = _judge(text, shorter, _INTERNATIONAL) if shorter else 0.0
        if shorter and confidence:
            return shorter, confidence
    return match, 0.0


def _canonical(value: str) -> str:
    """Digits alone; a Korean number without its country code, so that both ways to write it are one."""
    digits = digits_of(value)
    if "+" in value:
        return "0" + digits[2:].lstrip("0") if digits.startswith("82") else f"+{digits}"
    return digits


KINDS.register("phone")(
    Kind(
        tag="PHONE",
        pattern=NUMBERS,
        num_digits=7,
        check=_check,
        canonical=_canonical,
        pseudonym=lambda digest, _value: f"+999{int.from_bytes(digest[:8], 'big') % 10**12:012d}",
        keep_last=2,
    )
)
