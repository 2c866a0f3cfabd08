"""Laws of every kind of personal data: found in a sentence, not in what looks like it, replaced for good."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.pii import KINDS
from curation.pii.finding import find_spans
from curation.pii.replacing import redact
from curation.pii.step import REPLACING, PiiStep

KEY = b"0123456789abcdef"
SAMPLES = {
    "api_key": ("the key sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc works", "sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc"),
    "aws_key": ("id AKIAIOSFODNN7EXAMPLE다", "AKIAIOSFODNN7EXAMPLE"),
    "br_cpf": ("meu CPF: 529.982.247-25, obrigado", "529.982.247-25"),
    "cn_resident_id": ("身份证号11010519491231002X。", "11010519491231002X"),
    "email": ("메일은 hong.gildong@naver.com으로", "hong.gildong@naver.com"),
    "es_dni": ("con DNI 12345678Z.", "12345678Z"),
    "fr_nir": ("NIR 2 69 05 49 588 157 80", "2 69 05 49 588 157 80"),
    "github_token": ("token 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.", "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"),
    "google_key": (
        "use AIza" + "SyDaGmWKa4JsXZ-HjGw7ISLn_3namBGewQe ok",
        "AIza" + "SyDaGmWKa4JsXZ-HjGw7ISLn_3namBGewQe",
    ),
    "iban": ("to GB82 WEST 1234 5698 7654 32 and more", "GB82 WEST 1234 5698 7654 32"),
    "in_aadhaar": ("Aadhaar 2341 2341 2346 ok", "2341 2341 2346"),
    "ip_address": ("login from 106.31.73.20 today", "106.31.73.20"),
    "it_fiscal_code": ("CF RSSMRA85T10A562S.", "RSSMRA85T10A562S"),
    "jp_my_number": ("マイナンバーは123456789018です", "123456789018"),
    "jwt": ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"),
    "kr_business_number": ("사업자등록번호 220-81-62517 대표", "220-81-62517"),
    "kr_driver_license": ("면허번호 11-20-123456-78", "11-20-123456-78"),
    "kr_passport": ("여권번호 M123A4567입니다", "M123A4567"),
    "kr_resident_number": ("주민번호는900101-1234568입니다", "900101-1234568"),
    "payment_card": ("card 4111 1111 1111 1111 exp 12/25", "4111 1111 1111 1111"),
    "phone": ("전화010-1234-5678로", "010-1234-5678"),
    "pl_pesel": ("PESEL 44051401359", "44051401359"),
    "private_key": (
        "a\n-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nabc=\n-----END RSA PRIVATE KEY-----\nb",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nabc=\n-----END RSA PRIVATE KEY-----",
    ),
    "secret": ("password = 'hunter2Xy!9'", "hunter2Xy!9"),
    "sg_nric": ("NRIC S1234567D", "S1234567D"),
    "slack_token": ("xoxb-" + "123456789012-abcdefGHIJKL end", "xoxb-" + "123456789012-abcdefGHIJKL"),
    "uk_nhs": ("NHS number 943 476 5919", "943 476 5919"),
    "url_credentials": ("https://bob:s3cr3tpw@host.com/x", "bob:s3cr3tpw"),
    "us_itin": ("my ITIN is 912-70-1234", "912-70-1234"),
    "us_ssn": ("SSN: 219-09-1234.", "219-09-1234"),
}
NAMES = sorted(KINDS.load())
PATTERNED = [name for name in NAMES if KINDS[name].member.read is None]
LOOKALIKES = [
    "order 1234567890123 shipped, 주문번호 2024-0102-123456, 운송장 6012-3456-7890",
    "version 10.2.3.4, OID 1.3.6.1.4.1.311.21, chrome 91.0.4472.124, 192.168.0.1, 203.0.113.5, 10.0.0.1, ::1, fe80::1",
    "on 2024-01-02 10:30:15, 01.02.2019 12, 2024년 1월 2일, 20240102123456, 12:30:45",
    "ISBN 978-3-16-148410-0, ISBN 0-306-40615-2, doi:10.1137/10081232X, ISSN 2049-3630",
    "37.5665, 126.9780 and -33.8688 151.2093",
    "d41d8cd98f00b204e9800998ecf8427e 550e8400-e29b-41d4-a716-446655440000 00:1b:44:11:3a:b7",
    "logo@2x.png, git@github.com:org/repo, user@pii.invalid, see @someone, a@b",
    "2019-2020, pp. 764-774 (2009) 116-140, $1,234,567.89, +4.48182175, 1_000_000, 3.14159265358979",
    "password: required, token = get_token(), secret: ${SECRET}, api_key=YOUR_API_KEY, password_field: TextInput",
    "http://host:8080/a@b, std::vector<int>, 04:30-05:00, 1588-1648, Boston, MA 02110-1301",
    "4111 1111 1111 1112, 900230-1234568 is no date, GB82 WEST 1234 5698 7654 33, 000-12-3456, 123-00-4567",
]


def values(text: str) -> list[tuple[str, str]]:
    return [(one["kind"], text[one["start"] : one["end"]]) for one in find_spans(pl.Series([text])).to_dicts()]


@pytest.mark.parametrize("name", PATTERNED)
def test_value_is_found_in_a_sentence(name):
    text, value = SAMPLES[name]
    assert (name, value) in values(text)


@pytest.mark.parametrize("text", LOOKALIKES)
def test_lookalike_is_not_found(text):
    assert values(text) == []


@pytest.mark.parametrize("action", REPLACING)
@pytest.mark.parametrize("name", PATTERNED)
def test_replaced_value_is_gone_and_nothing_new_is_found(name, action):
    text, value = SAMPLES[name]
    step = PiiStep.configured({"action": action})
    after = redact(pl.Series([text]), step, KEY)
    assert value not in after[0]
    assert find_spans(after, step.kinds).is_empty(), after[0]
    if action == "mask":
        assert len(after[0]) == len(text)


pieces = st.sampled_from([text for text, _ in SAMPLES.values()] + [value for _, value in SAMPLES.values()] + LOOKALIKES)
texts = st.lists(
    st.lists(pieces | st.text(alphabet="0123456789 -.@:/가é\n", max_size=12), max_size=4).map("".join),
    min_size=1,
    max_size=4,
)


@settings(max_examples=20)
@given(rows=texts)
def test_spans_depend_on_their_text_alone_and_never_overlap(rows):
    together = find_spans(pl.Series(rows, dtype=pl.String), min_confidence=0.1)
    for row, text in enumerate(rows):
        own = together.filter(pl.col("row") == row).drop("row")
        assert own.equals(find_spans(pl.Series([text]), min_confidence=0.1).drop("row"))
        assert (own["start"] < own["end"]).all()
        assert (own["end"] <= len(text)).all()
        assert (own["start"].shift(-1).drop_nulls() >= own["end"].head(max(0, own.height - 1))).all()


@pytest.mark.parametrize("action", REPLACING)
@settings(max_examples=15)
@given(rows=texts)
def test_replacing_again_changes_nothing(action, rows):
    step = PiiStep.configured({"action": action})
    once = redact(pl.Series(rows, dtype=pl.String), step, KEY)
    assert redact(once, step, KEY).to_list() == once.to_list()
    assert redact(pl.Series(rows[::-1], dtype=pl.String), step, KEY).to_list() == once.to_list()[::-1]
