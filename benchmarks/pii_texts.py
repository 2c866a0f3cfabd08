"""Texts with personal data whose places are known, and texts that only look like it: drawn by seed.

Numbers are made by the issuers' published rules, written anew and not by the detectors; check digits are found by
trying.
"""

import random
import re
import string
from collections.abc import Callable
from dataclasses import dataclass, field

from curation.pii.checksums import luhn, mod97

Maker = Callable[[random.Random], str]


@dataclass
class Labelled:
    """One text: ``spans`` are kind, start and end; ``ignored`` are places about which definitions differ."""

    text: str
    spans: list[tuple[str, int, int]] = field(default_factory=list)
    ignored: list[tuple[int, int]] = field(default_factory=list)
    korean: bool = False


def digits(rng: random.Random, number: int, first: str = string.digits) -> str:
    """So many digits, the first of some."""
    return rng.choice(first) + "".join(rng.choices(string.digits, k=number - 1))


def fitting(rng: random.Random, stem: Maker, fits: Callable[[str], bool]) -> str:
    """A stem with the last digit by which it fits; another stem where none does."""
    while True:
        begun = stem(rng)
        for last in string.digits:
            if fits(begun + last):
                return begun + last


def grouped(number: str, sizes: list[int], sign: str) -> str:
    """A number in groups."""
    parts, at = [], 0
    for size in sizes:
        parts.append(number[at : at + size])
        at += size
    return sign.join(parts)


def email(rng: random.Random) -> str:
    """An address: names, digits, dots, subdomains, country domains."""
    first = rng.choice(
        [
            "anna",
            "bob",
            "carlos",
            "dmitri",
            "eun-ji",
            "fatima",
            "george",
            "hong",
            "kim",
            "li",
            "maria",
            "noor",
            "oleg",
            "park",
            "qi",
            "rosa",
            "sven",
        ]
    )
    last = rng.choice(
        ["smith", "garcia", "kim", "lee", "muller", "rossi", "silva", "tanaka", "wang", "jones", "o'neil", "novak"]
    )
    local = rng.choice([f"{first}.{last}", f"{first}{rng.randrange(100)}", f"{first[0]}_{last}", f"{first}+news", last])
    domain = rng.choice(
        [
            "gmail.com",
            "naver.com",
            "web.de",
            "mail.ru",
            "corp.co.kr",
            "uni-koeln.de",
            "inbox.example.org",
            "yahoo.co.jp",
            "ab.io",
        ]
    )
    return f"{local}@{domain}"


_AREAS = ["212", "310", "312", "415", "512", "617", "702", "713", "808", "917"]


def phone(rng: random.Random) -> str:
    """A number of one of ten countries, as people write them."""
    pick = rng.choice

    def d(number: int, first: str = string.digits) -> str:
        return digits(rng, number, first)

    area, exchange = pick(_AREAS), d(3, "23456789")
    while exchange[1:] == "11":
        exchange = d(3, "23456789")
    uk, mobile = pick(["20 79", "20 83", "161 4"]), d(4, "23456789")
    return pick(
        [
            f"({area}) {exchange}-{d(4)}",
            f"{area}-{exchange}-{d(4)}",
            f"{area}.{exchange}.{d(4)}",
            f"+1 {area} {exchange} {d(4)}",
            f"+1-{area}-{exchange}-{d(4)}",
            f"+44 {uk}{d(2)} {d(4)}",
            f"+44 7{pick('45789')}{d(2)} {d(6)}",
            f"0{uk}{d(2)} {d(4)}",
            f"+33 6 {d(2)} {d(2)} {d(2)} {d(2)}",
            f"06 {d(2)} {d(2)} {d(2)} {d(2)}",
            f"+49 30 {d(7, '23456789')}",
            f"030 {d(7, '23456789')}",
            f"+34 6{d(2)} {d(3)} {d(3)}",
            f"+39 33{pick('3589')} {d(7)}",
            f"+81 90-{mobile}-{d(4)}",
            f"+91 98{d(3)} {d(5)}",
            f"+55 11 9{d(4)}-{d(4)}",
            f"+82 10-{mobile}-{d(4)}",
        ]
    )


def korean_phone(rng: random.Random) -> str:
    """A Korean number: mobile, Seoul, a province, internet."""
    middle, last = digits(rng, 4, "23456789"), digits(rng, 4)
    return rng.choice(
        [
            f"010-{middle}-{last}",
            f"010{middle}{last}",
            f"010 {middle} {last}",
            f"02-{middle[:3]}-{last}",
            f"02) {middle}-{last}",
            f"031-{middle[:3]}-{last}",
            f"070-{middle}-{last}",
            f"010.{middle}.{last}",
            f"+82-10-{middle}-{last}",
        ]
    )


def payment_card(rng: random.Random) -> str:
    """A card of five networks, in groups or not."""
    prefix, size, groups = rng.choice(
        [
            ("4", 16, [4] * 4),
            ("5" + rng.choice("12345"), 16, [4] * 4),
            ("37", 15, [4, 6, 5]),
            ("6011", 16, [4] * 4),
            ("36", 14, [4, 6, 4]),
            ("35" + rng.choice("345678"), 16, [4] * 4),
        ]
    )
    number = fitting(rng, lambda rng: prefix + digits(rng, size - len(prefix) - 1), luhn)
    return grouped(number, groups, rng.choice(["", "", " ", "-"])) if groups else number


def iban(rng: random.Random) -> str:
    """An account of six countries."""
    country, bank, size = rng.choice(
        [("DE", "", 18), ("GB", "WEST", 14), ("FR", "", 23), ("NL", "ABNA", 10), ("ES", "", 20), ("CH", "", 17)]
    )
    account = bank + digits(rng, size)
    number = f"{country}{98 - mod97(account + country + '00'):02d}{account}"
    return " ".join(number[at : at + 4] for at in range(0, len(number), 4)) if rng.random() < 0.5 else number


def ip_address(rng: random.Random) -> str:
    """A public address of either version."""
    if rng.random() < 0.2:
        return filled("2a0{1-8}:a{h3}:b{h3}::c{h2}", rng)
    while True:
        parts = [rng.choice([23, 45, 52, 81, 93, 104, 142, 151, 185, 211]), *(rng.randrange(1, 255) for _ in range(3))]
        if parts[:2] != [185, 0]:
            return ".".join(map(str, parts))


def us_ssn(rng: random.Random) -> str:
    """A social security number in a range that is given out."""
    area = rng.choice([one for one in range(1, 900) if one != 666])
    return f"{area:03d}-{rng.randrange(1, 100):02d}-{rng.randrange(1, 10_000):04d}"


def us_itin(rng: random.Random) -> str:
    """A taxpayer number."""
    return f"9{digits(rng, 2)}-{rng.choice([50, 61, 70, 78, 88, 90, 92, 94, 99])}-{digits(rng, 4)}"


def uk_nhs(rng: random.Random) -> str:
    """A health service number."""

    def fits(number: str) -> bool:
        rest = 11 - sum(int(one) * weight for one, weight in zip(number, range(10, 1, -1), strict=False)) % 11
        return rest % 11 == int(number[9]) and rest != 10

    return grouped(fitting(rng, lambda rng: digits(rng, 9, "4679"), fits), [3, 3, 4], rng.choice([" ", " ", ""]))


def kr_resident_number(rng: random.Random) -> str:
    """A resident number: half with a check digit, half as they are given since October 2020."""
    born = f"{rng.randrange(40, 100):02d}{rng.randrange(1, 13):02d}{rng.randrange(1, 29):02d}"
    begun = born + digits(rng, 1, "12") + digits(rng, 5)
    weights = (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)
    check = (11 - sum(int(one) * weight for one, weight in zip(begun, weights, strict=True)) % 11) % 10
    number = begun + (str(check) if rng.random() < 0.5 else digits(rng, 1))
    return f"{number[:6]}-{number[6:]}"


def kr_business_number(rng: random.Random) -> str:
    """A business number."""

    def fits(number: str) -> bool:
        total = sum(int(one) * weight for one, weight in zip(number, (1, 3, 7, 1, 3, 7, 1, 3, 5), strict=False))
        return (10 - (total + int(number[8]) * 5 // 10) % 10) % 10 == int(number[9])

    return grouped(fitting(rng, lambda rng: digits(rng, 9, "123456789"), fits), [3, 2, 5], "-")


def token(rng: random.Random, number: int, alphabet: str = string.ascii_letters + string.digits) -> str:
    """Letters and digits by lot."""
    return "".join(rng.choices(alphabet, k=number))


def aws_key(rng: random.Random) -> str:
    """An access key id."""
    return "AKIA" + token(rng, 16, string.ascii_uppercase + "234567")


def github_token(rng: random.Random) -> str:
    """A token whose checksum does not hold: that it is one is told by its form."""
    return f"gh{rng.choice('pos')}_{token(rng, 36)}"


def secret(rng: random.Random) -> str:
    """A key of 24 to 40 characters."""
    return token(rng, rng.randrange(24, 41))


ENGLISH: dict[str, tuple[Maker, list[str]]] = {
    "email": (email, ["write to {} please", "From: <{}>", "my address is {}, thanks", "{} did not answer", "cc {};"]),
    "phone": (
        phone,
        [
            "call me at {} after six",
            "Tel: {}",
            "my number is {}.",
            "you can reach us on {}",
            "{} (office)",
            "text {} now",
        ],
    ),
    "payment_card": (
        payment_card,
        ["card number {} was declined", "pay with {} please", "my Visa {} expired", "I was charged on {}."],
    ),
    "iban": (iban, ["transfer it to {}", "IBAN: {}", "my account {} is closed", "from {} to mine"]),
    "ip_address": (
        ip_address,
        ["login from {} refused", "{} - - [GET /]", "blocked {} yesterday", "the host {} is down"],
    ),
    "us_ssn": (us_ssn, ["my SSN is {}", "social security number {}", "applicant {}, born 1980", "SSN: {}"]),
    "us_itin": (us_itin, ["ITIN {}", "my taxpayer number is {}"]),
    "uk_nhs": (uk_nhs, ["NHS number {}", "patient {} was seen today", "NHS no. {}"]),
}
CODE: dict[str, tuple[Maker, list[str]]] = {
    "aws_key": (aws_key, ["aws_access_key_id = {}", "the key {} leaked", "export AWS_ACCESS_KEY_ID={}"]),
    "github_token": (github_token, ["git clone with {}", "GITHUB_TOKEN={}", "token: {}"]),
    "secret": (secret, ["api_key = '{}'", '"client_secret": "{}"', "auth_token: {}", "password={}"]),
}
KOREAN: dict[str, tuple[Maker, list[str]]] = {
    "phone": (korean_phone, ["연락처는 {}입니다", "{}로 전화 주세요", "문의: {}", "제 번호 {} 저장해 주세요", "☎{}"]),
    "email": (email, ["메일은 {}으로 보내 주세요", "이메일:{}", "{}에서 답이 없습니다"]),
    "kr_resident_number": (
        kr_resident_number,
        ["주민등록번호 {}를 적었습니다", "{}인데 조회가 안 됩니다", "주민번호:{}"],
    ),
    "kr_business_number": (kr_business_number, ["사업자등록번호 {}", "저희 사업자 번호는 {}입니다", "{} 상호 한빛"]),
    "payment_card": (payment_card, ["카드 {}로 결제했어요", "카드번호 {} 승인 거절", "{}로 결제해 주세요"]),
}
LOOKALIKES = [
    "order {d10} has shipped",
    "tracking number {d12}",
    "order #{d3}-{d7}-{d7} is late",
    "upgrade to version {1-19}.{0-9}.{0-9}.{0-299}",
    "Chrome/{60-119}.0.{4000-6999}.{0-199}",
    "on {1990-2029}-{10-12}-{10-28} at {10-23}:15:00",
    "due {10-28}.{10-12}.{1990-2029} or later",
    "ISBN 978-{d1}-{d2}-{d6}-{d1}",
    "ISBN {d1}-{d3}-{d5}-{d1}",
    "at -{10-89}.{d4}, {100-179}.{d4} on the map",
    "at {10-89}.{d6} {100-179}.{d6}",
    "sha1 {h40}",
    "md5 {h32} ok",
    "id {h8}-{h4}-4{h3}-a{h3}-{h12}",
    "see https://shop.com/item/{d12}?ref={d8}",
    "pages {100-999}-{100-999}, {1900-2029}-{1900-2029}",
    "it costs ${1-999},{d3},{d3}.00",
    "1{d9} seconds since 1970, 1{d12} in milliseconds",
    "invoice {d4}-{d4}-{d4}",
    "icon_{d2}@2x.png is missing",
    "pi is 3.{d18} or so",
    "part no {d3}-{d4}-{d2}",
    "ZIP {d5}-{d4}",
]
"""``{d4}`` is four digits, ``{h4}`` four hex digits, ``{1-9}`` a number from 1 to 9."""
KOREAN_LOOKALIKES = [
    "주문번호 {2015-2025}{10-12}{10-28}-{d7}",
    "운송장 {d4}-{d4}-{d4} 조회",
    "{1990-2025}년 {1-12}월 {1-28}일 {1-12}시",
    "총 {10-99},{d3},{d3}원입니다",
    "접수번호 {d6}-{d2}",
    "우편번호 {d5}, 버전 {0-8}.{0-8}.{0-8}",
    "일련번호 9{d12}",
]
PRIVATE = ["10.{0-255}.{0-255}.{0-255}", "192.168.{0-255}.{0-255}", "203.0.113.{0-255}"]
FILLER = [
    "the parcel came late again",
    "I would like to know why",
    "please help",
    "it was fine until Tuesday",
    "no idea",
    "we are open from nine to five",
]
KOREAN_FILLER = ["배송이 늦어요", "확인 부탁드립니다", "감사합니다", "화면이 안 나와요", "오늘 안에 답 주세요"]
_BLANK = re.compile(r"\{(?:([dh])([0-9]+)|([0-9]+)-([0-9]+))\}")


def filled(template: str, rng: random.Random) -> str:
    """A template with its blanks filled."""

    def fill(blank: re.Match[str]) -> str:
        if blank[3]:
            return str(rng.randint(int(blank[3]), int(blank[4])))
        return token(rng, int(blank[2]), string.digits if blank[1] == "d" else "0123456789abcdef")

    return _BLANK.sub(fill, template)


def labelled(number: int, seed: int) -> list[Labelled]:
    """So many texts: half in English, an eighth code, the rest Korean; a third of them hold nothing but lookalikes."""
    rng = random.Random(seed)
    return [_one(rng) for _ in range(number)]


def _one(rng: random.Random) -> Labelled:
    kind = rng.choices(("english", "code", "korean"), (4, 1, 3))[0]
    source = {"english": ENGLISH, "code": CODE, "korean": KOREAN}[kind]
    filler, lookalikes = (KOREAN_FILLER, KOREAN_LOOKALIKES) if kind == "korean" else (FILLER, LOOKALIKES)
    made = Labelled("", korean=kind == "korean")
    parts: list[tuple[str, str, str | None]] = [("", rng.choice(filler), None)]
    if rng.random() < 2 / 3:
        for name in rng.choices(list(source), k=rng.randrange(1, 3)):
            maker, templates = source[name]
            parts.append((name, rng.choice(templates), maker(rng)))
    parts += [("", filled(rng.choice(lookalikes), rng), None) for _ in range(rng.randrange(0, 3))]
    if rng.random() < 0.05:
        parts.append(("private", "the router is {}", filled(rng.choice(PRIVATE), rng)))
    rng.shuffle(parts)
    for name, template, value in parts:
        made.text += rng.choice((". ", "\n", " / ")) if made.text else ""
        if value is None:
            made.text += template
            continue
        before, after = template.split("{}")
        start = len(made.text) + len(before)
        made.text += before + value + after
        if name == "private":
            made.ignored.append((start, start + len(value)))
        else:
            made.spans.append((name, start, start + len(value)))
    return made
